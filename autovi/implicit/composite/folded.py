"""The absolute value of a draw: its one-dimensional gradient, that of the draw itself averaged over the sign."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.implicit import dispatch
from autovi.implicit.attach import attach
from autovi.implicit.velocity import velocity


def draw_folded(rng_key: Array, fn: dist.FoldedDistribution, shape: tuple[int, ...]) -> Array:
    """|x|, x a draw of the base, with the gradient below."""
    drawn = dispatch.draw(rng_key, jax.lax.stop_gradient(fn.base_dist), shape)
    return attach(jnp.abs(drawn), fn, folded_velocity)


def folded_velocity(fn: dist.FoldedDistribution, value: Array, moving: dist.FoldedDistribution) -> Array:
    """(p(z) V(z) - p(-z) V(-z)) / (p(z) + p(-z)), p and V the density and the velocity of the base.

    The distribution function of |x| is F(z) - F(-z). One noise, where the sign of x is a second one.
    """
    base = fn.base_dist
    positive, negative = (jnp.where(base.support(x), x, other) for x, other in ((value, -value), (-value, value)))
    # Where only one of the two is in the support both are that one.
    right = jnp.where(
        negative == positive, positive > 0, jax.nn.sigmoid(base.log_prob(positive) - base.log_prob(negative))
    )
    forward = velocity(base, positive, moving.base_dist)
    backward = velocity(base, negative, moving.base_dist)
    return right * forward - (1 - right) * backward
