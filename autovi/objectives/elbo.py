"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from autovi.estimators.base import Estimator
from autovi.objectives.base import Objective, Scalar, Weights


@dataclass(frozen=True)
class Elbo(Objective):
    """E_q[log p(x, z) - log q(z)], the mean of the log weights.

    A lower bound of the log evidence, tight where q is the posterior. Being a mean of sums, it gives every site a cost
    of its own, and admits every estimator. Jordan, Ghahramani, Jaakkola and Saul (1999), "An Introduction to
    Variational Methods for Graphical Models".

    Example:
        >>> autovi.fit(model, data, objective="elbo")
    """

    name: ClassVar[str] = "elbo"
    local_costs: ClassVar[bool] = True

    def value(self, log_weights: Weights) -> Scalar:
        return jnp.mean(log_weights)

    def refuses(self, estimator: Estimator) -> str | None:
        return None
