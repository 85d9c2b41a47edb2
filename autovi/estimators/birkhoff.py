"""The Birkhoff polytope: the gradient of the cost at a matrix rounded towards the drawn permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from autovi.estimators.ordered import Ordered


@dataclass(frozen=True)
class Birkhoff(Ordered):
    """d/dl E f(P) is taken to be d/dl E f(s Y + (1 - s) P), P the permutation next to Y. Biased.

    Y, inside the Birkhoff polytope, is the doubly stochastic matrix of `gumbel_sinkhorn`, P the permutation that it is
    rounded to, which is the draw: losses, and the gradients of all other sites, are at permutations. The lower s, the
    nearer to a permutation the cost has its derivative, and the smaller a part of that Y carries. For sites of
    `PlackettLuceMatrix`; two evaluations, one with its gradient, for each particle.
    Linderman, Mena, Cooper, Paninski and Cunningham (2018), "Reparameterizing the Birkhoff Polytope for Variational
    Permutation Inference", section 3.2, with this Y in the place of a noisy mean.

    Args:
        softness: s, over 0 and up to 1.
        temperature: tau of Y, a positive number.
        iterations: of scaling rows and columns.

    Raises:
        ValueError: a softness or a temperature out of range, or fewer than one iteration.

    Example:
        >>> autovi.fit(model, data, estimators={"matching": "birkhoff"}, allow_bias=True)
    """

    softness: float = 0.5

    name: ClassVar[str] = "birkhoff"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.softness <= 1:
            raise ValueError(f"softness: expected a number over 0 and up to 1, got {self.softness}")

    def between(self, soft: jax.Array, drawn: jax.Array) -> jax.Array:
        return self.softness * soft + (1 - self.softness) * drawn
