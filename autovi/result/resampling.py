"""Draws of the posterior out of draws of q, by their importance weights: when that helps, and how it is done."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import jax
import numpy as np

from autovi.numbers import how_many, number
from autovi.result.evidence import WEIGHED_NUMBERS, Evidence
from autovi.run.drawing import Keys, sequence_of_keys
from autovi.run.thresholds import THRESHOLDS
from autovi.run.weights import EQUAL, TIED, Weights, effective_size, weights_of

MAX_PROPOSALS = 100_000  # draws of q that are weighed for corrected ones, more only where more of those are asked for
MIN_PROPOSALS = 4_000  # of fewer the tail of the weights is not known
PROPOSALS_PER_DRAW = 4  # of equal weight: so few draws repeat
UNASKED_NUMBERS = 4_000_000_000  # that may be computed for them unasked: some seconds


class Advice(NamedTuple):
    """Whether draws are to be corrected, and why, in words."""

    resample: bool
    why: str


class Chosen(NamedTuple):
    """Draws of q that stand for draws of the posterior: their keys, of how many proposals they were chosen, what the
    weights of these say, and how many draws repeat an earlier one."""

    keys: Keys
    num_proposals: int
    weights: Weights
    num_repeated: int

    @property
    def said(self) -> str:
        """What was done, in words."""
        count, effective = len(self.keys.data), effective_size(self.weights.log)
        return (
            f"{how_many(count, 'draw')} resampled by importance from {self.num_proposals:,} of q, which stand for "
            f"{effective:,.0f} of the posterior; {self.num_repeated:,} of them repeated"
        )


class Unusable(ValueError):
    """The weights of the proposals cannot be used; the message says why."""


def proposals_limit(num_draws: int, numbers_per_draw: int, asked: bool) -> int:
    """How many draws of q may be weighed for so many corrected ones: 100,000, or four for each, unless that would take
    long: seconds unasked, half a minute where it is asked for, and then at least as many as are asked for."""
    most = max(MAX_PROPOSALS, PROPOSALS_PER_DRAW * num_draws)
    numbers = WEIGHED_NUMBERS if asked else UNASKED_NUMBERS
    return max(min(most, numbers // numbers_per_draw), num_draws if asked else 0)


def advice(evidence: Evidence, num_draws: int, numbers_per_draw: int, subsampled: bool) -> Advice:
    """The rule: draws are corrected where the weights are known, have a tail that can be trusted, and say that it
    makes a difference. What is cheap to know is looked at first."""
    if subsampled:
        return Advice(False, "drawn from q: the model is fitted on batches, and weights are of full plates")
    affordable = proposals_limit(num_draws, numbers_per_draw, asked=False) >= PROPOSALS_PER_DRAW * num_draws
    if not affordable or evidence.num_weighed < evidence.num_draws:
        return Advice(False, "drawn from q: to weigh draws over so much data takes long; resample=True asks for it")
    khat, efficiency, why = evidence.khat, evidence.efficiency, evidence.khat_why
    if why == EQUAL:
        return Advice(False, f"drawn from q: {why}, so there is nothing to correct")
    if np.isnan(khat) and why != TIED:
        return Advice(False, f"drawn from q: {why}")
    if khat >= THRESHOLDS.khat_usable:
        because = why or f"a k-hat of {number(khat)} is not below {THRESHOLDS.khat_usable}"
        return Advice(False, f"drawn from q: {because}, so weights would correct nothing")
    if efficiency >= THRESHOLDS.efficiency_alike:
        return Advice(False, f"drawn from q: its weights are all but equal (efficiency {efficiency:.2f})")
    return Advice(True, f"corrected by importance weights (efficiency {efficiency:.2f})")


def doubt(chosen: Chosen) -> str:
    """Why draws are not to be corrected after all, in words; empty where they are. Of many proposals k-hat is known
    better than of the draws of a fit, which understate it where q is too narrow to see how much."""
    khat = chosen.weights.khat
    if np.isnan(khat) or khat < THRESHOLDS.khat_usable:
        return ""
    return (
        f"drawn from q: a k-hat of {number(khat)}, of {chosen.num_proposals:,} draws, is not below "
        f"{THRESHOLDS.khat_usable}, so weights would correct nothing"
    )


def choose(
    weigh: Callable[[Keys], tuple[np.ndarray, np.ndarray]],
    rng_key: jax.Array,
    num_draws: int,
    efficiency: float,
    limit: int,
) -> Chosen:
    r"""Corrected draws by sampling importance resampling with Pareto smoothed weights.

    Draws of q are weighed until they stand for about four times as many draws of the posterior as are asked for (for no
    fewer than 2,000), by their effective size :math:`(\sum w)^2 / \sum w^2`, or `limit` of them are. Of these
    `num_draws` are chosen by systematic resampling, which takes a draw of weight w either floor(n w) or ceil(n w)
    times, n = `num_draws`, so that few repeat but those whose weight is more than one n-th; then they are shuffled.

    Rubin (1988), "Using the SIR algorithm to simulate posterior distributions"; Vehtari et al. (2024), "Pareto smoothed
    importance sampling"; Kitagawa (1996), for systematic resampling.

    Args:
        weigh: keys -> log p and log q of the draw of each.
        rng_key: the same key gives the same draws.
        num_draws: how many are chosen.
        efficiency: what is known of the weights before.
        limit: how many may be weighed.

    Raises:
        Unusable: a weight is NaN or infinite, or all are zero.
    """
    target = max(PROPOSALS_PER_DRAW * num_draws, MIN_PROPOSALS)
    size = ceil(min(limit, target / efficiency if efficiency > 0 else target))
    log_p, log_q = weigh(sequence_of_keys(rng_key, 0, size))
    # Half of what was aimed at is enough: the efficiency was an estimate.
    while effective_size((weights := _usable(log_p, log_q)).log) < target / 2 and size < limit:
        more = weigh(sequence_of_keys(rng_key, size, min(2 * size, limit)))
        log_p, log_q = np.concatenate([log_p, more[0]]), np.concatenate([log_q, more[1]])
        size = log_p.size
    # One key that no proposal has.
    own = jax.random.key_data(jax.random.fold_in(rng_key, limit))
    places = systematic(np.exp(weights.log), num_draws, np.random.default_rng(np.asarray(own).ravel()))
    chosen = sequence_of_keys(rng_key, 0, size).at(places)
    return Chosen(chosen, size, weights, num_draws - np.unique(places).size)


def _usable(log_p: np.ndarray, log_q: np.ndarray) -> Weights:
    weights = weights_of(log_p - log_q, log_p)
    if not weights.log.size:
        raise Unusable(weights.why)
    return weights


def systematic(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `count` draws chosen by weight, in random order, each taken floor or ceil of `count` times its share.

    Example:
        >>> sorted(systematic(np.array([1.0, 0.0, 3.0]), 4, np.random.default_rng(0)).tolist())
        [0, 2, 2, 2]
    """
    edges = np.cumsum(weights, dtype=np.float64)
    points = (rng.random() + np.arange(count)) / count * edges[-1]
    places = np.searchsorted(edges, points, side="right")
    last = int(np.flatnonzero(weights)[-1])  # rounding may put the last point on the last edge
    places = np.minimum(places, last)
    rng.shuffle(places)
    return places
