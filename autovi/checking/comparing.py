"""From the moments of two estimators' gradients to a row of the audit, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autovi.checking.moments import Moments
from autovi.checking.references import label
from autovi.checking.report import KNOWN, GradientRow
from autovi.checking.sampling import Array
from autovi.estimators import Estimator
from autovi.numbers import how_many, number
from autovi.plan.plan import Block

# What may be rounding in a difference of means: so many units in the last place of the gradient, and of the cost, which
# the terms of a gradient are as large as.
ULPS_OF_GRADIENT, ULPS_OF_COST = 256, 8
SURE = 2.0  # standard errors beyond the threshold at which a bias shows in 98 of 100 tables


@dataclass
class Comparison:
    """An estimator at a block beside the one that checks it."""

    block: Block
    arrays: list[Array]
    estimator: Estimator
    reference: Estimator | None
    planned: bool
    own: Moments = field(default_factory=Moments)
    other: Moments = field(default_factory=Moments)
    paired: Moments = field(default_factory=Moments)
    cost: float = 0.0  # the largest |objective| of a step
    dtype: Any = np.float32

    @property
    def columns(self) -> np.ndarray:
        """The numbers that are compared, by their place in a row of estimates."""
        return np.concatenate([np.arange(a.start, a.stop) for a in self.arrays] or [np.zeros(0, int)])

    @property
    def against(self) -> str:
        """The reference as a table shows it."""
        return "" if self.reference is None else label(self.reference)

    @property
    def num_tests(self) -> int:
        """How many numbers are compared."""
        return 0 if self.reference is None else sum(a.stop - a.start for a in self.arrays)

    def add(self, own: np.ndarray, other: np.ndarray | None, cost: np.ndarray) -> None:
        """Takes in a batch of estimates, and those of the reference, drawn from the same keys."""
        self.dtype, columns = own.dtype, self.columns
        finite = cost[np.isfinite(cost)]
        self.cost = max(self.cost, float(np.max(np.abs(finite), initial=0.0)))
        mine = own[:, columns].astype(np.float64)
        self.own.add(mine)
        if other is not None:
            theirs = other[:, columns].astype(np.float64)
            self.other.add(theirs)
            # Not finite, where either is.
            with np.errstate(invalid="ignore"):
                self.paired.add(mine - theirs)

    def places(self, array: Array) -> slice:
        """Where an array stands among the compared numbers."""
        before = 0
        for a in self.arrays:
            if a == array:
                return slice(before, before + a.stop - a.start)
            before += a.stop - a.start
        raise KeyError(array.name)

    def rounding(self, at: slice) -> np.ndarray:
        """What of a difference of means may be rounding."""
        eps = float(np.finfo(self.dtype).eps)
        sizes = [np.hypot(m.mean[at], np.sqrt(m.variance[at])) for m in (self.own, self.other) if m.count]
        size = float(np.max(sizes, initial=0))
        return np.asarray(eps * (ULPS_OF_GRADIENT * size + ULPS_OF_COST * self.cost))

    def detectable(self, at: slice, threshold: float) -> float:
        """The bias that would show, as a part of the gradient; infinite where that is zero, as far as is known."""
        se, other = self.paired.se[at], self.other
        size = float(np.sum(other.mean[at] ** 2)) - float(np.sum(other.variance[at])) / other.count
        error = (threshold + SURE) * float(np.linalg.norm(se)) + float(self.rounding(at)) * np.sqrt(se.size)
        return error / np.sqrt(size) if size > 0 else (0.0 if error <= 2 * float(self.rounding(at)) else np.inf)


def rows_of(comparison: Comparison, threshold: float, seconds: float) -> list[GradientRow]:
    """A row for every array."""
    return [_row(comparison, array, threshold, seconds) for array in comparison.arrays]


def _row(c: Comparison, array: Array, threshold: float, seconds: float) -> GradientRow:
    at, compared = c.places(array), c.reference is not None
    variance = float(np.sum(c.own.variance[at]))
    squared = max(float(np.sum(c.own.mean[at] ** 2)) - variance / c.own.count, 0.0)
    z = c.paired.z(c.rounding(at))[at] if compared else np.zeros(1)
    verdict, why, worst = _verdict(c, at, threshold, z)
    return GradientRow(
        sites=c.block.sites,
        parameter=array.name,
        estimator=label(c.estimator),
        reference=c.against or None,
        planned=c.planned,
        mean=c.own.mean[at],
        reference_mean=c.other.mean[at] if compared else None,
        difference=c.paired.mean[at] if compared else None,
        se=c.paired.se[at] if compared else None,
        z=worst,
        detectable=c.detectable(at, threshold) if compared else None,
        variance=variance,
        reference_variance=float(np.sum(c.other.variance[at])) if compared else None,
        signal_to_noise=float(np.sqrt(squared / variance)) if variance > 0 else float("inf"),
        seconds=seconds,
        verdict=verdict,
        why=why,
    )


def _verdict(c: Comparison, at: slice, threshold: float, z: np.ndarray) -> tuple[str, str, float]:
    """The word, what else is to be said, and the z that counts."""
    bad = int(np.max(c.own.not_finite[at], initial=0))
    if bad:
        return "not_finite", f"of {how_many(c.own.count)} gradients {how_many(bad)} are NaN or infinite", float("nan")
    if c.reference is None:
        return "unchecked", "no other estimator is right here to compare it with", float("nan")
    if np.any(c.other.not_finite[at]):
        return "unchecked", f"gradients of {c.against}, to compare it with, are NaN or infinite", float("nan")
    heavy = c.paired.heavy[at] | _never_seen(c, at)
    tested = np.where(heavy, 0.0, z)
    worst = float(tested[np.argmax(np.abs(tested))])
    if abs(worst) > threshold:
        known = ", as a biased estimator may" if c.estimator.biased else ""
        return "biased", _how_biased(c, at) + known, worst
    if np.all(heavy):
        return "heavy_tails", "a few of the estimates outweigh all others; see `variance`", float("nan")
    left = f"the tails of {how_many(int(heavy.sum()))} of {how_many(heavy.size)} numbers are too heavy for a test"
    why = left if np.any(heavy) else ""
    detectable = c.detectable(at, threshold)
    if detectable <= KNOWN:
        return "agrees", why, worst
    return "not_known", "; ".join(filter(None, [_wanted(c, at, detectable, threshold), why])), worst


def _never_seen(c: Comparison, at: slice) -> np.ndarray:
    """The numbers in which neither has noise and one is always zero: what would show may be too rare."""
    still = (c.own.variance[at] == 0) & (c.other.variance[at] == 0)
    return still & ((c.own.mean[at] == 0) != (c.other.mean[at] == 0))


def _how_biased(c: Comparison, at: slice) -> str:
    """By how much, as a part of the gradient."""
    norm = lambda x: float(np.linalg.norm(x[at]))  # noqa: E731
    difference, se, size = norm(c.paired.mean), norm(c.paired.se), norm(c.other.mean)
    if size <= 3 * norm(c.other.se):
        return f"it differs from {c.against} by {number(difference)}, where the gradient is zero to {number(se)}"
    part, error = (f"{number(100 * x / size)} %" for x in (difference, se))
    return f"it differs from {c.against} by {part} of the gradient (standard error {error})"


def _wanted(c: Comparison, at: slice, detectable: float, threshold: float) -> str:
    """How far the comparison is from telling, and what would."""
    if not np.isfinite(detectable):
        error = (threshold + SURE) * float(np.max(c.paired.se[at]))
        return f"the gradient is zero as far as this tells: a bias of {number(error)} would have shown"
    more = c.own.count * (detectable / KNOWN) ** 2
    below = f"a bias below {number(100 * detectable)} % of the gradient would not show"
    return f"{below}; num_samples={number(more)} would tell"
