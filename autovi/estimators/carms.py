"""CARMS: several categorical draws that avoid each other, weighted for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import each
from autovi.estimators.categories import Categories, along_probs, ascending, at, log_probs


@dataclass(frozen=True)
class Carms(Categories):
    r"""d/dtheta E f(z) = E 1/(n (n - 1)) sum_{j != k} r(z_j, z_k) (f(z_k) - f(z_j)) d/dtheta log q(z_k).

    For categorical sites; `evaluations` n of the cost for each particle, unbiased. r(a, b) = q(a) q(b) / P(a, b) weighs
    a pair for how often it is drawn. A draw breaks sticks: it is the first category c, from the least likely on, whose
    stick breaks, with probability :math:`\pi_c = q_c / \sum_{d \ge c} q_d`. The n uniforms of a stick are the Dirichlet
    copula of `arms`, of which no two break together for small pi, but with probability
    :math:`\Phi_c = \max(0, 2 \pi_c^{1/(n-1)} - 1)^{n-1}`. So for a before b

    .. math:: r(a, b) = \frac{1 - \pi_a}{1 - \Phi_a / \pi_a}
              \prod_{c < a} \frac{(1 - \pi_c)^2}{1 - 2 \pi_c + \Phi_c},

    which is bounded, since all but the last stick have pi up to 1/3. Pairs that are equal count nothing. With two
    categories it is `arms`; with n = 2 and equal probabilities a pair without replacement. Each site has draws of its
    own: all that is below sees the same noise in all evaluations.
    Dimitriev and Zhou (2021), "CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator"; the coupled
    sticks are those of Dong, Mnih and Tucker (2021), "Coupled Gradient Estimators for Discrete Latent Variables".

    Args:
        evaluations: n, at least two.

    Raises:
        ValueError: fewer than two evaluations.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "carms", "evaluations": 4}})
    """

    evaluations: int = 4

    name: ClassVar[str] = "carms"

    def __post_init__(self) -> None:
        if self.evaluations < 2:
            raise ValueError(f"evaluations: expected at least 2, got {self.evaluations}")

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        log_p = jax.lax.stop_gradient(log_probs(q))
        order = ascending(log_p)
        n, sticks = self.evaluations, self._sticks(log_p, order)
        parts = jax.random.exponential(noise, (n, *sticks.shape), sticks.dtype)
        parts = jnp.maximum(parts, jnp.finfo(parts.dtype).eps / 2)  # a 0 would break a stick of no chance
        # Not the total less the own part: what is left where that is nearly all decides whether a short stick breaks.
        others = jnp.tensordot(1 - jnp.eye(n, dtype=parts.dtype), parts, 1)
        breaks = (others / (others + parts)) ** (n - 1) < sticks
        breaks = jnp.concatenate([breaks, jnp.ones_like(breaks, shape=(*breaks.shape[:-1], 1))], -1)
        values = at(jnp.broadcast_to(order, breaks.shape), jnp.argmax(breaks, -1))
        return Draw(values[0], aux=values[1:])

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        log_p, others = q.over(log_probs), jnp.moveaxis(draw.aux, 1, 0)
        costs = jnp.concatenate([cost.value[None], jax.lax.map(cost.at, others)])
        values = jnp.concatenate([draw.value[None], others])
        costs = jnp.moveaxis(jax.vmap(each, (0, None))(costs, draw.value), 0, -1)
        weights = self._weights(jax.lax.stop_gradient(log_p), jnp.moveaxis(values, 0, -1))
        gaps = costs[..., :, None] - costs[..., None, :]
        slope = jnp.sum(weights * gaps, -1) / (self.evaluations * (self.evaluations - 1))
        chosen = jnp.take_along_axis(log_p, jnp.moveaxis(values, 0, -1), -1)
        return along_probs(slope, chosen, log_p.shape[0]), jnp.zeros(())

    def _sticks(self, log_p: jax.Array, order: jax.Array) -> jax.Array:
        """pi of all categories but the last, in their order."""
        ordered = jnp.take_along_axis(log_p, order, -1)
        rest = jax.lax.cumlogsumexp(ordered, axis=ordered.ndim - 1, reverse=True)
        return jnp.exp(ordered - rest)[..., :-1]

    def _weights(self, log_p: jax.Array, values: jax.Array) -> jax.Array:
        """r of all pairs `[..., n, n]` of the values `[..., n]`, 0 where they are equal."""
        order = ascending(log_p)
        pi, m = self._sticks(log_p, order), self.evaluations - 1
        both = jnp.maximum(2 * pi ** (1 / m) - 1, 0) ** m
        passed = jnp.cumsum(2 * jnp.log1p(-pi) - jnp.log(1 - 2 * pi + both), -1)
        before = jnp.concatenate([jnp.zeros_like(passed[..., :1]), passed], -1)[..., :-1]
        r = jnp.exp(before) * (1 - pi) / (1 - both / jnp.maximum(pi, jnp.finfo(pi.dtype).tiny))
        r = jnp.concatenate([r, jnp.zeros_like(log_p[..., :1])], -1)
        places = jnp.take_along_axis(jnp.argsort(order, -1), values, -1)
        first = jnp.minimum(places[..., :, None], places[..., None, :])
        found = jnp.take_along_axis(r, first.reshape(*first.shape[:-2], -1), -1).reshape(first.shape)
        return jnp.where(values[..., :, None] == values[..., None, :], 0, found)
