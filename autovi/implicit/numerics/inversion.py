"""Inversion of distribution functions: values only, to which the callers attach the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def invert(cdf: Callable[[Array], Array], u: Array, lower: ArrayLike, upper: ArrayLike) -> Array:
    """The z in [lower, upper] with cdf(z) = u, for an increasing `cdf`; either end may be infinite.

    Elementwise, in a fixed number of evaluations: bisection, then false position with the Illinois rule (Dowell and
    Jarratt, 1971), which never leaves the bracket and ends superlinearly. Next to a finite end, and for large z, the
    relative error is small. The result has no derivative.
    """
    u, lower, upper = jax.lax.stop_gradient((u, jnp.asarray(lower), jnp.asarray(upper)))
    dtype = jnp.result_type(u, float)
    u = jnp.asarray(u, dtype)
    point_at, low, high = _unbounded(jnp.asarray(lower, dtype), jnp.asarray(upper, dtype))
    excess = lambda s: cdf(point_at(s)) - u  # noqa: E731
    halvings, steps = (16, 7) if jnp.finfo(dtype).bits <= 32 else (18, 9)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        right = excess(middle) < 0
        return jnp.where(right, middle, low), jnp.where(right, high, middle)

    def approach(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, below, above, last = state
        weight = jnp.where(above > below, -below / (above - below), 0.5)
        middle = low + (high - low) * weight
        value = excess(middle)
        right = value < 0
        # An end that stays for a second time counts half.
        new_below = jnp.where(right, value, jnp.where(last < 0, below / 2, below))
        new_above = jnp.where(right, jnp.where(last > 0, above / 2, above), value)
        ends = jnp.where(right, middle, low), jnp.where(right, high, middle)
        return *ends, new_below, new_above, jnp.where(right, 1.0, -1.0).astype(dtype)

    bracket = jnp.full_like(u, low), jnp.full_like(u, high)
    low, high = jax.lax.fori_loop(0, halvings, halve, bracket)
    start = (low, high, excess(low), excess(high), jnp.zeros_like(u))
    low, high, below, above, last = jax.lax.fori_loop(0, steps, approach, start)
    return jax.lax.stop_gradient(point_at(jnp.where(last > 0, low, high)))


def _unbounded(lower: Array, upper: Array) -> tuple[Callable[[Array], Array], float, float]:
    """A map from the real line onto the interval that spreads the numbers next to its ends, and where to look."""
    numbers = jnp.finfo(lower.dtype)
    far = math.log(numbers.max) - 1
    has_lower, has_upper = jnp.isfinite(lower), jnp.isfinite(upper)
    origin, end = jnp.where(has_lower, lower, 0.0), jnp.where(has_upper, upper, 0.0)

    def point_at(s: Array) -> Array:
        inside = jnp.where(
            s < 0, origin + (end - origin) * jax.nn.sigmoid(s), end - (end - origin) * jax.nn.sigmoid(-s)
        )
        half = jnp.where(has_lower, origin + jnp.exp(s), end - jnp.exp(-s))
        return jnp.where(has_lower & has_upper, inside, jnp.where(has_lower | has_upper, half, jnp.sinh(s)))

    return point_at, -far, far
