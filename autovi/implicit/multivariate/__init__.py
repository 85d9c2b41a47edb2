"""Distributions of vectors and matrices, coordinate by coordinate."""
