"""Beta, on the site's own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Beta(Family):
    """q(x) = Beta(x; exp(log_concentration1), exp(log_concentration0)) for x in the unit interval.

    Exact for the probability of a Bernoulli or binomial likelihood.

    Example:
        >>> autovi.fit(model, data, families={"p": "beta"})
    """

    name: ClassVar[str] = "beta"
    distribution_name: ClassVar[str] = "Beta"
    support: ClassVar[Any] = dist.constraints.unit_interval
    estimators: ClassVar[tuple[str, ...]] = ("implicit", "score", "rsvi", "g_rep")

    def refuses(self, site: Site) -> str | None:
        return None if site.support == "unit interval" else f"its support is {site.support}, not the unit interval"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {
            "log_concentration1": jnp.log(10.0 * start),
            "log_concentration0": jnp.log(10.0 * (1.0 - start)),
        }

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        one, zero = jnp.exp(params["log_concentration1"]), jnp.exp(params["log_concentration0"])
        return to_event(dist.Beta(one, zero, validate_args=False), event_ndim)
