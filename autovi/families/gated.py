"""What families have in common that have a gate at zero, and something behind it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params, refuses_but_counts, to_event
from autovi.model.sites import Site


@dataclass(frozen=True)
class Gated(Family):
    """A value that is 0 with probability g = sigmoid(gate_logit), else drawn from what is behind the gate, which has
    the other parameters, all of the site's shape. The gate may be gone through exactly: `enumerate_gate`."""

    @abstractmethod
    def behind(self, start: jax.Array) -> Params:
        """The parameters of what is behind the gate, where a value is to be `start`."""

    @abstractmethod
    def gated(self, params: Params) -> dist.Distribution:
        """The distribution of one number."""

    def init(self, start: jax.Array, layout: Layout) -> Params:
        start = jnp.asarray(start, jnp.result_type(float))
        return {"gate_logit": jnp.zeros_like(start)} | self.behind(start)

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return to_event(self.gated(params), event_ndim)


@dataclass(frozen=True)
class GatedCounts(Gated):
    """A gate before a Poisson of rate exp(log_rate), for counts without a bound."""

    estimators: ClassVar[tuple[str, ...]] = ("score", "enumerate_gate")

    def refuses(self, site: Site) -> str | None:
        return refuses_but_counts(site)

    def behind(self, start: jax.Array) -> Params:
        return {"log_rate": jnp.log1p(start)}


@dataclass(frozen=True)
class GatedPositive(Gated):
    """A gate before a positive number, whose draws are pathwise."""

    support: ClassVar[Any] = dist.constraints.nonnegative
    estimators: ClassVar[tuple[str, ...]] = ("enumerate_gate", "score")

    def refuses(self, site: Site) -> str | None:
        if site.discrete or site.support not in ("positive", "nonnegative"):
            return f"its support is {site.support}, not the non-negative numbers"
        return None if site.gradients.not_pathwise else "its prior gives zero no probability of its own"
