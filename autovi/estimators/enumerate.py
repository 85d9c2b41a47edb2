"""Exact enumeration of a finite support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.analysis.costs import to_term
from autovi.estimators.base import Branches, Draw, Estimator, Facts, Integrals, refuses_to_list


@dataclass(frozen=True)
class Enumerate(Estimator):
    """d/dtheta sum_k q(k; theta) f(k): no noise from this site.

    All elements of a plated site are set to the same value at once, so K evaluations serve any number of elements.
    Each term downstream is replaced by its expectation, which also removes this site's noise from the gradients of all
    others (Rao-Blackwellization). A term that a second enumerated site shares keeps its sampled value for the others.
    Unbiased; K evaluations of what is downstream. Refuses continuous sites, supports that cannot be listed or are
    longer than 1024, and sites whose elements' costs cannot be told apart.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "enumerate"})
    """

    name: ClassVar[str] = "enumerate"
    integrates: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return refuses_to_list(facts)

    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=rng_key)))

    def integrate(self, branches: Branches) -> Integrals:
        assert branches.log_q is not None
        weights = jnp.exp(branches.log_q)
        out: Integrals = {}
        for name, term in branches.terms.items():
            weight = to_term(weights, branches.aligned[name], term.ndim - 2, lead=2)
            out[name] = jnp.sum(weight * term, axis=0), None
        return out
