"""What the two pathwise estimators have in common: draws of the particles that depend on one another."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions import registry
from autovi.distributions.noise import from_noise, is_of_noise
from autovi.distributions.sobol import sobol_normals
from autovi.estimators.base import Draw, Estimator, Facts

NORMALS = ("Normal", "MultivariateNormal")
# Those that have a differentiable quantile function, and those whose distribution function is inverted.
QUANTILES = (
    "Cauchy",
    "Exponential",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Laplace",
    "LogNormal",
    "Logistic",
    "Uniform",
)
INVERTED = ("Beta", "Chi2", "Gamma", "StudentT")
COUPLED = sorted((*NORMALS, *QUANTILES, *INVERTED))
HALVINGS = 60


@dataclass(frozen=True)
class Pathwise(Estimator):
    """Draws that carry the gradient, one particle at a time or coupled over the particles.

    Args:
        antithetic: particles in pairs, the noise of one the negative of the other's: no noise from what is linear in
            it. Of an odd number one is left alone.
        sobol: randomized quasi-Monte Carlo: the particles' noise is one scrambled set of Sobol points, best at powers
            of two. Buchholz, Wenzel and Mandt (2018), "Quasi-Monte Carlo Variational Inference".

    Raises:
        ValueError: both at once.
    """

    antithetic: bool = False
    sobol: bool = False

    pathwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.antithetic and self.sobol:
            raise ValueError("antithetic, sobol: expected one of them, got both")

    @property
    def coupled(self) -> bool:
        return self.antithetic or self.sobol

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> Any:
        if self.sobol:
            return sobol_normals(rng_key, num_particles, prod(shape)).reshape(num_particles, *shape)
        if self.antithetic:
            half = jax.random.normal(rng_key, ((num_particles + 1) // 2, *shape))
            return jnp.concatenate([half, -half[: num_particles // 2]])
        return super().noise(rng_key, num_particles, shape)

    def refuses_coupling(self, facts: Facts) -> str | None:
        """Why particles cannot be coupled there: None where they are not to be."""
        if self.coupled and facts.distribution not in COUPLED:
            return f"antithetic and sobol draws are for {', '.join(COUPLED)} only"
        return None

    def coupled_draw(self, noise: jax.Array, q: Distribution) -> Draw:
        """The draw made of one standard normal number for each number of its own."""
        if is_of_noise(q):
            value, log_q = from_noise(q, noise)
            return Draw(value, intermediates=[log_q])
        return Draw(_by_quantile(registry.strip(q), noise))


def _by_quantile(q: Distribution, noise: jax.Array) -> jax.Array:
    if isinstance(q, dist.Normal):
        return q.loc + q.scale * noise
    if isinstance(q, dist.MultivariateNormal):
        return q.loc + jnp.einsum("...de,...e->...d", q.scale_tril, noise)
    if isinstance(q, dist.LogNormal):
        return jnp.exp(q.loc + q.scale * noise)
    tiny = jnp.finfo(noise.dtype).tiny
    uniform = jnp.clip(ndtr(noise), tiny, 1 - jnp.finfo(noise.dtype).epsneg)
    if type(q).__name__ in QUANTILES:
        return q.icdf(uniform)
    return implicit.reparameterize(q, _inverted(jax.lax.stop_gradient(q), uniform))


def _inverted(q: Distribution, uniform: jax.Array) -> jax.Array:
    """The value at which the distribution function is `uniform`, by halving an interval of its unconstrained scale."""
    value_of = jnp.sinh if q.support is dist.constraints.real else dist.biject_to(q.support)
    low, high = jnp.full(uniform.shape, -85.0), jnp.full(uniform.shape, 85.0)

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        below = q.cdf(value_of(middle)) < uniform
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return value_of((low + high) / 2)
