"""ARM: the score with antithetic uniforms, augmented and merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, inside, logit_of


@dataclass(frozen=True)
class Arm(Binary):
    """d/dl E f(b) = E (f(1[u > 1 - p]) - f(1[u < p])) (u - 1/2), u ~ U(0, 1), p = sigmoid(l).

    For Bernoulli sites; two evaluations of the cost for each particle, unbiased. `disarm` has the same two evaluations
    and never more variance: it is this estimator with u averaged out, given both values. Each site has a pair of its
    own, so that in a hierarchy the sites below see the same noise in both evaluations.
    Yin and Zhou (2019), "ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks".

    Example:
        >>> autovi.fit(model, data, estimators={"z": "arm"})
    """

    name: ClassVar[str] = "arm"

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(rng_key, (num_particles, *shape))

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        p, noise = jax.nn.sigmoid(logit_of(q)), inside(noise)
        return Draw((noise > 1 - p).astype(int), aux=((noise < p).astype(int), noise))

    def twins(self, draw: Draw) -> tuple[jax.Array, ...]:
        return draw.aux[:1]

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        twin, noise = draw.aux
        logit = q.over(logit_of)
        slope = each(cost.value - cost.at(twin), logit) * (noise - 0.5)
        return along(slope, logit), jnp.zeros(())
