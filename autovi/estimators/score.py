"""The score-function estimator with baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from numpyro.distributions import Distribution

from autovi.estimators.base import Baselined, Cost, Density, Draw, Facts, Scalar


@dataclass(frozen=True)
class Score(Baselined):
    """d/dtheta E f(z) = E (f(z) - b) d/dtheta log q(z; theta), b the baseline.

    Needs no derivative of the cost and no differentiable draw, only a support that does not move with theta. The cost
    f holds the terms downstream of the site alone, element by element: log q, unscaled and unmasked, and f are
    `[particles, *batch]` (f of size 1 where elements cannot be told apart), and the surrogate is the sum over elements,
    mean over particles, of log q(z) stop(f - b). Unbiased for every baseline, since none holds the particle's own cost.
    Williams (1992), "Simple statistical gradient-following algorithms"; Ranganath, Gerrish and Blei (2014), "Black Box
    Variational Inference", section 3; Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE Samples, Get a Baseline for
    Free!", for leave-one-out.

    Args:
        baseline: "none", "moving_average" (of past costs) or "leave_one_out" (mean of the other particles).

    Raises:
        ValueError: an unknown baseline.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "score", "baseline": "moving_average"}})
    """

    name: ClassVar[str] = "score"
    num_particles: ClassVar[int] = 8

    def refuses(self, facts: Facts) -> str | None:
        gradients = facts.gradients
        if gradients.moving_support:
            moving = ", ".join(gradients.moving_support)
            return f"its support depends on its parameter {moving}, and the score misses what the moving edge does"
        if gradients.observation_only:
            return "its log density is not that of its draws"
        return None

    @property
    def local_costs(self) -> bool:
        return self.baseline == "leave_one_out"

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=noise)))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        return self.scored(q.log_prob(draw.value), cost, params)
