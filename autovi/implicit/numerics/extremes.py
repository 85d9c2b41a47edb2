"""Draws at the ends of what their number type can hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def smallest(dtype: jnp.dtype) -> float:
    """The smallest positive number that a draw is given, well above the smallest there is: the derivative of a large
    cost of its logarithm divides by it."""
    return 1e6 * float(jnp.finfo(dtype).tiny)


def held(x: Array, low: Any, high: Any) -> Array:
    """`x` moved between the bounds, with the derivative that it had."""
    still = jax.lax.stop_gradient(x)
    return jnp.clip(still, *jax.lax.stop_gradient((low, high))) + (x - still)


def positive_below_one(log_value: Array) -> Array:
    """`exp(log_value)`, inside (0, 1) by what its number type can tell, with the gradient of its logarithm there."""
    dtype = log_value.dtype
    return jnp.exp(held(log_value, jnp.log(smallest(dtype)), jnp.log1p(-jnp.finfo(dtype).eps)))


def fraction(log_odds: Array) -> Array:
    """`sigmoid(log_odds)`, likewise, with the gradient of its log-odds.

    Below one by an epsilon, so that the complement and its logarithm are numbers.
    """
    dtype = log_odds.dtype
    return jax.nn.sigmoid(held(log_odds, jnp.log(smallest(dtype)), -jnp.log(jnp.finfo(dtype).eps)))


def scaled_exp(log_ratio: Array, scale: Array, heavy: bool = False) -> Array:
    """`scale * exp(log_ratio)`, at least the smallest positive number; if `heavy` not so large that its gradient, some
    powers of ten more, is infinite. At these ends it keeps the gradient of its logarithm, times the value."""
    dtype, log_scale = log_ratio.dtype, jnp.log(scale)
    high = 0.75 * jnp.log(jnp.finfo(dtype).max) - log_scale if heavy else jnp.inf
    # In two factors, since a scale that is large or small may meet an exponential that cannot be held.
    root = jnp.exp(0.5 * held(log_ratio, jnp.log(smallest(dtype)) - log_scale, high))
    return scale * root * root
