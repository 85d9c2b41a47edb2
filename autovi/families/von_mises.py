"""Von Mises, on the circle itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, to_event
from autovi.model.sites import CIRCULAR, Site


@dataclass(frozen=True)
class VonMises(Family):
    """q(x) = VonMises(x; loc, kappa), kappa = exp(log_concentration), for angles x.

    `loc` is any real number: the density has period 2 pi in it, so that a step across pi goes on at -pi without an
    edge, and the optimizer needs no coordinates that wrap. Exact for the direction of von Mises observations with known
    concentration.

    Example:
        >>> autovi.fit(model, data, families={"direction": "von_mises"})
    """

    name: ClassVar[str] = "von_mises"
    distribution_name: ClassVar[str] = "VonMises"
    support: ClassVar[Any] = dist.constraints.circular
    estimators: ClassVar[tuple[str, ...]] = ("implicit", "score")

    def refuses(self, site: Site) -> str | None:
        return None if site.support == CIRCULAR else f"its support is {site.support}, not circular"

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"loc": start, "log_concentration": jnp.full_like(start, jnp.log(10.0))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        concentration = jnp.exp(params["log_concentration"])
        return to_event(dist.VonMises(params["loc"], concentration, validate_args=False), event_ndim)

    def statistics(self, value: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(value), jnp.sin(value)], axis=-1)

    def from_natural(self, coefficients: jax.Array) -> Params:
        cosine, sine = coefficients[..., 0], coefficients[..., 1]
        return {"loc": jnp.arctan2(sine, cosine), "log_concentration": jnp.log(jnp.hypot(cosine, sine))}
