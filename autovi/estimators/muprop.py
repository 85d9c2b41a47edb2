"""MuProp: the score with the first-order expansion of the cost at the mean as a control variate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, logit_of, slopes, summed_like


@dataclass(frozen=True)
class MuProp(Binary):
    """d/dt E f(b) = E (f(b) - f(m) - f'(m)(b - m)) d log q(b)/dt + f'(m) dm/dt, m the mean of b.

    For Bernoulli sites whose cost can be evaluated, and differentiated, between 0 and 1. One evaluation at the draw and
    one with its gradient at the mean for each particle; unbiased, and without noise where f is linear.
    Gu, Levine, Sutskever and Mnih (2016), "MuProp: Unbiased Backpropagation for Stochastic Neural Networks".

    Example:
        >>> autovi.fit(model, data, estimators={"z": "muprop"})
    """

    name: ClassVar[str] = "muprop"
    relaxed: ClassVar[bool] = True

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=noise)).astype(float))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        stop = jax.lax.stop_gradient
        mean = jax.nn.sigmoid(q.over(logit_of))
        at_mean, slope = stop(cost.at(stop(mean))), stop(slopes(cost, stop(mean)))
        rest = cost.value - at_mean - summed_like(slope * (draw.value - mean), at_mean)
        score = q.log_prob(draw.value) * stop(rest)
        return (jnp.sum(score) + jnp.sum(slope * mean)) / mean.shape[0], jnp.zeros(())
