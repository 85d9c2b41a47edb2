"""Gumbel-Sinkhorn: the gradient of the cost at a doubly stochastic matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from autovi.estimators.ordered import Ordered


@dataclass(frozen=True)
class GumbelSinkhorn(Ordered):
    r"""d/dl E f(P) is taken to be d/dl E f(S(r z' / tau)), z = l + g, g Gumbels. Biased, the less the lower tau.

    S(X) is exp(X) with rows and columns scaled in turns until they add up to one, from a soft sort on. The permutation
    that orders z is the matching of items to places of the largest :math:`\sum_i r_i z_{P(i)}`,
    r = (n - 1, n - 3, ..., 1 - n), and S its relaxation; with two items it is that of `concrete`. The draw itself is
    that permutation, so that losses, and the gradients of all other sites, are at permutations; the relaxed one is seen
    by the gradient of this site alone. For sites of `PlackettLuceMatrix`; two evaluations, one with its gradient, for
    each particle.
    Mena, Belanger, Linderman and Snoek (2018), "Learning Latent Permutations with Gumbel-Sinkhorn Networks", section 3.

    Args:
        temperature: tau, a positive number.
        iterations: of scaling rows and columns.

    Raises:
        ValueError: a temperature that is not positive, or fewer than one iteration.

    Example:
        >>> autovi.fit(model, data, estimators={"matching": "gumbel_sinkhorn"}, allow_bias=True)
    """

    name: ClassVar[str] = "gumbel_sinkhorn"

    def between(self, soft: jax.Array, drawn: jax.Array) -> jax.Array:
        return soft
