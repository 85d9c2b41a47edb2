"""The importance-weighted bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autovi.objectives.base import Weighted


@dataclass(frozen=True)
class Iwae(Weighted):
    """E log(1/K sum_k w_k), w_k = p(x, z_k) / q(z_k): a tighter bound from K particles.

    Burda, Grosse and Salakhutdinov (2016), "Importance Weighted Autoencoders". The gradient through the draws weights
    the particles by w_k / sum w; `dreg` is the estimator whose signal does not drown in noise as K grows. Sites with
    the score function get VIMCO's signal (`Weighted`). Particles must be independent. Where all latent sites and all
    observations are in one plate whose elements do not see one another, as the codes of an autoencoder, each element
    has weights of its own: the sum over elements of their bounds, which is tighter, and each site's signal is its own.

    Args:
        num_samples: K. None: all particles of a step. `num_particles` must be a multiple, and of several groups of K
            the mean is taken.

    Raises:
        ValueError: `num_samples` is below 2.

    Example:
        >>> autovi.fit(model, data, objective="iwae", num_particles=10)
        >>> autovi.fit(model, data, objective=autovi.objectives.Iwae(5), num_particles=20)
    """

    num_samples: int | None = None

    name: ClassVar[str] = "iwae"

    @property
    def power(self) -> float:
        return 1.0
