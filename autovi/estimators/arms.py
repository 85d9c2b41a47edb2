"""ARMS: more than two draws that avoid each other, with a leave-one-out baseline made unbiased for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, inside, logit_of


@dataclass(frozen=True)
class Arms(Binary):
    r"""d/dl E f(b) = E 1/(n - 1) sum_k (f(b_k) - mean f) (b_k - p) / (1 - rho), for n draws of correlation rho.

    For Bernoulli sites; `evaluations` n of the cost for each particle, unbiased. The n uniforms are a Dirichlet copula,
    :math:`u_k = 1 - (1 - d_k)^{n-1}` with d ~ Dirichlet(1, ..., 1), of which no two are large at once: for p < 1/2 two
    of b = 1[u > 1 - p] are one together with probability :math:`\max(0, 2 p^{1/(n-1)} - 1)^{n-1}`, which gives rho; for
    the rest b and p change places with 1 - b and 1 - p. With n = 2 it is `disarm`. Each site has draws of its own: all
    that is below sees the same noise in all evaluations.
    Dimitriev and Zhou (2021), "ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables".

    Args:
        evaluations: n, at least two.

    Raises:
        ValueError: fewer than two evaluations.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "arms", "evaluations": 4}})
    """

    evaluations: int = 4

    name: ClassVar[str] = "arms"

    def __post_init__(self) -> None:
        if self.evaluations < 2:
            raise ValueError(f"evaluations: expected at least 2, got {self.evaluations}")

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        parts = jax.random.exponential(rng_key, (num_particles, self.evaluations, *shape))
        return 1 - (1 - parts / jnp.sum(parts, 1, keepdims=True)) ** (self.evaluations - 1)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        p, noise = jax.nn.sigmoid(logit_of(q)), inside(noise)
        values = jnp.where(p < 0.5, noise > 1 - p, noise < p).astype(int)
        return Draw(values[0], aux=values[1:])

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logit, others = q.over(logit_of), jnp.moveaxis(draw.aux, 1, 0)
        costs = jnp.concatenate([cost.value[None], jax.lax.map(cost.at, others)])
        values = jnp.concatenate([draw.value[None], others])
        p = jax.nn.sigmoid(logit)
        rest = jax.vmap(each, (0, None))(costs - jnp.mean(costs, 0), logit)
        slope = jnp.sum(rest * (values - p), 0) / (self.evaluations - 1)
        return along(slope / self._apart(p), logit), jnp.zeros(())

    def _apart(self, p: jax.Array) -> jax.Array:
        """1 - rho = (s - P(both)) / (s (1 - s)), s the smaller of p and 1 - p."""
        n = self.evaluations - 1
        small = jnp.minimum(p, 1 - p)
        both = jnp.maximum(2 * small ** (1 / n) - 1, 0) ** n
        safe = jnp.maximum(small, jnp.finfo(p.dtype).tiny)
        return (1 - both / safe) / (1 - small)
