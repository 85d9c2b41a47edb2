"""The importance-weighted bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.estimators.base import Estimator
from autovi.objectives.base import Objective, Scalar, Weights


@dataclass(frozen=True)
class Iwae(Objective):
    """E log(1/K sum_k w_k), w_k = p(x, z_k) / q(z_k): a tighter bound from all K particles of a step.

    Burda, Grosse and Salakhutdinov (2016), "Importance Weighted Autoencoders". The gradient through the draws weights
    the particles by w_k / sum w. Sites with the score function get VIMCO's signal, L - L_{-k}, where L_{-k} has the
    geometric mean of the other weights in the place of w_k: Mnih and Rezende (2016), "Variational Inference for Monte
    Carlo Objectives", equation 10. It holds a baseline of its own, so that one made of the other particles would be
    wrong on top of it, as they are part of L.

    Example:
        >>> autovi.fit(model, data, objective="iwae", num_particles=10)
    """

    name: ClassVar[str] = "iwae"
    local_costs: ClassVar[bool] = False

    def value(self, log_weights: Weights) -> Scalar:
        return jax.nn.logsumexp(log_weights) - jnp.log(log_weights.shape[0])

    def signal(self, log_weights: Weights) -> Weights:
        count = log_weights.shape[0]
        others = (jnp.sum(log_weights) - log_weights) / (count - 1)
        # Row k has the geometric mean of the others in the place of particle k.
        without = jnp.where(jnp.eye(count, dtype=bool), others[:, None], log_weights[None, :])
        kept = jax.nn.logsumexp(without, axis=1) - jnp.log(count)
        # The scores add up over particles, and estimators take a mean.
        return count * (self.value(log_weights) - kept)

    def refuses(self, estimator: Estimator) -> str | None:
        if estimator.integrates and not estimator.marginalizes:
            return "the expectation of a weighted mean over one site's values is not the mean of its terms"
        if estimator.held:
            return "the part of the gradient that it leaves out has mean zero, but not weighted by the particles"
        if estimator.corrected:
            return "its correction needs a cost of the site's own, which a weighted mean of particles does not give"
        if estimator.has_surrogate and estimator.local_costs:
            return "it needs a cost of the site's own; {'estimator': 'score', 'baseline': 'none'} gets VIMCO's signal"
        return None

    @property
    def min_particles(self) -> int:
        return 2
