"""Generalized reparameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autovi.estimators.base import Transported
from autovi.implicit.transported.maps import STANDARDIZED
from autovi.implicit.transported.transport import Transport


@dataclass(frozen=True)
class GRep(Transported):
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

    @property
    def transport(self) -> Transport:
        return STANDARDIZED
