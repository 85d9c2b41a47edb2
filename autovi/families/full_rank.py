"""One normal with a full covariance over all unconstrained values of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import INIT_SCALE, Family, Layout, Params, continuous_with_bijection
from autovi.model.sites import Site


@dataclass(frozen=True)
class FullRank(Family):
    """q(u) = N(u; loc, L L') for the flat unconstrained vector u of length D.

    L is lower triangular: `log_diagonal` (D,) on its diagonal, exponentiated, and below it the rows of `lower` (D, D)
    scaled by the diagonal, L = (I + strictly_lower(lower)) exp(log_diagonal) row by row, so that steps are relative to
    each coordinate's scale. Kucukelbir et al. (2017), section 2.4.

    Example:
        >>> autovi.fit(model, data, guide="full_rank")
    """

    name: ClassVar[str] = "full_rank"
    distribution_name: ClassVar[str] = "MultivariateNormal"
    unconstrained: ClassVar[bool] = True
    joint: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit", "score")

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        size = start.shape[0]
        return {
            "loc": start,
            "log_diagonal": jnp.full_like(start, jnp.log(INIT_SCALE)),
            "lower": jnp.zeros((size, size), start.dtype),
        }

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array]:
        unit = jnp.tril(params["lower"], -1) + jnp.eye(params["loc"].shape[0], dtype=params["loc"].dtype)
        return params["loc"], jnp.exp(params["log_diagonal"])[:, None] * unit

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        dense = jnp.diag(scale) if scale.ndim == 1 else scale
        diagonal = jnp.diagonal(dense)
        return {"loc": loc, "log_diagonal": jnp.log(diagonal), "lower": jnp.tril(dense / diagonal[:, None], -1)}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        _, scale_tril = self.as_normal(params)
        return dist.MultivariateNormal(params["loc"], scale_tril=scale_tril, validate_args=False)
