"""Generalized Gumbel-softmax: counts without a bound, relaxed over the first of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.distributions.registry import strip
from autovi.estimators.base import Cost, Density, Draw, Facts, Scalar
from autovi.estimators.onehot import Tempered, given, stop

COUNTS = (
    "Poisson",
    "GeometricLogits",
    "GeometricProbs",
    "GammaPoisson",
    "NegativeBinomial2",
    "NegativeBinomialLogits",
    "NegativeBinomialProbs",
)


@dataclass(frozen=True)
class GumbelSoftmax(Tempered):
    """d/dt E f(z) is taken to be d/dt E f(sum_k k w_k), w = softmax((log q(k; t) + G) / tau), k = 0, ..., n. Biased.

    G are Gumbels, and the last value has the mass of all beyond. The draw itself is one of q, and G are given that it
    is at the largest of log q + G, so that losses, and the gradients of all other sites, are at whole numbers. For
    Poisson, geometric and negative binomial sites whose cost can be evaluated between whole numbers; two evaluations,
    one with its gradient, for each particle.
    Joo, Kim, Shin and Moon (2021), "Generalized Gumbel-Softmax Gradient Estimator for Generic Discrete Random
    Variables", sections 3 and 4.

    Args:
        temperature: tau, a positive number or an Optax schedule, a function of the step.
        num_values: n + 1; of what q gives beyond, the gradient knows nothing.

    Raises:
        ValueError: a temperature that is not positive, or fewer than two values.

    Example:
        >>> autovi.fit(model, data, estimators={"count": "gumbel_softmax"}, allow_bias=True)
    """

    num_values: int = 100

    name: ClassVar[str] = "gumbel_softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_values < 2:
            raise ValueError(f"num_values: expected at least 2, got {self.num_values}")

    def refuses(self, facts: Facts) -> str | None:
        return None if facts.distribution in COUNTS else f"it is for {', '.join(COUNTS)} sites only"

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        own, rest = jax.random.split(noise)
        value = stop(q(rng_key=own))
        log_p = stop(self._log_probs(q))
        place = jnp.minimum(value, self.num_values - 1).astype(int)  # draws of some are floats
        drawn = jax.nn.one_hot(place, self.num_values, dtype=log_p.dtype)
        z = given(log_p, drawn, jax.random.exponential(rest, log_p.shape, log_p.dtype))
        return Draw(value.astype(log_p.dtype), aux=z - log_p)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        log_p = q.over(self._log_probs)
        values = jnp.arange(self.num_values, dtype=log_p.dtype)
        value = lambda log_p: self.relaxed_at(log_p + draw.aux, params) @ values  # noqa: E731
        slope = jax.grad(lambda log_p: jnp.sum(cost.total(value(log_p))))(stop(log_p))
        return jnp.sum(stop(slope) * log_p) / log_p.shape[0], jnp.zeros(())

    def _log_probs(self, q: Distribution) -> jax.Array:
        """log q of the values, `[*shape, num_values]`, the last one with all beyond it."""
        fn = strip(q)
        each = jax.vmap(lambda k: log_density(fn, jnp.full(fn.shape(), k)), out_axes=-1)(
            jnp.arange(self.num_values - 1)
        )
        tail = 1 - jnp.sum(jnp.exp(each), -1, keepdims=True)
        least = jnp.finfo(each.dtype).tiny
        whole = jnp.concatenate([each, jnp.log(jnp.maximum(tail, least))], -1)
        return jnp.broadcast_to(whole, (*q.shape(), self.num_values))
