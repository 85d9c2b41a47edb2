"""Reparameterization through rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from numpyro.distributions import Distribution

from autovi.estimators.base import Baselined, Cost, Density, Draw, Facts, Scalar, refuses_transport
from autovi.implicit.transported import transport
from autovi.implicit.transported.rejection import rejection


@dataclass(frozen=True)
class RSVI(Baselined):
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
        ValueError: an unknown baseline, or an augmentation below 1.

    Example:
        >>> autovi.fit(model, data, estimators={"rate": {"estimator": "rsvi", "augmentation": 10}})
    """

    augmentation: int = 4

    name: ClassVar[str] = "rsvi"
    pathwise: ClassVar[bool] = True
    corrected: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.augmentation, int) or self.augmentation < 1:
            raise ValueError(f"augmentation: expected an integer of at least 1, got {self.augmentation!r}")

    def refuses(self, facts: Facts) -> str | None:
        return refuses_transport(facts, transport.LAWS)

    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        value, log_noise = transport.draw(rng_key, q, rejection(self.augmentation))
        return Draw(value, log_noise=log_noise)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        return self.scored(draw.log_noise, cost, params)
