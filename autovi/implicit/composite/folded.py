"""The absolute value of a draw: its one-dimensional gradient, that of the draw itself averaged over the sign."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions import registry
from autovi.implicit import dispatch
from autovi.implicit.attach import attach, forbid
from autovi.implicit.composite.faults import part_fault, transforms_fault
from autovi.implicit.composite.supports import JUMPS, all_alike, ends_of, lies_in
from autovi.implicit.velocity import velocity


def draw_folded(rng_key: Array, fn: dist.FoldedDistribution, shape: tuple[int, ...]) -> Array:
    """|x|, x a draw of the base, with the gradient below."""
    drawn = dispatch.draw(rng_key, jax.lax.stop_gradient(fn.base_dist), shape)
    return attach(jnp.abs(drawn), fn, folded_velocity)


def folded_velocity(fn: dist.FoldedDistribution, value: Array, moving: dist.FoldedDistribution) -> Array:
    """(p(z) V(z) - p(-z) V(-z)) / (p(z) + p(-z)), p and V the density and the velocity of the base.

    The distribution function of |x| is F(z) - F(-z). One noise, where the sign of x is a second one.
    """
    ends = ends_of(fn.base_dist)
    if ends is None or not all_alike([ends, (-ends[1], -ends[0])]):
        fn, value = forbid((fn, value), f"{type(fn).__name__}: {JUMPS}")
    base = fn.base_dist
    has_positive, has_negative = lies_in(base, value), lies_in(base, -value)
    positive, negative = jnp.where(has_positive, value, -value), jnp.where(has_negative, -value, value)
    right = jax.nn.sigmoid(base.log_prob(positive) - base.log_prob(negative))
    right = jnp.where(has_positive != has_negative, has_positive, right)
    forward = velocity(base, positive, moving.base_dist)
    backward = velocity(base, negative, moving.base_dist)
    return right * forward - (1 - right) * backward


def guard_folded(fn: dist.FoldedDistribution) -> dist.FoldedDistribution:
    """A base without transforms, which NumPyro would take from it, and with a density that is that of its draws."""
    if fault := transforms_fault(fn):
        raise TypeError(fault)
    if fault := part_fault(fn.base_dist, zeros=True):
        name = type(registry.strip(fn.base_dist)).__name__
        raise TypeError(f"FoldedDistribution of {name}: {fault}; use the score function")
    return fn
