"""The expectation of a loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp

from autovi.estimators.base import Baselined, Estimator
from autovi.objectives.base import Objective, Scalar, Weights


@dataclass(frozen=True)
class Expectation(Objective):
    """-E loss(z), z drawn from the distributions that are differentiated: the objective of a `Loss`, with local costs.

    There is no posterior, so that no site can be summed out of it; `enumerate` sums over one. Schulman, Heess, Weber
    and Abbeel (2015), "Gradient Estimation Using Stochastic Computation Graphs".

    Example:
        >>> Expectation().value(jnp.array([-1.0, -3.0]))
        Array(-2., dtype=float32)
    """

    name: ClassVar[str] = "expectation"
    local_costs: ClassVar[bool] = True
    drawn_by: ClassVar[str] = "function"
    counted: ClassVar[str] = "num_samples"

    def value(self, log_weights: Weights) -> Scalar:
        return jnp.mean(log_weights)

    def taken(self, estimator: Estimator, num_particles: int | None) -> Estimator:
        # A baseline of one's past costs would need a state, which is there only where it is asked for.
        if isinstance(estimator, Baselined) and num_particles is not None and num_particles < estimator.min_particles:
            return replace(estimator, baseline="none")
        return estimator

    def refuses(self, estimator: Estimator) -> str | None:
        if estimator.marginalizes:
            return "an expected loss has no posterior to sum it out of; 'enumerate' sums over it"
        return None
