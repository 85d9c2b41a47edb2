"""One normal with a full covariance over all unconstrained values of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import MultivariateNormalOfNoise
from autovi.families.base import (
    INIT_SCALE,
    Family,
    Layout,
    Params,
    continuous_with_bijection,
    full_rank_params,
    scale_tril,
)
from autovi.model.sites import Site


@dataclass(frozen=True)
class FullRank(Family):
    """q(u) = N(u; loc, L L') for the unconstrained vector u of length D of a block, or of each element of a plate.

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
    rotates: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit", "sticking", "score")

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return full_rank_params(start, jnp.full_like(start, INIT_SCALE))

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array]:
        return params["loc"], scale_tril(params)

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        return full_rank_params(loc, scale)

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        return MultivariateNormalOfNoise(params["loc"], scale_tril=scale_tril(params), validate_args=False)
