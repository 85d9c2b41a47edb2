"""A point: maximum a posteriori on the unconstrained scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, continuous_with_bijection, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Delta(Family):
    """q(u) = delta(u - loc): maximizes the joint density on the unconstrained scale, Jacobian included.

    Its log density counts as zero, so the ELBO of a model with a delta site is a penalized likelihood, not a bound.

    Example:
        >>> autovi.fit(model, data, families={"sigma": "delta"})
    """

    name: ClassVar[str] = "delta"
    distribution_name: ClassVar[str] = "Delta"
    unconstrained: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("explicit",)

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        return {"loc": start}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(dist.Delta(params["loc"], validate_args=False), event_ndim)
