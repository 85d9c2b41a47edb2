"""Hurdles with a continuous base: the positive draws move with the base, the zeros do not, the gate has no gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit import dispatch
from autovi.implicit.composite.supports import somewhere_in
from autovi.implicit.guard import forbidden
from autovi.implicit.velocity import velocity

_GATES = ("gate_logits", "gate")  # a class that has the first derives the second from it


def draw_hurdle(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Zero with probability `gate`, else a draw of the base with its gradient."""
    gate_key, base_key = jax.random.split(rng_key)
    zero = jax.random.bernoulli(gate_key, fn.gate, shape)
    value = dispatch.draw(base_key, fn.base_dist, shape)
    return jnp.where(zero, jnp.zeros_like(value), value)


def hurdle_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """V(z) of the base where z is not zero; none in the gate."""
    zero = value == 0
    inside = jnp.where(zero, somewhere_in(fn.base_dist, value), value)
    return jnp.where(zero, 0.0, velocity(fn.base_dist, inside, moving.base_dist))


def guard_hurdle(fn: Any) -> Any:
    """No gradient in the gate: a draw is zero or not, which no parameter moves smoothly."""
    own = tuple(name for name in _GATES if name in vars(fn))
    message = (
        f"{type(fn).__name__}: a draw is zero or not, which has no gradient in '{own[0]}'; use the score function for "
        "it, or make the choice a Bernoulli site of its own and enumerate that"
    )
    return forbidden(fn, own, message)
