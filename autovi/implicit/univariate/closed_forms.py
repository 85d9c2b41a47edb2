"""Closed velocities of shapes, dz = -dF / p at a draw z, that is, at fixed u = F(z); draws that never overflow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from autovi.implicit.numerics.extremes import positive_below_one, scaled_exp
from autovi.implicit.numerics.special import log1p_ratio, log_quotient


def weibull_velocity(fn: dist.Weibull, value: Array, moving: dist.Weibull) -> Array:
    """z (ds/s - log(z/s)/c dc): (z/s)^c is an exponential draw."""
    log_ratio = log_quotient(value, fn.scale)
    return value * (moving.scale / fn.scale - log_ratio / fn.concentration * moving.concentration)


def pareto_velocity(fn: dist.Pareto, value: Array, moving: dist.Pareto) -> Array:
    """z (ds/s - log(z/s)/alpha dalpha): (s/z)^alpha is uniform."""
    log_ratio = log_quotient(value, fn.scale)
    return value * (moving.scale / fn.scale - log_ratio / fn.alpha * moving.alpha)


def lower_power_law_velocity(
    fn: dist.LowerTruncatedPowerLaw, value: Array, moving: dist.LowerTruncatedPowerLaw
) -> Array:
    """z (dlow/low - log(z/low)/(1 + alpha) dalpha): (z/low)^(1 + alpha) is uniform."""
    log_ratio = log_quotient(value, fn.low)
    return value * (moving.low / fn.low - log_ratio / (1 + fn.alpha) * moving.alpha)


def gompertz_velocity(fn: dist.Gompertz, value: Array, moving: dist.Gompertz) -> Array:
    """-z/r dr - (1 - e^(-r z)) / (c r) dc: c (e^(r z) - 1) is an exponential draw."""
    shape = jnp.expm1(-fn.rate * value) / (fn.concentration * fn.rate)
    return shape * moving.concentration - value / fn.rate * moving.rate


def kumaraswamy_velocity(fn: dist.Kumaraswamy, value: Array, moving: dist.Kumaraswamy) -> Array:
    """z (-log z / a da + (1 - w) log(1 - w) / (w a b) db) with w = z^a: (1 - w)^b is uniform."""
    a, b = fn.concentration1, fn.concentration0
    log_value = jnp.log(jnp.maximum(value, jnp.finfo(value.dtype).tiny))
    w, rest = jnp.exp(a * log_value), -jnp.expm1(a * log_value)
    small = w < 0.5
    far = jnp.maximum(jnp.where(small, 0.5, rest), jnp.finfo(value.dtype).tiny)
    beyond = jnp.log(far) / jnp.where(small, 1.0, w)
    log_rest = jnp.where(small, -log1p_ratio(-jnp.where(small, w, 0.0)), beyond)  # log(1 - w) / w
    return value * (rest * log_rest / (a * b) * moving.concentration0 - log_value / a * moving.concentration1)


def draw_kumaraswamy(rng_key: Array, fn: dist.Kumaraswamy, shape: tuple[int, ...]) -> Array:
    """z = (1 - e^(-E/b))^(1/a), E exponential: exact also for large b, where NumPyro's power of a uniform rounds."""
    noise = _noise(rng_key, shape, fn.concentration1, fn.concentration0)
    return positive_below_one(jnp.log(-jnp.expm1(-noise / fn.concentration0)) / fn.concentration1)


def dagum_velocity(fn: dist.Dagum, value: Array, moving: dist.Dagum) -> Array:
    """z (ds/s - log(z/s)/a da + (1 + w) log(1 + w) / (w a p) dp) with w = (z/s)^-a: (1 + w)^-p is uniform."""
    log_ratio = log_quotient(value, fn.scale)
    log_w = -fn.sharpness * log_ratio
    below = log_w > 0  # there (1 + w) / w = 1 + 1/w
    w = jnp.exp(-jnp.abs(log_w))
    slope = jnp.where(below, (1 + w) * (jnp.abs(log_w) + jnp.log1p(w)), (1 + w) * log1p_ratio(w))
    shapes = slope / fn.concentration * moving.concentration - log_ratio * moving.sharpness
    return value * (moving.scale / fn.scale + shapes / fn.sharpness)


def draw_weibull(rng_key: Array, fn: dist.Weibull, shape: tuple[int, ...]) -> Array:
    """z = s E^(1/c), E exponential."""
    noise = _noise(rng_key, shape, fn.scale, fn.concentration)
    return scaled_exp(jnp.log(noise) / fn.concentration, fn.scale, heavy=True)


def draw_pareto(rng_key: Array, fn: dist.Pareto, shape: tuple[int, ...]) -> Array:
    """z = s e^(E/alpha), E exponential."""
    return scaled_exp(_noise(rng_key, shape, fn.scale, fn.alpha) / fn.alpha, fn.scale, heavy=True)


def draw_lower_power_law(rng_key: Array, fn: dist.LowerTruncatedPowerLaw, shape: tuple[int, ...]) -> Array:
    """z = low e^(-E/(1 + alpha)), E exponential."""
    return scaled_exp(-_noise(rng_key, shape, fn.low, fn.alpha) / (1 + fn.alpha), fn.low, heavy=True)


def draw_dagum(rng_key: Array, fn: dist.Dagum, shape: tuple[int, ...]) -> Array:
    """z = s (e^(E/p) - 1)^(-1/a), E exponential: exact also for large p, where NumPyro's power of a uniform rounds."""
    noise = _noise(rng_key, shape, fn.concentration, fn.sharpness, fn.scale) / fn.concentration
    return scaled_exp(-(noise + jnp.log(-jnp.expm1(-noise))) / fn.sharpness, fn.scale, heavy=True)


def _noise(rng_key: Array, shape: tuple[int, ...], *parameters: ArrayLike) -> Array:
    """Exponential draws; those that round to zero lie in the middle of the cell that does."""
    dtype = jnp.result_type(*parameters, float)
    return jnp.maximum(jax.random.exponential(rng_key, shape, dtype), jnp.finfo(dtype).eps / 2)
