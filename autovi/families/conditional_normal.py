"""A normal given other blocks: mean and log scale linear in their values."""

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
class ConditionalNormal(Family):
    """q(u | h) = N(u; loc + A h, S L L' S), S = diag(exp(B h)), for the D unconstrained values u of each plate element.

    h are the unconstrained values of the flat blocks outside of the element's plates: what a hierarchy has in common.
    With A it follows the centred writing of a hierarchy, with B the other one; the cost is elements x D x length of h.
    Parameters: those of `full_rank` for each element, `slope` A and `scale_slope` B, which start at zero. Hoffman and
    Blei (2015), "Structured Stochastic Variational Inference"; Ranganath, Tran and Blei (2016), "Hierarchical
    Variational Models".

    Example:
        >>> autovi.fit(model, data, families={"school_effect": "conditional_normal"})
    """

    name: ClassVar[str] = "conditional_normal"
    distribution_name: ClassVar[str] = "MultivariateNormal"
    unconstrained: ClassVar[bool] = True
    joint: ClassVar[bool] = True
    conditional: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit", "score")

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return self.from_normal(start, jnp.full_like(start, INIT_SCALE), layout)

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        # Two arrays: a state whose buffers are handed over must not hold one of them twice.
        slope, scale_slope = (jnp.zeros((*loc.shape, layout.num_parents), loc.dtype) for _ in range(2))
        return {**full_rank_params(loc, scale), "slope": slope, "scale_slope": scale_slope}

    def given(self, params: Params, parents: jax.Array) -> Params:
        return {
            "loc": params["loc"] + params["slope"] @ parents,
            "log_diagonal": params["log_diagonal"] + params["scale_slope"] @ parents,
            "lower": params["lower"],
        }

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        return MultivariateNormalOfNoise(params["loc"], scale_tril=scale_tril(params), validate_args=False)
