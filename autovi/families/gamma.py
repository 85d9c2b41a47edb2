"""Gamma, on the site's own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Gamma(Family):
    """q(x) = Gamma(x; a, a / m), a = exp(log_concentration), mean m = exp(log_mean), for positive x.

    Mean and concentration are nearly orthogonal parameters of the gamma, shape and rate are not: steps in one leave
    the other right. Exact for the rate of a Poisson or an exponential likelihood.

    Example:
        >>> autovi.fit(model, data, families={"rate": "gamma"})
    """

    name: ClassVar[str] = "gamma"
    distribution_name: ClassVar[str] = "Gamma"
    support: ClassVar[Any] = dist.constraints.positive
    estimators: ClassVar[tuple[str, ...]] = ("implicit", "score", "rsvi", "g_rep")

    def refuses(self, site: Site) -> str | None:
        if site.gradients.not_pathwise:
            return "one of its values has a probability of its own, which no density follows"
        return None if site.support in ("positive", "nonnegative") else f"its support is {site.support}, not positive"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"log_mean": jnp.log(start), "log_concentration": jnp.full_like(start, jnp.log(10.0))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])
        rate = jnp.exp(params["log_concentration"] - params["log_mean"])
        return to_event(dist.Gamma(concentration, rate, validate_args=False), event_ndim)

    def statistics(self, value: jax.Array) -> jax.Array:
        return jnp.stack([jnp.log(value), -value], axis=-1)

    def from_natural(self, coefficients: jax.Array) -> Params:
        # log NaN where shape or rate is not positive.
        log_concentration = jnp.log(coefficients[..., 0] + 1)
        return {"log_mean": log_concentration - jnp.log(coefficients[..., 1]), "log_concentration": log_concentration}
