"""One normal with covariance of low rank plus a diagonal over all unconstrained values of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import LowRankNormalOfNoise
from autovi.families.base import INIT_SCALE, Family, Layout, Params, continuous_with_bijection
from autovi.model.sites import Site


@dataclass(frozen=True)
class LowRank(Family):
    """q(u) = N(u; loc, W W' + diag(exp(log_scale))^2), W of shape (D, rank), for the unconstrained vector u of a block,
    or of each element of a plate.

    `rank` None takes the nearest integer to sqrt(D). The factor starts small and different in every entry, since at
    zero its gradient would vanish. Ong, Nott and Smith (2018), "Gaussian Variational Approximation With a Factor
    Covariance Structure".

    Example:
        >>> autovi.fit(model, data, families={"*": autovi.families.LowRank(rank=5)})
    """

    rank: int | None = None

    name: ClassVar[str] = "low_rank"
    distribution_name: ClassVar[str] = "LowRankMultivariateNormal"
    unconstrained: ClassVar[bool] = True
    joint: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit", "score")

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank: expected an integer of at least 1, got {self.rank}")

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        size = start.shape[-1]
        rank = min(self.rank or max(1, round(size**0.5)), size)
        factor = jax.random.normal(jax.random.key(size), (*start.shape, rank), start.dtype)
        return {
            "loc": start,
            "log_scale": jnp.full_like(start, jnp.log(INIT_SCALE)),
            "factor": 0.1 * INIT_SCALE * factor,
        }

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array]:
        factor, variance = params["factor"], jnp.exp(2 * params["log_scale"])
        covariance = factor @ factor.mT + variance[..., None] * jnp.eye(variance.shape[-1], dtype=variance.dtype)
        return params["loc"], jnp.linalg.cholesky(covariance)

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        variance = jnp.exp(2 * params["log_scale"])
        return LowRankNormalOfNoise(params["loc"], params["factor"], variance, validate_args=False)
