"""Hurdle and zero-inflated distributions: the gate exactly, what is behind it with a draw of its own."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions import registry
from autovi.distributions.densities import log_density
from autovi.estimators.base import Facts
from autovi.estimators.parts import ByParts, Parts, stop

INFLATED = ("ZeroInflatedLogits", "ZeroInflatedPoisson", "ZeroInflatedProbs")
HURDLES = ("HurdleGamma", "HurdleLogNormal", "HurdleLogits", "HurdlePoisson", "HurdleProbs")


@dataclass(frozen=True)
class EnumerateGate(ByParts):
    """d/dtheta E f(z) = (f(0) - E f(x)) dg + (1 - g) d E f(x), g the gate and x a draw of what is behind it.

    The gate of a hurdle or zero-inflated distribution is gone through exactly. A continuous x is pathwise, so that all
    parameters have a gradient of little noise where neither a pathwise estimator (the gate makes a draw jump) nor
    enumeration serves; a count is scored with the mean of the other particles as baseline. Behind a hurdle a count is
    positive, behind a zero-inflated gate it may be 0 too. Two evaluations of what is downstream. The cost holds log q
    of the whole distribution; it may jump at 0, and nowhere else. Cragg (1971), "Some Statistical Models for Limited
    Dependent Variables", for the two parts; Ranganath, Gerrish and Blei (2014), section 3.1, for Rao-Blackwellization.

    Example:
        >>> autovi.fit(model, data, guide=guide, estimators={"z": "enumerate_gate"})
    """

    name: ClassVar[str] = "enumerate_gate"
    classes: ClassVar[tuple[str, ...]] = HURDLES + INFLATED

    def refuses(self, facts: Facts) -> str | None:
        reason = super().refuses(facts)
        if reason is None and facts.event_shape:
            return (
                "each number needs a cost of its own, and those of an event share one; put the site in a plate in "
                "place of to_event"
            )
        return reason

    def parts(self, noise: jax.Array, q: Distribution) -> tuple[Parts, ...]:
        gated: Any = registry.strip(q)
        gate = jnp.broadcast_to(gated.gate, q.batch_shape)[None]
        base = gated.base_dist.expand(q.batch_shape)
        if registry.is_discrete(gated):
            behind = _open(gated).expand(q.batch_shape) if isinstance(gated, dist.HurdleProbs) else base
            value = stop(registry.drawn(noise, behind))
            part = Parts(1 - gate, value[None], log_density(behind, value)[None])
        else:
            value = implicit.sample(noise, base)
            part = Parts(1 - gate, value[None])
        return Parts(gate, jnp.zeros_like(value)[None]), part


def _open(hurdle: Any) -> Any:
    """The same distribution with a gate that is always open: positive counts."""
    behind = copy(hurdle)
    behind.gate = jnp.zeros_like(hurdle.gate)
    if isinstance(hurdle, dist.HurdleLogits):
        behind.gate_logits = jnp.full_like(hurdle.gate_logits, -jnp.inf)
    return behind
