"""Exact enumeration of a finite support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.analysis.costs import to_term
from autovi.estimators.base import Branches, Draw, Estimator, Facts, Integrals, Terms, of_possible, refuses_to_list


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
        if facts.shared:
            return f"it shares a cost term with {', '.join(map(repr, facts.shared))}, summed out of the model"
        return refuses_to_list(facts)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=noise)))

    def integrate(self, branches: Branches) -> Integrals:
        def weighted(log_q: jax.Array, terms: Terms) -> dict[str, jax.Array]:
            def expected(name: str, term: jax.Array) -> jax.Array:
                weight = to_term(jnp.exp(log_q), branches.aligned[name], term.ndim, lead=0)
                never = to_term(jnp.isneginf(log_q), branches.aligned[name], term.ndim, lead=0)
                # A weight that has been rounded to zero, beside a term that is no number, is the user's to see.
                return weight * of_possible(term, jnp.where(never, 0, 1))

            return {n: expected(n, term) for n, term in terms.items()}

        return {name: (term, None) for name, term in branches.summed(weighted).items()}
