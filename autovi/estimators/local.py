"""Local reparameterization: a product with data is drawn in the place of what is multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Draw, Estimator, Facts, Times, refuses_pathwise


@dataclass(frozen=True)
class Local(Estimator):
    """h_n = x_n' m + (x_n^2' s^2)^(1/2) eps_n in the place of x_n' w, w ~ N(m, s^2), for every row n of the data.

    For sites with independent normals that enter the cost by one product `x @ w` with data, each row of which has cost
    terms of its own. These terms depend on their row of h alone, so that their expectation is the same where the rows
    are drawn independently; what the rows have in common is no longer noise that adds up. Terms that do not see h, such
    as the prior of w, see an ordinary draw of w. Unbiased under the ELBO; the gradient is pathwise. Found in the traced
    program, and refused elsewhere with the reason. Kingma, Salimans and Welling (2015), "Variational Dropout and the
    Local Reparameterization Trick", section 2.3.

    Example:
        >>> autovi.fit(model, data, guide="mean_field", estimators={"w": "local"})
    """

    name: ClassVar[str] = "local"
    pathwise: ClassVar[bool] = True
    local: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution != "Normal":
            return "its numbers are no independent normals"
        return refuses_pathwise(facts) or facts.tied or facts.not_linear or facts.mixed

    @property
    def alone(self) -> bool:
        return True

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        value, intermediates = q(rng_key=noise, sample_intermediates=True)
        return Draw(value, intermediates=intermediates)

    def product(self, noise: jax.Array, q: Distribution, draw: Draw, times: Times) -> jax.Array:
        mean, variance = times(q.mean), times(q.variance, squared=True)
        # A row of zeros has no variance, at which the root has no derivative.
        some = variance > 0
        scale = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1)), 0)
        return mean + scale * jax.random.normal(jax.random.fold_in(noise, 1), mean.shape)
