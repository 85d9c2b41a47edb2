"""The pathwise gradient of a normal with a quadratic model of the cost as a control variate."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.distributions.noise import from_noise, is_of_noise, normal_of
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar, refuses_pathwise
from autovi.estimators.binary import slopes

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class TaylorCV(Estimator):
    """g - a (g~ - E g~), g the gradient of `sticking` and g~ that of a quadratic expansion of the cost at q's mean.

    For normal sites, z = m + L eps: with h and H the gradient and the Hessian of the cost at m, g~ is
    (dz/dphi)' (h + H (z - m)), and E g~ the gradient of h' m + tr(L' H L)/2 in closed form. Unbiased; no noise where
    the cost is quadratic, little where q is narrow. Takes as many derivatives of the cost's gradient as a draw has
    numbers, each step and particle. Miller, Foti, D'Amour and Adams (2017), "Reducing Reparameterization Gradient
    Variance"; Geffner and Domke (2020), "Approximation Based Variance Reduction for Reparameterization Gradients".

    Args:
        weight: a. 1 takes out all that the quadratic model explains.
        max_size: more numbers in a draw than this are refused, for their cost.

    Example:
        >>> autovi.fit(model, data, guide="full_rank", estimators={"*": "taylor_cv"})
    """

    weight: float = 1.0
    max_size: int = 200

    name: ClassVar[str] = "taylor_cv"
    pathwise: ClassVar[bool] = True
    held: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        normal = facts.distribution in ("Normal", "MultivariateNormal") and not facts.curved
        return refuses_pathwise(facts) or (None if normal else "the mean of its model is known for normals only")

    @property
    def has_surrogate(self) -> bool:
        return True

    @property
    def alone(self) -> bool:
        return False  # the model is of all sites of a block together

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        size = prod(shape)
        if size > self.max_size:
            raise ValueError(
                f"estimator {self.name!r}: expected at most max_size={self.max_size} numbers in a draw, got {size}"
            )
        return jax.random.normal(rng_key, (num_particles, *shape))

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if is_of_noise(q):
            value, log_q = from_noise(q, noise, held=True)
        else:
            value = normal_of(q, noise)
            log_q = log_density(jax.tree.map(stop, q), value)
        return Draw(value, noise, log_q=log_q)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        shape = draw.value.shape[1:]
        mean = q.over(lambda one: normal_of(one, jnp.zeros(shape)))
        # Column i of L, for every particle.
        units = jnp.eye(prod(shape)).reshape(-1, *shape)
        columns = q.over(lambda one: jax.vmap(lambda unit: normal_of(one, unit))(units)) - mean[:, None]
        columns = jnp.swapaxes(columns, 0, 1)
        slope = lambda value: slopes(cost, value)  # noqa: E731
        at_mean = slope(stop(mean))
        curved = stop(jax.vmap(lambda along: jax.jvp(slope, (stop(mean),), (along,))[1])(stop(columns)))
        flat_noise = draw.aux.reshape(len(mean), -1)
        model = at_mean + jnp.einsum("dk...,kd->k...", curved, flat_noise)
        sampled = jnp.sum(stop(model) * draw.value)
        expected = jnp.sum(stop(at_mean) * mean) + jnp.sum(curved * columns)
        return -self.weight * (sampled - expected) / len(mean), jnp.zeros(())
