"""Independent negative binomials, for counts without a bound that vary more than a Poisson's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """q(z) = prod_i NegativeBinomial2(z_i; m_i, a_i), m = exp(log_mean), a = exp(log_concentration).

    Parameters: `log_mean` and `log_concentration`, of the site's shape. The variance is m + m^2 / a. Holds geometrics
    (a = 1), and the Poisson as a grows. Under a prior with more variance than a Poisson's it is never worse than
    `poisson` and up to half a nat better for each count (`docs/choosing.md`), the more so the less data tell.

    Example:
        >>> autovi.fit(model, data, families={"births": "negative_binomial"})
    """

    name: ClassVar[str] = "negative_binomial"
    distribution_name: ClassVar[str] = "NegativeBinomial2"
    estimators: ClassVar[tuple[str, ...]] = ("score",)

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        log_mean = jnp.log1p(jnp.asarray(start, jnp.result_type(float)))
        return {"log_mean": log_mean, "log_concentration": jnp.full_like(log_mean, jnp.log(10.0))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])
        return to_event(
            dist.NegativeBinomial2(jnp.exp(params["log_mean"]), concentration, validate_args=False), event_ndim
        )
