"""Draws of whole arrays by rejection and by inversion, without gradient, and draws at the ends of their number type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def until_accepted(rng_key: Array, propose: Callable[[Array], tuple[Array, Array]], like: Array) -> tuple[Array, Array]:
    """A key to go on with, and what `propose(noise)` gives, each element the first time that it is accepted, an array
    like `like`.

    `propose` maps noise that is uniform on (-1, 1) to proposals and the logarithms of the probabilities to accept them.
    All elements are proposed anew until the last is accepted. One whose probability is not a number, since a parameter
    is none or infinite, is taken at once: the draw is then wrong as the parameter is, where waiting for it would never
    end.
    """
    # -1 itself, which the generator might give, has an infinite normal score.
    lowest = jnp.nextafter(jnp.asarray(-1.0, like.dtype), jnp.zeros((), like.dtype))

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, kept, accepted = state
        key, now = jax.random.split(key)
        # One flat call for both: each call compiles a generator of its own, which grows with the number of axes.
        noise, chance = jax.random.uniform(now, (2 * like.size,), like.dtype, lowest, 1.0).reshape(2, *like.shape)
        proposed, log_probability = propose(noise)
        good = ~((1 + chance) / 2 >= jnp.exp(log_probability))
        return key, jnp.where(accepted, kept, proposed), accepted | good

    start = rng_key, jnp.zeros_like(like), jnp.zeros(like.shape, bool)
    key, kept, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), again, start)
    return key, kept


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


def smallest(dtype: jnp.dtype) -> float:
    """The smallest positive number that a draw is given, well above the smallest there is: the derivative of a large
    cost of its logarithm divides by it."""
    return 1e6 * float(jnp.finfo(dtype).tiny)


def clip_straight_through(x: Array, low: Any, high: Any) -> Array:
    """`x` moved between the bounds, with the derivative that it had."""
    still = jax.lax.stop_gradient(x)
    return jnp.clip(still, *jax.lax.stop_gradient((low, high))) + (x - still)


def positive_below_one(log_value: Array) -> Array:
    """`exp(log_value)`, inside (0, 1) by what its number type can tell, with the gradient of its logarithm there."""
    dtype = log_value.dtype
    return jnp.exp(clip_straight_through(log_value, jnp.log(smallest(dtype)), jnp.log1p(-jnp.finfo(dtype).eps)))


def fraction(log_odds: Array) -> Array:
    """`sigmoid(log_odds)`, likewise, with the gradient of its log-odds.

    Below one by an epsilon, so that the complement and its logarithm are numbers.
    """
    dtype = log_odds.dtype
    return jax.nn.sigmoid(clip_straight_through(log_odds, jnp.log(smallest(dtype)), -jnp.log(jnp.finfo(dtype).eps)))


def scaled_exp(log_ratio: Array, scale: Array, heavy: bool = False) -> Array:
    """`scale * exp(log_ratio)`, at least the smallest positive number; if `heavy` not so large that its gradient, some
    powers of ten more, is infinite. At these ends it keeps the gradient of its logarithm, times the value."""
    dtype, log_scale = log_ratio.dtype, jnp.log(scale)
    high = 0.75 * jnp.log(jnp.finfo(dtype).max) - log_scale if heavy else jnp.inf
    # In two factors, since a scale that is large or small may meet an exponential that cannot be held.
    root = jnp.exp(0.5 * clip_straight_through(log_ratio, jnp.log(smallest(dtype)) - log_scale, high))
    return scale * root * root
