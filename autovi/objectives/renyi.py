"""Renyi's bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from autovi.objectives.base import Weighted


@dataclass(frozen=True)
class Renyi(Weighted):
    """E 1/(1 - alpha) log(1/K sum_k w_k^(1 - alpha)), w_k = p(x, z_k) / q(z_k).

    For alpha from 0 to 1 a lower bound of the log evidence, between `iwae` (alpha 0) and the ELBO (alpha 1), whose q
    covers more of the posterior the smaller alpha is; above 1 it is below the ELBO. The gradient through the draws
    weights the particles by w^(1 - alpha). Sites with the score function get VIMCO's signal. Below 0 it may exceed the
    log evidence. Li and Turner (2016), "Renyi Divergence Variational Inference", equation 13.

    Args:
        alpha: the order.
        num_samples: K. None: all particles of a step. `num_particles` must be a multiple, and of several groups of K
            the mean is taken.

    Raises:
        ValueError: `alpha` is not finite, or `num_samples` is below 2.

    Example:
        >>> autovi.fit(model, data, objective=autovi.objectives.Renyi(alpha=0.5))
    """

    alpha: float = 0.5
    num_samples: int | None = None

    name: ClassVar[str] = "renyi"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha: expected a finite number, got {self.alpha!r}")

    @property
    def power(self) -> float:
        return 1.0 - self.alpha
