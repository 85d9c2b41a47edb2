"""Explicit reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions import registry
from autovi.estimators.base import Draw, Facts, refuses_pathwise, refuses_without_derivative
from autovi.estimators.pathwise import Pathwise
from autovi.implicit.rule import rule_of


@dataclass(frozen=True)
class Explicit(Pathwise):
    """z = t(eps; theta): the gradient flows through the draw, d/dtheta E f(z) = E f'(z) dt/dtheta.

    Unbiased for costs that are continuous in z; one evaluation of the cost and of its derivative. Refuses discrete
    sites, costs that jump, and distributions whose draws lack a derivative in some parameter. Kingma and Welling
    (2014), "Auto-Encoding Variational Bayes", section 2.4.

    Args:
        antithetic: the particles' noise in pairs of opposite sign (`Pathwise`).
        sobol: the particles' noise from scrambled Sobol points.

    Raises:
        ValueError: both at once.

    Example:
        >>> autovi.fit(model, data, estimators={"w": "explicit"})
        >>> autovi.fit(model, data, estimators={"w": {"estimator": "explicit", "antithetic": True}})
    """

    name: ClassVar[str] = "explicit"

    @property
    def own_sampler(self) -> bool:
        return not self.coupled

    @property
    def sequential(self) -> bool:  # type: ignore[override]
        return not self.coupled

    def refuses(self, facts: Facts) -> str | None:
        gradients, refused = facts.gradients, refuses_pathwise(facts)
        if refused:
            return refused
        if gradients.pathwise == "implicit":
            return "its sampler has no explicit map from noise; 'implicit' is the pathwise estimator for it"
        return refuses_without_derivative(facts) or self.refuses_coupling(facts)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if self.coupled:
            return self.coupled_draw(noise, q)
        if rule_of(registry.strip(q)) is not None:  # samplers that also hold far in a tail
            return Draw(implicit.sample(noise, q))
        value, intermediates = q(rng_key=noise, sample_intermediates=True)
        return Draw(value, intermediates=intermediates)
