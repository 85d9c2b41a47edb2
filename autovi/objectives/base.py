"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float

from autovi.estimators.base import Estimator

Weights = Float[Array, " particles"]
Scalar = Float[Array, ""]


@dataclass(frozen=True)
class Objective(ABC):
    """What is maximized: a function of the particles' log weights log p(x, z) - log q(z), in nats.

    Where it is their mean, every site has a cost of its own, the terms downstream of it (`local_costs`). Where it is
    not, every site's score is multiplied by the same `signal`, and log q of a draw at a fixed value is no mere noise.
    """

    name: ClassVar[str]
    local_costs: ClassVar[bool]
    counted: ClassVar[str] = "num_particles"  # the argument that says how many particles there are

    @abstractmethod
    def value(self, log_weights: Weights) -> Scalar:
        """The estimate of the objective from one set of particles, differentiable in the log weights."""

    @abstractmethod
    def refuses(self, estimator: Estimator) -> str | None:
        """Why the estimator would be wrong under this objective: None when it is right."""

    def signal(self, log_weights: Weights) -> Weights:
        """What the score of each particle is multiplied by, for a mean over particles; without local costs only."""
        raise TypeError(f"{type(self).__name__}: it has local costs")

    def taken(self, estimator: Estimator, num_particles: int | None) -> Estimator:
        """What the rules take for an estimator with its default options, of which nobody has said anything."""
        return estimator

    @property
    def min_particles(self) -> int:
        """The number of particles below which it cannot work."""
        return 1
