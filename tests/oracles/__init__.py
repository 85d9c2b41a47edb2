"""Small NumPyro models, each with a guide and its exact, differentiable ELBO."""

from . import continuous, discrete, mixed, plated
from .base import Oracle

ORACLES: tuple[Oracle, ...] = plated.ORACLES + discrete.ORACLES + mixed.ORACLES + continuous.ORACLES

__all__ = ["ORACLES", "Oracle"]
