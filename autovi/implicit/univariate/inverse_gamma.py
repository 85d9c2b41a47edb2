"""Inverse gamma draws: reciprocals of gamma draws, made in log space, where neither is lost."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.numerics.extremes import scaled_exp
from autovi.implicit.numerics.special import log_quotient
from autovi.implicit.univariate.gamma import log_gamma_slope, log_ratio


def draw_inverse_gamma(rng_key: Array, fn: dist.InverseGamma, shape: tuple[int, ...]) -> Array:
    """Draws rate / x of an `InverseGamma`, x ~ Gamma(concentration, 1), which may broadcast to `shape`.

    A draw that its number type cannot hold with its gradient is a smaller one, and its gradient is that of its
    logarithm.
    """
    dtype = jnp.result_type(fn.concentration, fn.rate, float)
    concentration, rate = jnp.asarray(fn.concentration, dtype), jnp.asarray(fn.rate, dtype)
    return scaled_exp(-log_ratio(rng_key, concentration, shape), rate / concentration, heavy=True)


def inverse_gamma_velocity(fn: dist.InverseGamma, value: Array, moving: dist.InverseGamma) -> Array:
    """z (dr/r - d log x/da da)."""
    log_ratio = -log_quotient(value, fn.rate / fn.concentration)
    return value * (moving.rate / fn.rate - log_gamma_slope(log_ratio, fn.concentration) * moving.concentration)
