"""Distributions that take the draws of another and hide, replace or reflect some: censored, hurdle and folded ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions import registry
from autovi.implicit import dispatch
from autovi.implicit.attach import attach
from autovi.implicit.composite.supports import fold_fault, part_fault, somewhere_in
from autovi.implicit.dispatch import velocity
from autovi.implicit.validation import forbidden

_GATES = ("gate_logits", "gate")  # a class that has the first derives the second from it


def draw_censored(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of the base, of shape `shape`, with its gradient: NumPyro's samplers do not censor."""
    return dispatch.draw(rng_key, fn.base_dist, shape)


def censored_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """That of the base."""
    return velocity(fn.base_dist, value, moving.base_dist)


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


def validate_hurdle(fn: Any) -> Any:
    """No gradient in the gate: a draw is zero or not, which no parameter moves smoothly."""
    own = tuple(name for name in _GATES if name in vars(fn))
    message = (
        f"{type(fn).__name__}: a draw is zero or not, which has no gradient in '{own[0]}'; use the score function for "
        "it, or make the choice a Bernoulli site of its own and enumerate that"
    )
    return forbidden(fn, own, message)


def draw_folded(rng_key: Array, fn: dist.FoldedDistribution, shape: tuple[int, ...]) -> Array:
    """|x|, x a draw of the base, with the gradient below."""
    drawn = dispatch.draw(rng_key, jax.lax.stop_gradient(fn.base_dist), shape)
    return attach(jnp.abs(drawn), fn, folded_velocity)


def folded_velocity(fn: dist.FoldedDistribution, value: Array, moving: dist.FoldedDistribution) -> Array:
    """(p(z) V(z) - p(-z) V(-z)) / (p(z) + p(-z)), p and V the density and the velocity of the base.

    The distribution function of |x| is F(z) - F(-z). One noise, where the sign of x is a second one.
    """
    base = fn.base_dist
    right = jax.nn.sigmoid(base.log_prob(value) - base.log_prob(-value))
    return right * velocity(base, value, moving.base_dist) - (1 - right) * velocity(base, -value, moving.base_dist)


def validate_folded(fn: dist.FoldedDistribution) -> dist.FoldedDistribution:
    """A base without transforms, as wide on the left of 0 as on the right, with a density that is that of its draws."""
    if fault := part_fault(fn.base_dist) or fold_fault(fn):
        name = type(registry.strip(fn.base_dist)).__name__
        raise TypeError(f"FoldedDistribution of {name}: {fault}; use the score function")
    return fn
