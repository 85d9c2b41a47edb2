"""Independent Poissons behind a hurdle, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.distributions.gates import HurdlePoissonLogits
from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class HurdlePoisson(Family):
    """q(z) = prod_i g_i where z_i = 0, else (1 - g_i) Poisson(z_i; r_i) / (1 - exp(-r_i)), r = exp(log_rate).

    Parameters: `gate_logit`, g = sigmoid(gate_logit), and `log_rate`, of the site's shape. Zeros may be rarer than a
    Poisson's, too. Its gate may be gone through exactly: `enumerate_gate`, with two evaluations.

    Example:
        >>> autovi.fit(model, data, families={"visits": "hurdle_poisson"})
    """

    name: ClassVar[str] = "hurdle_poisson"
    distribution_name: ClassVar[str] = "HurdleLogits"
    estimators: ClassVar[tuple[str, ...]] = ("score", "enumerate_gate")

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        log_rate = jnp.log1p(jnp.asarray(start, jnp.result_type(float)))
        return {"gate_logit": jnp.zeros_like(log_rate), "log_rate": log_rate}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(HurdlePoissonLogits(jnp.exp(params["log_rate"]), params["gate_logit"]), event_ndim)
