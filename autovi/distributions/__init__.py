"""Distributions that NumPyro lacks, for models; and what is known of NumPyro's, one row a class."""

from autovi.distributions.permutations import PlackettLuce, PlackettLuceMatrix, permutation, permutation_matrix

__all__ = ["PlackettLuce", "PlackettLuceMatrix", "permutation", "permutation_matrix"]


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
