"""Closed velocities of locations, scales, rates and bounds: dz = -dF / p at a draw z, that is, at fixed u = F(z)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array


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
