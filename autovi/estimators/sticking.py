"""Sticking the landing: reparameterization without the score of q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import from_noise
from autovi.estimators.base import Draw, Estimator, Facts, refuses_pathwise


@dataclass(frozen=True)
class Sticking(Estimator):
    """d/dphi E[log p(z) - log q(z)] = E (dz/dphi)' grad_z (log p(z) - log q(z; phi)), z = T(eps; phi).

    The gradient of `explicit` less the score, d log q(z; phi) / dphi at a fixed z, whose mean is zero: unbiased, and
    without noise where q is the posterior. Draws come in antithetic pairs, T(eps) and T(-eps); of an odd number one is
    left alone. For families that are maps of standard normal noise, under objectives that are means over particles.
    Roeder, Wu and Duvenaud (2017), "Sticking the Landing".

    Example:
        >>> autovi.fit(model, data, estimators={"*": "sticking"})
    """

    name: ClassVar[str] = "sticking"
    pathwise: ClassVar[bool] = True
    held: ClassVar[bool] = True
    num_particles: ClassVar[int] = 16

    def refuses(self, facts: Facts) -> str | None:
        refused = refuses_pathwise(facts)
        if refused is None and facts.gradients.pathwise != "explicit":
            return "its draws are no explicit map of noise"
        return refused

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        half = jax.random.normal(rng_key, ((num_particles + 1) // 2, *shape))
        return jnp.concatenate([half, -half[: num_particles // 2]])

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        value, log_q = from_noise(q, noise, held=True)
        return Draw(value, log_q=log_q)
