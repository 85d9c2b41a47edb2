"""Independent Poissons, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Poisson(Family):
    """q(z) = prod_i Poisson(z_i; exp(log_rate_i)) for non-negative integers.

    Parameters: `log_rate`, of the site's shape. Its one estimator is the score.

    Example:
        >>> autovi.fit(model, data, families={"births": "poisson"})
    """

    name: ClassVar[str] = "poisson"
    distribution_name: ClassVar[str] = "Poisson"
    estimators: ClassVar[tuple[str, ...]] = ("score",)

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"log_rate": jnp.log1p(jnp.asarray(start, jnp.result_type(float)))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(dist.Poisson(jnp.exp(params["log_rate"]), validate_args=False), event_ndim)
