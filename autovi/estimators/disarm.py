"""DisARM: an antithetic pair, with the noise that made it averaged out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, inside, logit_of


@dataclass(frozen=True)
class Disarm(Binary):
    """d/dl E f(b) = E (f(b) - f(b')) (-1)^b' 1[b != b'] sigmoid(|l|) / 2, b = 1[u > 1 - p], b' = 1[u < p].

    For Bernoulli sites; two evaluations of the cost for each particle, unbiased. It is `arm` given both values, and so
    has no more variance; the elements of one site share the two evaluations. Each site has a pair of its own.
    Dong, Mnih and Tucker (2020), "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables";
    Yin, Ho, Yan, Qian and Zhou (2020), "Probabilistic Best Subset Selection via Gradient-Based Optimization" (U2G).

    Example:
        >>> autovi.fit(model, data, estimators={"z": "disarm"})
    """

    name: ClassVar[str] = "disarm"

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(rng_key, (num_particles, *shape))

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        p, noise = jax.nn.sigmoid(logit_of(q)), inside(noise)
        return Draw((noise > 1 - p).astype(int), aux=(noise < p).astype(int))

    def twins(self, draw: Draw) -> tuple[jax.Array, ...]:
        return (draw.aux,)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        twin, logit = draw.aux, q.over(logit_of)
        sign = jnp.where(draw.value == twin, 0.0, 1.0 - 2.0 * twin)
        slope = 0.5 * each(cost.value - cost.at(twin), logit) * sign * jax.nn.sigmoid(jnp.abs(logit))
        return along(slope, logit), jnp.zeros(())
