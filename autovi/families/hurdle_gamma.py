"""Gammas behind a hurdle, for non-negative numbers of which some are exactly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Params
from autovi.families.gated import GatedPositive


@dataclass(frozen=True)
class HurdleGamma(GatedPositive):
    """q(x) = prod_i g_i where x_i = 0, else (1 - g_i) Gamma(x_i; a_i, a_i / m_i), g = sigmoid(gate_logit).

    Parameters: `gate_logit`, `log_mean` of m and `log_concentration` of a, of the site's shape. Its gate is gone
    through exactly, and the gamma pathwise: `enumerate_gate`, with two evaluations. For priors such as NumPyro's
    `HurdleGamma` and `HurdleLogNormal`. Cragg (1971), "Some Statistical Models for Limited Dependent Variables".

    Example:
        >>> autovi.fit(model, data, families={"rain": "hurdle_gamma"})
    """

    name: ClassVar[str] = "hurdle_gamma"
    distribution_name: ClassVar[str] = "HurdleGamma"

    def behind(self, start: jax.Array) -> Params:
        mean = jnp.where(start > 0, start, 1.0)
        return {"log_mean": jnp.log(mean), "log_concentration": jnp.full_like(start, jnp.log(3.0))}

    def gated(self, params: Params) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])
        rate = jnp.exp(params["log_concentration"] - params["log_mean"])
        base = dist.Gamma(concentration, rate, validate_args=False)
        return dist.HurdleLogits(base, params["gate_logit"], validate_args=False)
