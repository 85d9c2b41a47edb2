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
    """q(x) = Beta(x; c m, c (1 - m)) for x in the unit interval, m = sigmoid(logit_mean), c = exp(log_concentration).

    Mean and concentration are nearly orthogonal: steps in one leave the other right, also where c is large.
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
        logit = jnp.log(start) - jnp.log1p(-start)
        return {"logit_mean": logit, "log_concentration": jnp.full_like(start, jnp.log(10.0))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])
        one, zero = (concentration * jax.nn.sigmoid(sign * params["logit_mean"]) for sign in (1, -1))
        return to_event(dist.Beta(one, zero, validate_args=False), event_ndim)

    def statistics(self, value: jax.Array) -> jax.Array:
        return jnp.stack([jnp.log(value), jnp.log1p(-value)], axis=-1)

    def from_natural(self, coefficients: jax.Array) -> Params:
        one, zero = (jnp.log(coefficients[..., i] + 1) for i in (0, 1))
        return {"logit_mean": one - zero, "log_concentration": jnp.logaddexp(one, zero)}
