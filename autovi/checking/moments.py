"""Means, variances and tails of gradient estimates, and what they say of a difference of means."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

FALSE_ALARMS = 5e-4  # of so many tables, at most, one calls a right estimator biased
# Where one estimate alone has more than this part of all squared deviations, or the skewness of the mean is above this,
# a test of the mean says nothing. Under both, false alarms stay below `FALSE_ALARMS` also for tails without a variance.
HEAVY_PART, HEAVY_SKEW = 0.1, 0.2


def threshold(num_tests: int) -> float:
    """The |z| that one of so many right estimates exceeds in `FALSE_ALARMS` of all tables (Bonferroni).

    >>> round(threshold(1), 2), round(threshold(1000), 2)
    (3.48, 5.03)
    """
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / (2 * max(num_tests, 1)))


@dataclass
class Moments:
    """Sums over rows `[rows, size]` that come in batches, in double precision, about the median of the first batch."""

    count: int = 0
    centre: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: list[np.ndarray] = field(default_factory=list)  # of the first to third powers
    largest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    not_finite: np.ndarray = field(default_factory=lambda: np.zeros(0))  # rows that are not, left out

    def add(self, rows: Float[np.ndarray, "rows size"]) -> None:
        """Takes more rows in."""
        rows = np.asarray(rows, np.float64)
        finite = np.isfinite(rows)
        if not self.sums:
            size = rows.shape[1]
            known = [column[ok] if ok.any() else np.zeros(1) for column, ok in zip(rows.T, finite.T, strict=True)]
            self.centre = np.array([np.median(column) for column in known])
            self.sums = [np.zeros(size) for _ in range(3)]
            self.largest, self.not_finite = np.zeros(size), np.zeros(size)
        off = np.where(finite, rows - self.centre, 0.0)
        for power, total in enumerate(self.sums, 1):
            total += np.sum(off**power, axis=0)
        self.largest = np.maximum(self.largest, np.max(np.abs(off), axis=0))
        self.not_finite += np.sum(~finite, axis=0)
        self.count += len(rows)

    @property
    def mean(self) -> np.ndarray:
        """Of each column."""
        return self.centre + self.sums[0] / self.count

    @property
    def variance(self) -> np.ndarray:
        """Of each column's rows."""
        mean = self.sums[0] / self.count
        return np.maximum(self.sums[1] / self.count - mean**2, 0.0) * self.count / max(self.count - 1, 1)

    @property
    def se(self) -> np.ndarray:
        """The standard error of each mean."""
        return np.sqrt(self.variance / self.count)

    @property
    def skew(self) -> np.ndarray:
        """The skewness of each mean: that of the rows over the root of their number; 0 without variance."""
        first, second, third = (s / self.count for s in self.sums)
        central = third - 3 * first * second + 2 * first**3
        spread = np.maximum(second - first**2, 0.0) ** 1.5
        return np.divide(central, spread, out=np.zeros_like(central), where=spread > 0) / np.sqrt(self.count)

    @property
    def heavy(self) -> np.ndarray:
        """The columns whose tails are too heavy, or whose values too rare, for a test of the mean."""
        total = self.variance * self.count
        part = np.divide(self.largest**2, total, out=np.zeros_like(total), where=total > 0)
        return (part > HEAVY_PART) | (np.abs(self.skew) > HEAVY_SKEW)

    def z(self, rounding: np.ndarray) -> np.ndarray:
        """The mean of each column in standard errors, for a test of mean 0; what `rounding` explains does not count.

        Student's t of a skew distribution is skew itself, to the other side. Hall's transformation takes that out,
        where it would call a right mean wrong: t + a (t^2 / 3 + 1 / 6) + a^2 t^3 / 27, a the skewness of the mean.
        Hall (1992), "On the Removal of Skewness by Transformation".
        """
        beyond = np.sign(self.mean) * np.maximum(np.abs(self.mean) - rounding, 0.0)
        certain = np.where(beyond > 0, np.inf, np.where(beyond < 0, -np.inf, 0.0))
        t = np.divide(beyond, self.se, out=certain, where=self.se > 0)
        a, known = self.skew, np.where(np.isfinite(t), t, 0.0)
        transformed = known + a * (known**2 / 3 + 1 / 6) + a**2 * known**3 / 27
        smaller = np.sign(known) * np.clip(np.sign(known) * transformed, 0.0, np.abs(known))
        return np.where(np.isfinite(t), smaller, t)
