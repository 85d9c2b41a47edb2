"""Summing a discrete site out of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi.estimators.base import Draw, Estimator, Facts, refuses_continuous_or_unlisted


@dataclass(frozen=True)
class Marginalize(Estimator):
    """log sum_k p(z = k, what is downstream): the site leaves the guide, and the bound gets tighter.

    Sites that share terms are summed out together, by variable elimination (`autovi/elimination`): those local to an
    element of a plate, parents outside of it, chains and trees, whose nodes may be sites or the elements of one site.
    Their posterior given the continuous sites is exact, and is drawn from jointly at the end. The objective is then the
    ELBO with z summed out, at least as large as any with a q(z). Refuses supports that cannot be listed, sites outside
    of a subsampled plate that has terms below them, elements of such a plate that a term mixes, and what would take too
    much memory.

    Other sites are summed out where the integral over them is known (`autovi/elimination/closed`): Poisson counts of
    which a binomial part is observed, and normal sites of which every term is a quadratic, as in a Kalman filter.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "marginalize"})
    """

    name: ClassVar[str] = "marginalize"
    marginalizes: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.closed is not None:
            return None
        return (facts.kept if facts.num_values is None else None) or refuses_continuous_or_unlisted(facts) or facts.kept

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        raise TypeError("marginalize: a site that is summed out is not in the guide")
