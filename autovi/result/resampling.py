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
from autovi.run.weights import CONCENTRATED, EQUAL, TIED, Weights, effective_size, pareto_k_se, weights_of

MAX_PROPOSALS = 100_000  # draws of q that are weighed for corrected ones, more only where more of those are asked for
MIN_PROPOSALS = 4_000  # of fewer the tail of the weights is not known
PROPOSALS_PER_DRAW = 4  # of equal weight: so few draws repeat
UNASKED_NUMBERS = 4_000_000_000  # that may be computed for them unasked: some seconds


class Densities(NamedTuple):
    """Log densities of draws: of the model, of q, and of the proposals, which may be wider than q."""

    log_p: np.ndarray
    log_q: np.ndarray
    log_proposal: np.ndarray


class Advice(NamedTuple):
    """Whether draws are to be corrected, and why, in words."""

    resample: bool
    why: str


class Chosen(NamedTuple):
    """Draws that stand for draws of the posterior: their keys, of how many proposals they were chosen, what the weights
    of these say, how many draws repeat an earlier one, and KL(posterior, q) in nats, as the proposals see it."""

    keys: Keys
    num_proposals: int
    weights: Weights
    num_repeated: int
    divergence: float = 0.0

    @property
    def said(self) -> str:
        """What was done, in words."""
        wider = " and wider than q" if self.keys.widened else ""
        return (
            f"{how_many(len(self.keys.data), 'draw')} resampled by importance from {self.num_proposals:,} of q{wider}, "
            f"which stand for {self.effective:,.0f} of the posterior; {self.num_repeated:,} of them repeated"
        )

    @property
    def effective(self) -> float:
        """For how many draws of the posterior the proposals stand."""
        return effective_size(self.weights.log)


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
    # Of so few draws k-hat is known to its standard error only: in doubt the proposals decide (`doubt`).
    if khat - np.nan_to_num(pareto_k_se(khat, evidence.num_weighed)) >= THRESHOLDS.khat_usable:
        because = why or f"a k-hat of {number(khat)} is not below {THRESHOLDS.khat_usable}"
        return Advice(False, f"drawn from q: {because}, so weights would correct nothing")
    # 1 - efficiency is about the variance of log w, twice the KL: the mean of q is off by its root at most, in sds, and
    # that of so many draws by 1 / sqrt(n) whatever they are from.
    if 1 - efficiency <= 1 / num_draws:
        return Advice(False, f"drawn from q: its weights are all but equal (efficiency {efficiency:.2f})")
    return Advice(True, f"corrected by importance weights (efficiency {efficiency:.2f})")


def doubt(chosen: Chosen) -> str:
    """Why draws are not to be corrected after all, in words; empty where they are. Of many proposals k-hat is known
    better than of the draws of a fit, which understate it where q is too narrow to see how much."""
    khat, limit = chosen.weights.khat, THRESHOLDS.khat_usable
    if np.isnan(khat) or khat < limit:
        return ""
    return (
        f"drawn from q: a k-hat of {number(khat)}, of {chosen.num_proposals:,} draws, is not below {limit}, so "
        "weights would correct nothing"
    )


def wants_wider(evidence: Evidence, proposed: Chosen | None, num_draws: int, numbers_per_draw: int) -> bool:
    """Are proposals wider than q to be weighed too? Where the weights of q's own draws have no variance: either q is
    narrower than the posterior somewhere, and what of it q all but never draws no weight brings back, or k-hat is the
    shape of what noise is left in weights that are alike. The wider ones tell."""
    affordable = proposals_limit(num_draws, numbers_per_draw, asked=False) >= PROPOSALS_PER_DRAW * num_draws
    if not affordable or evidence.num_weighed < evidence.num_draws or evidence.khat_why not in ("", CONCENTRATED):
        return False
    return (evidence.khat if proposed is None else proposed.weights.khat) >= THRESHOLDS.khat_good


def is_better(wider: Chosen, own: Chosen | None, efficiency: float) -> bool:
    """Are draws chosen from proposals wider than q nearer to the posterior than those chosen from q, if these can be
    used at all? `efficiency` is that of q's own draws."""
    enough = wider.effective >= THRESHOLDS.effective_draws
    usable = wider.weights.khat < THRESHOLDS.khat_usable
    better = own is None or bool(doubt(own)) or wider.weights.khat < own.weights.khat
    return not THRESHOLDS.are_alike(efficiency, wider.divergence) and enough and usable and better


def choose(
    weigh: Callable[[Keys], Densities],
    rng_key: jax.Array,
    num_draws: int,
    efficiency: float,
    limit: int,
    widened: bool = False,
) -> Chosen:
    r"""Corrected draws by sampling importance resampling with Pareto smoothed weights.

    Draws of q are weighed until they stand for about four times as many draws of the posterior as are asked for (for no
    fewer than 2,000), by their effective size :math:`(\sum w)^2 / \sum w^2`, or `limit` of them are. Of these
    `num_draws` are chosen by systematic resampling, which takes a draw of weight w either floor(n w) or ceil(n w)
    times, n = `num_draws`, so that few repeat but those whose weight is more than one n-th; then they are shuffled.

    Rubin (1988), "Using the SIR algorithm to simulate posterior distributions"; Vehtari et al. (2024), "Pareto smoothed
    importance sampling"; Kitagawa (1996), for systematic resampling.

    Args:
        weigh: keys -> the log densities of the draw of each.
        rng_key: the same key gives the same draws.
        num_draws: how many are chosen.
        efficiency: what is known of the weights before.
        limit: how many may be weighed.
        widened: are the proposals wider than q?

    Raises:
        Unusable: a weight is NaN or infinite, or all are zero.
    """
    target = max(PROPOSALS_PER_DRAW * num_draws, MIN_PROPOSALS)
    size = ceil(min(limit, target / efficiency if efficiency > 0 else target))
    seen = weigh(sequence_of_keys(rng_key, 0, size, widened))
    # Half of what was aimed at is enough: the efficiency was an estimate.
    while effective_size((weights := _usable(seen)).log) < target / 2 and size < limit:
        more = weigh(sequence_of_keys(rng_key, size, min(2 * size, limit), widened))
        seen = Densities(*(np.concatenate(pair) for pair in zip(seen, more, strict=True)))
        size = seen.log_p.size
    # One key that no proposal has.
    own = jax.random.key_data(jax.random.fold_in(rng_key, limit))
    places = systematic(np.exp(weights.log), num_draws, np.random.default_rng(np.asarray(own).ravel()))
    chosen = sequence_of_keys(rng_key, 0, size, widened).at(places)
    return Chosen(chosen, size, weights, num_draws - np.unique(places).size, _divergence(seen, weights))


def _usable(seen: Densities) -> Weights:
    weights = weights_of(seen.log_p - seen.log_proposal, seen.log_p)
    if not weights.log.size:
        raise Unusable(weights.why)
    return weights


def _divergence(seen: Densities, weights: Weights) -> float:
    """KL(posterior, q): the weighted mean of log p / q, less the log of the evidence that the weights estimate."""
    log_p = np.asarray(seen.log_p, np.float64)
    drawn = np.isfinite(weights.log)
    evidence = np.logaddexp.reduce(log_p - seen.log_proposal) - np.log(log_p.size)
    return float(np.sum(np.exp(weights.log[drawn]) * (log_p - seen.log_q)[drawn]) - evidence)


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
