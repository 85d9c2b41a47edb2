"""Exact sums over discrete sites: factors, the order in which variables are summed out, and what is read off."""
