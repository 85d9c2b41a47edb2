"""Implicit reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.estimators.base import Draw, Facts, refuses_pathwise, refuses_without_derivative
from autovi.estimators.pathwise import Pathwise


@dataclass(frozen=True)
class Implicit(Pathwise):
    """dz/dtheta = -(dS/dz)^-1 dS/dtheta for a standardization S(z; theta) that need not be inverted.

    Draws come from `autovi.implicit`, which knows Gamma, Beta, Dirichlet, StudentT, VonMises, LKJ, Wishart,
    truncations, mixtures and more, and tries any univariate density that it does not know. Unbiased for costs that are
    continuous in z, on a circle also across the cut at -pi and pi. Refuses what `explicit` serves, discrete sites, and
    costs that jump. Figurnov, Mohamed and Mnih (2018), "Implicit Reparameterization Gradients", section 3.

    Args:
        antithetic: the particles' noise in pairs of opposite sign (`Pathwise`): for Gamma, Chi2, Beta and StudentT.
        sobol: the particles' noise from scrambled Sobol points: for the same.

    Raises:
        ValueError: both at once.

    Example:
        >>> autovi.fit(model, data, estimators={"rate": "implicit"})
    """

    name: ClassVar[str] = "implicit"

    def refuses(self, facts: Facts) -> str | None:
        gradients, refused = facts.gradients, refuses_pathwise(facts)
        if refused:
            return refused
        if gradients.pathwise == "explicit":
            return "its sampler is an explicit map from noise; 'explicit' is the pathwise estimator for it"
        if gradients.pathwise is None:
            return f"no implicit derivative is known for it ({gradients.note or 'not reparameterizable'})"
        return refuses_without_derivative(facts) or self.refuses_coupling(facts)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if self.coupled:
            return self.coupled_draw(noise, q)
        return Draw(implicit.sample(noise, q))
