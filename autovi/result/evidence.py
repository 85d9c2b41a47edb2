"""What the draws of q say of it: ELBO, k-hat and efficiency, from as many draws as do not take minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autovi.result.diagnostics import Elbo, elbo_of
from autovi.run.weights import MIN_DRAWS_FOR_K, Weights, weights_of

WEIGHED_NUMBERS = 20_000_000_000  # that may be computed for the weights of draws: about half a minute of them


def num_weighed(num_draws: int, numbers_per_draw: int, subsampled: bool) -> int:
    """How many draws are weighed at full plates. Those that may be can be too few for k-hat: then none, or, where there
    are no batches to turn to, as many as k-hat needs."""
    few = WEIGHED_NUMBERS // numbers_per_draw
    if few < MIN_DRAWS_FOR_K:
        few = 0 if subsampled else MIN_DRAWS_FOR_K
    return min(num_draws, few)


@dataclass
class Evidence:
    """What the draws of a fit say of it.

    Args:
        num_draws: how many there are.
        num_weighed: how many of them are weighed at full plates.
        weigh: number of draws -> log p(x, z) and log q(z) of the first ones.
        weigh_batches: log p(x, z) - log q(z) of all draws, each estimated on a batch of its own.
        batches: what a batch is, in words.
    """

    num_draws: int
    num_weighed: int
    weigh: Callable[[int], tuple[np.ndarray, np.ndarray]]
    weigh_batches: Callable[[], np.ndarray]
    batches: str

    @cached_property
    def densities(self) -> tuple[np.ndarray, np.ndarray]:
        """log p and log q of the draws that are weighed."""
        return self.weigh(self.num_weighed) if self.num_weighed else (np.zeros(0), np.zeros(0))

    @cached_property
    def log_weights(self) -> np.ndarray:
        """The log weights of the draws that are weighed."""
        log_p, log_q = self.densities
        return log_p - log_q

    @cached_property
    def weights(self) -> Weights:
        """What these say, and the weights smoothed."""
        return weights_of(self.log_weights, self.densities[0])

    @cached_property
    def elbo(self) -> Elbo:
        """The ELBO and its standard error, from batches where no draws are weighed."""
        return elbo_of(self.log_weights if self.num_weighed else self.weigh_batches())

    @cached_property
    def khat(self) -> float:
        """Pareto k of the weights; NaN where there are none."""
        return self.weights.khat if self.num_weighed else float("nan")

    @property
    def khat_why(self) -> str:
        """Why k-hat is NaN or infinite, in words; empty where it is a number."""
        return self.weights.why if self.num_weighed else "to weigh draws would take minutes"

    @property
    def efficiency(self) -> float:
        """(sum w)^2 / (n sum w^2) of the smoothed weights; NaN where there are none or they cannot be used."""
        return self.weights.efficiency if self.num_weighed else float("nan")

    @cached_property
    def log_weight_sd(self) -> float:
        """The standard deviation of the log weights, in nats; NaN of fewer than two, and where one is not finite."""
        logs = np.asarray(self.log_weights, np.float64)
        return float(logs.std(ddof=1)) if logs.size > 1 and np.isfinite(logs).all() else float("nan")

    @property
    def said(self) -> str:
        """What they are from, in words."""
        if self.num_weighed:
            return f"{self.num_weighed} draws at full plates"
        return f"{self.num_draws} draws on batches of {self.batches}; k-hat is not estimated"
