"""Independent Bernoullis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Bernoulli(Family):
    """q(z) = prod_i Bernoulli(z_i; sigmoid(logits_i)).

    Parameters: `logits`, of the site's shape.

    Example:
        >>> autovi.fit(model, data, families={"included": "bernoulli"})
    """

    name: ClassVar[str] = "bernoulli"
    distribution_name: ClassVar[str] = "BernoulliLogits"
    estimators: ClassVar[tuple[str, ...]] = ("marginalize", "enumerate", "score")

    def refuses(self, site: Site) -> str | None:
        return None if site.support == "boolean" else f"its support is {site.support}, not boolean"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"logits": jnp.zeros(layout.batch_shape + layout.event_shape)}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(dist.BernoulliLogits(params["logits"], validate_args=False), event_ndim)
