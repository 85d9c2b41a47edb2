"""Independent Poissons behind a hurdle, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.distributions.gates import HurdlePoissonLogits
from autovi.families.base import Params
from autovi.families.gated import GatedCounts


@dataclass(frozen=True)
class HurdlePoisson(GatedCounts):
    """q(z) = prod_i g_i where z_i = 0, else (1 - g_i) Poisson(z_i; r_i) / (1 - exp(-r_i)), r = exp(log_rate).

    Parameters: `gate_logit`, g = sigmoid(gate_logit), and `log_rate`, of the site's shape. Zeros may be rarer than a
    Poisson's, too. Its gate may be gone through exactly: `enumerate_gate`, with two evaluations.

    Example:
        >>> autovi.fit(model, data, families={"visits": "hurdle_poisson"})
    """

    name: ClassVar[str] = "hurdle_poisson"
    distribution_name: ClassVar[str] = "HurdleLogits"

    def gated(self, params: Params) -> dist.Distribution:
        return HurdlePoissonLogits(jnp.exp(params["log_rate"]), params["gate_logit"])
