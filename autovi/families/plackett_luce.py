"""Orders that are drawn item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.distributions.permutations import PlackettLuce as Distribution
from autovi.families.base import Family, Layout, Params
from autovi.model.sites import Site


@dataclass(frozen=True)
class PlackettLuce(Family):
    """q(z) = prod_i exp(l_{z_i}) / sum_{j >= i} exp(l_{z_j}) over the permutations of n items.

    For sites with permutations as values, whatever their prior. It starts at the uniform distribution. Parameters:
    `logits`, `[*batch, n]`.

    Example:
        >>> autovi.fit(model, data, families={"order": "plackett_luce"})
    """

    name: ClassVar[str] = "plackett_luce"
    distribution_name: ClassVar[str] = "PlackettLuce"
    estimators: ClassVar[tuple[str, ...]] = ("score",)

    def refuses(self, site: Site) -> str | None:
        return None if site.support == "permutation" else f"its support is {site.support}, not permutations"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"logits": jnp.zeros(layout.batch_shape + layout.event_shape)}

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        return Distribution(params["logits"], validate_args=False)
