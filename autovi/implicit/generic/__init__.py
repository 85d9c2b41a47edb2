"""Distributions that the table does not have: rules from a `cdf` or a `log_prob`, and their check."""
