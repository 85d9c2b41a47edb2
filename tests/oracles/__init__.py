"""Small NumPyro models, each with a guide and its exact, differentiable ELBO."""

from . import continuous, discrete, mixed, parts, plated
from .base import Oracle

ORACLES: tuple[Oracle, ...] = plated.ORACLES + discrete.ORACLES + mixed.ORACLES + continuous.ORACLES + parts.ORACLES

__all__ = ["ORACLES", "Oracle"]
