"""Implicit reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.estimators.base import Draw, Estimator, Facts, refuses_pathwise


@dataclass(frozen=True)
class Implicit(Estimator):
    """dz/dtheta = -(dS/dz)^-1 dS/dtheta for a standardization S(z; theta) that need not be inverted.

    Draws come from `autovi.implicit`, which knows Gamma, Beta, Dirichlet, StudentT, VonMises, LKJ, Wishart,
    truncations, mixtures and more, and tries any univariate density that it does not know. Unbiased for costs that are
    continuous in z, on a circle also across the cut at -pi and pi. Refuses what `explicit` serves, discrete sites, and
    costs that jump. Figurnov, Mohamed and Mnih (2018), "Implicit Reparameterization Gradients", section 3.

    Example:
        >>> autovi.fit(model, data, estimators={"rate": "implicit"})
    """

    name: ClassVar[str] = "implicit"
    pathwise: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        gradients, refused = facts.gradients, refuses_pathwise(facts)
        if refused:
            return refused
        if gradients.pathwise == "explicit":
            return "its sampler is an explicit map from noise; 'explicit' is the pathwise estimator for it"
        if gradients.pathwise is None:
            return f"no implicit derivative is known for it ({gradients.note or 'not reparameterizable'})"
        if gradients.not_pathwise:
            return f"its draws have no right derivative with respect to {', '.join(gradients.not_pathwise)}"
        if gradients.periodic and facts.aperiodic:
            why = facts.aperiodic
            return f"the cost is not periodic in it ({why}), and a pathwise gradient does not see the jump at the cut"
        return None

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(implicit.sample(noise, q))
