"""Hurdles with a continuous base: the positive draws move with the base, the zeros do not, the gate has no gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit import dispatch
from autovi.implicit.attach import forbid
from autovi.implicit.velocity import velocity

_GATES = ("gate_logits", "gate")  # a class that has the first derives the second from it


def draw_hurdle(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Zero with probability `gate`, else a draw of the base with its gradient.

    Differentiating in the gate raises a TypeError: a draw is zero or not, which no parameter moves smoothly.
    """
    fn = without_gate(fn)
    gate_key, base_key = jax.random.split(rng_key)
    zero = jax.random.bernoulli(gate_key, fn.gate, shape)
    value = dispatch.draw(base_key, fn.base_dist, shape)
    return jnp.where(zero, jnp.zeros_like(value), value)


def hurdle_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """V(z) of the base where z is not zero; none in the gate."""
    zero = value == 0
    inside = jnp.where(zero, 1.0, value)
    return jnp.where(zero, 0.0, velocity(fn.base_dist, inside, moving.base_dist))


def without_gate(fn: Any) -> Any:
    """`fn` whose gate raises a TypeError where someone differentiates in it."""
    leaves, treedef = jax.tree.flatten(fn)
    copy = jax.tree.unflatten(treedef, leaves)
    own = [name for name in _GATES if name in vars(copy)]
    message = (
        f"{type(fn).__name__}: a draw is zero or not, which has no gradient in '{own[0]}'; use the score function for "
        "it, or make the choice a Bernoulli site of its own and enumerate that"
    )
    for name in own:
        setattr(copy, name, forbid(getattr(copy, name), message))
    return copy
