"""Sticking the landing: reparameterization without the score of q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import from_noise
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar, refuses_pathwise
from autovi.families.base import Layout


@dataclass(frozen=True)
class Sticking(Estimator):
    """d/dphi E[log p(z) - log q(z)] = E (dz/dphi)' grad_z (log p(z) - log q(z; phi)), z = T(eps; phi).

    The gradient of `explicit` less the score, d log q(z; phi) / dphi at a fixed z, whose mean is zero: unbiased, and
    without noise where q is the posterior. Draws come in antithetic pairs, T(eps) and T(-eps); of an odd number one is
    left alone. For families that are maps of standard normal noise, under objectives that are means over particles.
    Roeder, Wu and Duvenaud (2017), "Sticking the Landing".

    Args:
        score: the share w of the score that stays in, E w d log q(z; phi) / dphi being zero whatever w is. It is kept
            beside the parameters, so that it can be lowered during a fit. Far from the optimum, where q is too wide,
            the score is what holds it. None: 0, for ever.

    Example:
        >>> autovi.fit(model, data, estimators={"*": "sticking"})
    """

    score: float | None = None

    name: ClassVar[str] = "sticking"
    pathwise: ClassVar[bool] = True
    held: ClassVar[bool] = True
    of_normal_noise: ClassVar[bool] = True
    num_particles: ClassVar[int] = 16

    def refuses(self, facts: Facts) -> str | None:
        refused = refuses_pathwise(facts)
        if refused is None and facts.gradients.pathwise != "explicit":
            return "its draws are no explicit map of noise"
        return refused

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        half = jax.random.normal(rng_key, ((num_particles + 1) // 2, *shape))
        return jnp.concatenate([half, -half[: num_particles // 2]])

    def init(self, rng_key: jax.Array, layout: Layout) -> Any:
        return () if self.score is None else {"score": jnp.asarray(self.score, jnp.float32)}

    @property
    def has_surrogate(self) -> bool:
        return self.score is not None

    @property
    def alone(self) -> bool:
        return False  # its surrogate needs no cost

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        value, log_q = from_noise(q, noise, held=True)
        return Draw(value, () if self.score is None else from_noise(q, noise)[1], log_q=log_q)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        """The objective has less log q with its gradient through the draw alone; this trades w of it for the whole."""
        share = jax.lax.stop_gradient(params["score"])
        return share * jnp.sum(draw.log_q - draw.aux) / draw.log_q.shape[0], jnp.zeros(())
