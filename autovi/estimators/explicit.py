"""Explicit reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions import registry
from autovi.estimators.base import Draw, Estimator, Facts, refuses_pathwise
from autovi.implicit.rule import rule_of


@dataclass(frozen=True)
class Explicit(Estimator):
    """z = t(eps; theta): the gradient flows through the draw, d/dtheta E f(z) = E f'(z) dt/dtheta.

    Unbiased for costs that are continuous in z; one evaluation of the cost and of its derivative. Refuses discrete
    sites, costs that jump, and distributions whose draws lack a derivative in some parameter. Kingma and Welling
    (2014), "Auto-Encoding Variational Bayes", section 2.4.

    Example:
        >>> autovi.fit(model, data, estimators={"w": "explicit"})
    """

    name: ClassVar[str] = "explicit"
    pathwise: ClassVar[bool] = True
    own_sampler: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        gradients, refused = facts.gradients, refuses_pathwise(facts)
        if refused:
            return refused
        if gradients.pathwise == "implicit":
            return "its sampler has no explicit map from noise; 'implicit' is the pathwise estimator for it"
        if gradients.pathwise is None:
            return f"its draws have no right derivative ({gradients.note or 'not reparameterizable'})"
        if gradients.not_pathwise:
            return f"its draws have no right derivative with respect to {', '.join(gradients.not_pathwise)}"
        return None

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if rule_of(registry.strip(q)) is not None:  # samplers that also hold far in a tail
            return Draw(implicit.sample(noise, q))
        value, intermediates = q(rng_key=noise, sample_intermediates=True)
        return Draw(value, intermediates=intermediates)
