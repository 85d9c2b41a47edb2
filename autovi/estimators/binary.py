"""What estimators of Bernoulli sites have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Estimator, Facts, Scalar

BERNOULLI = ("BernoulliLogits", "BernoulliProbs")


@dataclass(frozen=True)
class Binary(Estimator):
    """An estimator for Bernoulli sites, whose gradient is that in the logit of each number. All are drawn, and
    evaluated, together, whether or not their costs can be told apart."""

    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return None if facts.distribution in BERNOULLI else "it is for Bernoulli sites only"


def inside(u: jax.Array) -> jax.Array:
    """Uniform numbers that are neither 0, as one in 2^23 of float32's is, nor 1: a comparison of these with a
    probability of 1 or 0 would have what is impossible."""
    half = jnp.finfo(u.dtype).eps / 2
    return jnp.clip(u, half, 1 - half)


def logit_of(q: Distribution) -> jax.Array:
    """log q(1) - log q(0) of every number of a draw, events included, with its gradient in q's parameters."""
    while isinstance(q, dist.Independent):
        q = q.base_dist
    one = jnp.ones(q.shape(), int)
    return q.log_prob(one) - q.log_prob(jnp.zeros_like(one))


def each(cost: jax.Array, value: jax.Array) -> jax.Array:
    """Costs `[particles, *batch]` beside values `[particles, *batch, *event]`: the numbers of an event share theirs."""
    return cost.reshape(*cost.shape, *[1] * (value.ndim - cost.ndim))


def slopes(cost: Cost, value: jax.Array) -> jax.Array:
    """The derivative of its own cost in every number of a value."""
    return jax.grad(lambda v: jnp.sum(cost.total(v)))(value)


def along(slope: jax.Array, logit: jax.Array) -> Scalar:
    """The scalar whose gradient in the logits `[particles, *batch, *event]` is the mean over particles of `slope`."""
    return jnp.sum(jax.lax.stop_gradient(slope) * logit) / logit.shape[0]


def summed_like(value: jax.Array, cost: jax.Array) -> jax.Array:
    """The sum of `value` over all numbers that `cost` does not tell apart: those of an event, and elements that have
    one place in it."""
    value = jnp.sum(value, tuple(range(cost.ndim, value.ndim)))
    alone = tuple(axis for axis, size in enumerate(cost.shape) if size == 1 and value.shape[axis] > 1)
    return jnp.sum(value, alone, keepdims=True)


def of_others(value: jax.Array) -> jax.Array:
    """The mean over the other particles."""
    return (jnp.sum(value, 0, keepdims=True) - value) / (value.shape[0] - 1)
