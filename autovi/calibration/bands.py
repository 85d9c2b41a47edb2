r"""Simultaneous bands of the empirical distribution function of uniform numbers, exact.

Of N independent uniform numbers the counts :math:`C_i` below the points :math:`z_i = i / K` are those of a Poisson
process of rate N on [0, 1], given that it has N points in all. So the probability that all :math:`C_i` lie in intervals
is a chain of convolutions with Poisson weights, each cut to its interval.

Säilynoja, Bürkner and Vehtari (2022), "Graphical test for discrete uniformity and its applications in goodness-of-fit
evaluation and multiple sample comparison", whose band has binomial intervals of one probability at all points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

MAX_POINTS = 100  # at which the distribution function is looked at
HALVINGS = 40  # of the interval in which the probability of a band's points is searched


class Band(NamedTuple):
    """Where the empirical distribution function of uniform numbers stays with a given probability, at all `points`
    together: between `lower` and `upper`, both `(num_points,)`."""

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def points_of(count: int) -> np.ndarray:
    """The points at which the distribution function of so many numbers is looked at, without 0 and 1."""
    num = min(count, MAX_POINTS)
    return np.arange(1, num) / num if num > 1 else np.array([0.5])


def counts_below(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How many of the values are at most each point."""
    return np.searchsorted(np.sort(values), points, side="right")


def band(count: int, probability: float) -> Band:
    """The narrowest band, with equal pointwise probabilities, in which the empirical distribution function of `count`
    uniform numbers stays with at least this probability.

    Example:
        >>> found = band(1000, 0.95)
        >>> float(found.upper.max() - found.points[found.upper.argmax()]) < 0.05
        True
    """
    points = points_of(count)
    tails = _tails(count, points)
    low, high = 0.0, 1.0  # tails: with none cut off every path stays inside, with all of them none does
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = probability_inside(count, points, *_intervals(tails, middle)) >= probability
        low, high = (middle, high) if inside else (low, middle)
    lower, upper = _intervals(tails, low)
    return Band(points, lower / count, upper / count)


def p_value(values: np.ndarray) -> float:
    """The probability that uniform numbers leave the middle of their pointwise distributions as far as these do, at the
    point where these do most: the test of which `band` is the picture. Exact.

    Args:
        values: numbers in [0, 1], `(num_values,)`, at least one.

    Example:
        >>> p_value(np.full(100, 0.5)) < 1e-6
        True
    """
    count, points = len(values), points_of(len(values))
    below = counts_below(values, points)
    tails = _tails(count, points)
    lower, upper = _intervals(tails, float(tails[below, np.arange(len(points))].min()))
    return float(np.clip(1.0 - probability_inside(count, points, lower, upper), 0.0, 1.0))


def probability_inside(count: int, points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The probability that of `count` uniform numbers between `lower` and `upper` are at most each point."""
    if np.any(lower > upper):
        return 0.0
    logs = special.gammaln(np.arange(count + 1) + 1.0)
    start, inside, before = 0, np.ones(1), 0.0
    for point, low, high in zip([*points, 1.0], [*lower, count], [*upper, count], strict=True):
        low, rate = max(low, start), count * (point - before)
        if high < low:
            return 0.0
        steps = np.arange(high - start + 1)
        moved = np.convolve(inside, np.exp(steps * np.log(rate) - rate - logs[steps]))
        start, inside, before = low, moved[low - start : high - start + 1], point
    total = np.exp(count * np.log(count) - count - logs[count])  # that the process has so many points
    return float(inside[-1] / total)


def _tails(count: int, points: np.ndarray) -> np.ndarray:
    """The smaller of the probabilities of so many or fewer, and of so many or more, at each point:
    `(count + 1, num_points)`."""
    every = np.arange(count + 1)[:, None]
    at_least = np.ones((count + 1, len(points)))
    at_least[1:] = special.bdtrc(every[:-1], count, points)  # of more than k
    return np.minimum(special.bdtr(every, count, points), at_least)


def _intervals(tails: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest count at each point whose tails are larger than `tail`; where none is, an interval that
    is empty."""
    kept = tails > tail * (1 + 1e-9)  # one that equals it up to rounding is not larger
    count = len(tails) - 1
    some = kept.any(axis=0)
    return np.where(some, kept.argmax(axis=0), count + 1), np.where(some, count - kept[::-1].argmax(axis=0), -1)
