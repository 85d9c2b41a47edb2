"""Independent Poissons with zeros of their own, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Params
from autovi.families.gated import GatedCounts


@dataclass(frozen=True)
class ZeroInflatedPoisson(GatedCounts):
    """q(z) = prod_i g_i [z_i = 0] + (1 - g_i) Poisson(z_i; exp(log_rate_i)), g = sigmoid(gate_logit).

    Parameters: `gate_logit` and `log_rate`, of the site's shape. Holds the Poisson. Its gate may be gone through
    exactly: `enumerate_gate`, with two evaluations.

    Example:
        >>> autovi.fit(model, data, families={"catch": "zero_inflated_poisson"})
    """

    name: ClassVar[str] = "zero_inflated_poisson"
    distribution_name: ClassVar[str] = "ZeroInflatedLogits"

    def gated(self, params: Params) -> dist.Distribution:
        base = dist.Poisson(jnp.exp(params["log_rate"]), validate_args=False)
        return dist.ZeroInflatedLogits(base, params["gate_logit"], validate_args=False)
