"""Generalized reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from numpyro.distributions import Distribution

from autovi.estimators.base import Baselined, Cost, Density, Draw, Facts, Scalar, refuses_transport
from autovi.implicit.transported import transport
from autovi.implicit.transported.standardized import STANDARDIZED


@dataclass(frozen=True)
class GRep(Baselined):
    """d/dtheta E f(z) = E f'(z) dT/dtheta + E (f(z) - b) d/dtheta log pi(x; theta), z = T(x; theta), b the baseline.

    x is z standardized, by the mean and variance of log z (Gamma), of its log odds (Beta) or of its log-ratios to the
    last coordinate (Dirichlet): its first two moments do not depend on theta, all others do, and pi is its density.
    Unbiased for costs continuous in z, with any baseline; for Gamma, Beta and Dirichlet only, where `implicit` is
    nearly always less noisy: this one is to compare with. Refuses costs that jump. Ruiz, Titsias and Blei (2016), "The
    Generalized Reparameterization Gradient".

    Args:
        baseline: as of `score`; the paper has none.

    Raises:
        ValueError: an unknown baseline.

    Example:
        >>> autovi.fit(model, data, estimators={"rate": "g_rep"})
    """

    name: ClassVar[str] = "g_rep"
    pathwise: ClassVar[bool] = True
    corrected: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return refuses_transport(facts, transport.LAWS)

    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        value, log_noise = transport.draw(rng_key, q, STANDARDIZED)
        return Draw(value, log_noise=log_noise)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        return self.scored(draw.log_noise, cost, params)
