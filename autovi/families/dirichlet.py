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
    """q(x) = Dirichlet(x; c m) for x on the simplex, m = softmax(logits), c = exp(log_concentration).

    Mean and total are nearly orthogonal: steps in one leave the other right, also where c is large.
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
        return {"logits": jnp.log(start), "log_concentration": jnp.full(start.shape[:-1], jnp.log(10.0), start.dtype)}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])[..., None] * jax.nn.softmax(params["logits"])
        return to_event(dist.Dirichlet(concentration, validate_args=False), event_ndim)

    def statistics(self, value: jax.Array) -> jax.Array:
        return jnp.log(value)

    def from_natural(self, coefficients: jax.Array) -> Params:
        logs = jnp.log(coefficients + 1)
        return {"logits": logs, "log_concentration": jax.nn.logsumexp(logs, axis=-1)}
