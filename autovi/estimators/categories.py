"""What estimators of sites with a few values have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.distributions.registry import strip
from autovi.estimators.base import Estimator, Facts, Scalar

CATEGORICAL = ("CategoricalLogits", "CategoricalProbs")


@dataclass(frozen=True)
class Categories(Estimator):
    """An estimator for categorical sites, whose gradient is that in the log probabilities of each number. All are
    drawn, and evaluated, together, whether or not their costs can be told apart."""

    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return None if facts.distribution in CATEGORICAL else "it is for categorical sites only"


def log_probs(q: Distribution) -> jax.Array:
    """log q of 0, 1, ... of a categorical or a Bernoulli, `[*batch, *event, K]`, with its gradient in q's parameters;
    what has no probability at all has the smallest one that is a number."""
    fn = strip(q)
    if isinstance(fn, dist.CategoricalLogits | dist.CategoricalProbs):
        logits = jax.nn.log_softmax(fn.logits)
    else:
        # NumPyro's own density has no right derivative where the logit is zero, at which fits start.
        logits = jnp.stack([log_density(fn, jnp.full(fn.shape(), value)) for value in (0, 1)], -1)
    logits = jnp.broadcast_to(logits, (*q.shape(), logits.shape[-1]))
    return jnp.maximum(logits, jnp.log(jnp.finfo(logits.dtype).tiny))


def at(table: jax.Array, index: jax.Array) -> jax.Array:
    """`table` `[..., K]` at an index `[...]` of each."""
    return jnp.take_along_axis(table, index[..., None].astype(int), -1)[..., 0]


def along_probs(slope: jax.Array, chosen: jax.Array, num_particles: int) -> Scalar:
    """The scalar whose gradient is the mean over particles of `slope` times that of the chosen log probabilities."""
    return jnp.sum(jax.lax.stop_gradient(slope) * chosen) / num_particles


def ascending(log_p: jax.Array) -> jax.Array:
    """The categories from the least likely to the likeliest, in which no stick but the last is broken at over 1/2."""
    return jnp.argsort(jax.lax.stop_gradient(log_p), axis=-1)
