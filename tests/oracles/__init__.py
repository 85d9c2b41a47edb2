"""Small NumPyro models, each with a guide and its exact, differentiable ELBO."""

from . import continuous, discrete, mixed, parts, permuted, plated
from .base import Oracle

ROOMS = (plated, discrete, mixed, continuous, parts, permuted)
ORACLES: tuple[Oracle, ...] = tuple(oracle for room in ROOMS for oracle in room.ORACLES)

__all__ = ["ORACLES", "Oracle"]
