"""Independent geometrics, for counts without a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Geometric(Family):
    """q(z) = prod_i Geometric(z_i), of mean m_i = exp(log_mean_i): probability 1 / (1 + m_i) of stopping at each count.

    Parameters: `log_mean`, of the site's shape. Its variance is m + m^2, always: where data tell about a count,
    `negative_binomial`, which holds it, is far better.

    Example:
        >>> autovi.fit(model, data, families={"failures": "geometric"})
    """

    name: ClassVar[str] = "geometric"
    distribution_name: ClassVar[str] = "NegativeBinomial2"
    estimators: ClassVar[tuple[str, ...]] = ("score",)

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"log_mean": jnp.log1p(jnp.asarray(start, jnp.result_type(float)))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        mean = jnp.exp(params["log_mean"])  # with concentration 1; NumPyro's own geometrics draw floats
        return to_event(dist.NegativeBinomial2(mean, jnp.ones_like(mean), validate_args=False), event_ndim)
