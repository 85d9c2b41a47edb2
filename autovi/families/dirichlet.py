"""Dirichlet, on the site's own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Dirichlet(Family):
    """q(x) = Dirichlet(x; exp(log_concentration)) for x on the simplex.

    Exact for the probabilities of a categorical or multinomial likelihood.

    Example:
        >>> autovi.fit(model, data, families={"weights": "dirichlet"})
    """

    name: ClassVar[str] = "dirichlet"
    distribution_name: ClassVar[str] = "Dirichlet"
    support: ClassVar[Any] = dist.constraints.simplex
    estimators: ClassVar[tuple[str, ...]] = ("implicit", "score", "rsvi", "g_rep")

    def refuses(self, site: Site) -> str | None:
        return None if site.support == "simplex" else f"its support is {site.support}, not the simplex"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"log_concentration": jnp.log(10.0 * start)}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(dist.Dirichlet(jnp.exp(params["log_concentration"]), validate_args=False), event_ndim)
