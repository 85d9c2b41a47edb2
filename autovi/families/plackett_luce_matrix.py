"""Permutation matrices that are drawn row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.distributions.permutations import PlackettLuceMatrix as Distribution
from autovi.families.base import Family, Layout, Params
from autovi.model.sites import Site


@dataclass(frozen=True)
class PlackettLuceMatrix(Family):
    """The permutations of `plackett_luce` as matrices, for sites whose values are such.

    It starts at the uniform distribution. Parameters: `logits`, `[*batch, n]`.

    Example:
        >>> autovi.fit(model, data, families={"matching": "plackett_luce_matrix"})
    """

    name: ClassVar[str] = "plackett_luce_matrix"
    distribution_name: ClassVar[str] = "PlackettLuceMatrix"
    estimators: ClassVar[tuple[str, ...]] = ("score",)

    def refuses(self, site: Site) -> str | None:
        if site.support == "permutation matrix":
            return None
        return f"its support is {site.support}, not permutation matrices"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"logits": jnp.zeros(layout.batch_shape + layout.event_shape[:1])}

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        return Distribution(params["logits"], validate_args=False)
