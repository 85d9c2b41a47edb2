"""The score-function estimator with baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.baselines import BASELINES
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar


@dataclass(frozen=True)
class Score(Estimator):
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

    baseline: str = "leave_one_out"

    name: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise ValueError(f"unknown baseline {self.baseline!r}; expected one of {sorted(BASELINES)}")

    @property
    def baseline_name(self) -> str | None:
        return self.baseline

    @property
    def min_particles(self) -> int:
        return BASELINES[self.baseline].min_particles

    def refuses(self, facts: Facts) -> str | None:
        gradients = facts.gradients
        if gradients.moving_support:
            moving = ", ".join(gradients.moving_support)
            return f"its support depends on its parameter {moving}, and the score misses what the moving edge does"
        if gradients.observation_only:
            return "its log density is not that of its draws"
        return None

    def init(self, shape: tuple[int, ...]) -> Any:
        return BASELINES[self.baseline].init(shape)

    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=rng_key)))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        baseline, loss = BASELINES[self.baseline].value(cost.value, params)
        signal = jax.lax.stop_gradient(cost.value - baseline)
        log_q = q.log_prob(draw.value)
        return jnp.sum(log_q * signal) / log_q.shape[0], loss
