"""Independent normals on the unconstrained scale: mean field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import NormalOfNoise
from autovi.families.base import INIT_SCALE, Family, Layout, Params, continuous_with_bijection, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Normal(Family):
    """q(u) = prod_i N(u_i; loc_i, exp(log_scale_i)^2) for the unconstrained value u.

    Parameters: `loc` and `log_scale`, each of the shape of u. Kucukelbir et al. (2017), "Automatic Differentiation
    Variational Inference", section 2.4.

    Example:
        >>> autovi.fit(model, data, families={"beta": "normal"})
    """

    name: ClassVar[str] = "normal"
    distribution_name: ClassVar[str] = "Normal"
    unconstrained: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit", "sticking", "score")

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"loc": start, "log_scale": jnp.full_like(start, jnp.log(INIT_SCALE))}

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array]:
        return jnp.ravel(params["loc"]), jnp.exp(jnp.ravel(params["log_scale"]))

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params | None:
        if scale.ndim == 2:
            return None
        shape = layout.batch_shape + layout.event_shape
        return {"loc": loc.reshape(shape), "log_scale": jnp.log(scale).reshape(shape)}

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        fn = NormalOfNoise(params["loc"], jnp.exp(params["log_scale"]), validate_args=False)
        return to_event(fn, event_ndim)
