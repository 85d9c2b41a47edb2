"""Closed velocities, dz = -dF / p at a draw z, that is, at fixed u = F(z); draws of shapes that never overflow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from autovi.distributions.special import log1p_ratio, log_quotient
from autovi.implicit.numerics.sampling import positive_below_one, scaled_exp


def location_scale_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """dloc + (z - loc) / scale dscale, for whatever is `loc + scale * noise`."""
    return moving.loc + (value - fn.loc) / fn.scale * moving.scale


def delta_velocity(fn: dist.Delta, value: Array, moving: dist.Delta) -> Array:
    """dv."""
    return jnp.broadcast_to(moving.v, jnp.shape(value))


def scale_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """z / scale dscale, for whatever is `scale * noise`."""
    return value / fn.scale * moving.scale


def exponential_velocity(fn: dist.Exponential, value: Array, moving: dist.Exponential) -> Array:
    """-z / rate drate."""
    return -value / fn.rate * moving.rate


def uniform_velocity(fn: dist.Uniform, value: Array, moving: dist.Uniform) -> Array:
    """(1 - u) dlow + u dhigh with u = (z - low) / (high - low)."""
    return ((fn.high - value) * moving.low + (value - fn.low) * moving.high) / (fn.high - fn.low)


def asymmetric_laplace_velocity(fn: dist.AsymmetricLaplace, value: Array, moving: dist.AsymmetricLaplace) -> Array:
    """With y = (z - loc) / scale and k the asymmetry: dy/dk = -|y| / k - 2 / (1 + k^2).

    F = k^2 / (1 + k^2) exp(y / k) on the left of 0 and 1 - exp(-k y) / (1 + k^2) on the right. One noise, where
    NumPyro's sampler has two: the variance of this gradient is the smaller one.
    """
    y, k = (value - fn.loc) / fn.scale, fn.asymmetry
    slope = -jnp.abs(y) / k - 2 / (1 + k * k)
    return moving.loc + y * moving.scale + fn.scale * slope * moving.asymmetry


def asymmetric_laplace_quantile_velocity(
    fn: dist.AsymmetricLaplaceQuantile, value: Array, moving: dist.AsymmetricLaplaceQuantile
) -> Array:
    """With y = (z - loc) / scale and q the quantile: dy/dq = (y - 1/q) / (1 - q) for y < 0, else -(y + 1/(1-q)) / q.

    F = q exp((1 - q) y) on the left of 0 and 1 - (1 - q) exp(-q y) on the right.
    """
    y, q = (value - fn.loc) / fn.scale, fn.quantile
    slope = jnp.where(y < 0, (y - 1 / q) / (1 - q), -(y + 1 / (1 - q)) / q)
    return moving.loc + y * moving.scale + fn.scale * slope * moving.quantile


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
