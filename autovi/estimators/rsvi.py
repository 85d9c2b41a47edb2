"""Reparameterization through rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autovi.estimators.base import Transported
from autovi.implicit.transported.maps import rejection
from autovi.implicit.transported.transport import Transport


@dataclass(frozen=True)
class RSVI(Transported):
    """d/dtheta E f(z) = E f'(z) dT/dtheta + E (f(z) - b) d/dtheta log pi(x; theta), z = T(x; theta), b the baseline.

    x are the normals that Marsaglia and Tsang's sampler of a Gamma(a + B) accepts, pi their density, which has still
    something of a in it; B uniforms bring the shape down to a. A Beta is a ratio of two such gammas, a Dirichlet K of
    them normalized. Unbiased for costs continuous in z, with any baseline; for Gamma, Beta and Dirichlet only, where
    `implicit` is nearly always less noisy: this one is to compare with. Refuses costs that jump. Naesseth, Ruiz,
    Linderman and Blei (2017), "Reparameterization Gradients through Acceptance-Rejection Sampling Algorithms".

    Args:
        baseline: as of `score`; the paper has none.
        augmentation: B, at least 1, since the sampler is for shapes of at least 1. With 4 the correction adds no
            variance that could be measured; each more costs one more uniform.

    Raises:
        ValueError: an unknown baseline, or an augmentation that is no integer or below 1.

    Example:
        >>> autovi.fit(model, data, estimators={"rate": {"estimator": "rsvi", "augmentation": 10}})
    """

    augmentation: int = 4

    name: ClassVar[str] = "rsvi"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.augmentation, int | np.integer) and not isinstance(self.augmentation, bool)
        if not whole or self.augmentation < 1:
            raise ValueError(f"augmentation: expected an integer of at least 1, got {self.augmentation!r}")

    @property
    def transport(self) -> Transport:
        return rejection(self.augmentation)
