"""Summing a discrete site out of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.analysis.costs import to_site
from autovi.estimators.base import Branches, Draw, Estimator, Facts, Integrals, PerValue, Terms, refuses_to_list


@dataclass(frozen=True)
class Marginalize(Estimator):
    """log sum_k p(z = k, what is downstream): the site leaves the guide, and the bound gets tighter.

    Valid when everything downstream belongs to single elements of the site and no other discrete site shares it. The
    site's posterior given the others is exact, p(z = k | ...) = softmax_k of the downstream terms, and is drawn from at
    the end. The objective is then the ELBO with z summed out, at least as large as any with a q(z). Also refuses a site
    with a subsampled plate below it, and one that the guide draws another site from.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "marginalize"})
    """

    name: ClassVar[str] = "marginalize"
    integrates: ClassVar[bool] = True
    marginalizes: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.shared:
            return f"it shares a cost term with {', '.join(map(repr, facts.shared))}, also discrete"
        return refuses_to_list(facts) or facts.nested

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        raise TypeError("marginalize: a site that is summed out is not in the guide")

    def integrate(self, branches: Branches) -> Integrals:
        joint = log_joint(branches)
        total = jax.nn.logsumexp(joint, axis=0)
        if branches.counts is not None:
            total = jnp.where(branches.counts, total, 0.0)
        return {"marginal": (branches.scale * total, tuple(range(joint.ndim - 1)))}


def log_joint(branches: Branches) -> PerValue:
    """log p(z = k, downstream) `[K, *batch]`, without the plate scale, which stands outside the sum."""

    def total(log_q: None, terms: Terms) -> jax.Array:
        return jnp.asarray(sum(to_site(term, branches.aligned[n], lead=0) for n, term in terms.items()))

    return branches.stacked(total) / branches.scale


def log_conditional(branches: Branches) -> PerValue:
    """log p(z = k | everything else) `[K, *batch]`."""
    return jax.nn.log_softmax(log_joint(branches), axis=0)
