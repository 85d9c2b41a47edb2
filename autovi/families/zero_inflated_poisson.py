"""Independent Poissons with zeros of their own, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class ZeroInflatedPoisson(Family):
    """q(z) = prod_i g_i [z_i = 0] + (1 - g_i) Poisson(z_i; exp(log_rate_i)), g = sigmoid(gate_logit).

    Parameters: `gate_logit` and `log_rate`, of the site's shape. Holds the Poisson. Its gate may be gone through
    exactly: `enumerate_gate`, with two evaluations.

    Example:
        >>> autovi.fit(model, data, families={"catch": "zero_inflated_poisson"})
    """

    name: ClassVar[str] = "zero_inflated_poisson"
    distribution_name: ClassVar[str] = "ZeroInflatedLogits"
    estimators: ClassVar[tuple[str, ...]] = ("score", "enumerate_gate")

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        log_rate = jnp.log1p(jnp.asarray(start, jnp.result_type(float)))
        return {"gate_logit": jnp.zeros_like(log_rate), "log_rate": log_rate}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        base = dist.Poisson(jnp.exp(params["log_rate"]), validate_args=False)
        return to_event(dist.ZeroInflatedLogits(base, params["gate_logit"], validate_args=False), event_ndim)
