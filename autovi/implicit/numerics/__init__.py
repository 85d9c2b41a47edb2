"""Quadrature, special functions, matrices and rejection loops: numbers only, no distributions."""
