"""What a loss will still gain, and how well it is known: the numbers that end a fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autovi.numbers import number, with_error
from autovi.run.thresholds import THRESHOLDS

BATCH = 50  # steps whose mean is one number: most of the correlation between steps stays inside
MOST_POINTS = 16  # to which the means are gathered: longer batches as there are more steps
FEWEST_POINTS = 8
WINDOWS = (0.5, 0.75)  # the latest parts of the steps that are looked at
POWER = 0.5  # a loss under stochastic gradients falls at least as 1 / sqrt(step) (Shamir and Zhang, 2013)
SEEN = 2.0  # standard errors from which on a fall is seen
LUCK = 1.5  # standard errors by which an estimate may be off in one's favour
FALLS = 3.0  # standard errors from which on a straight line certainly falls
CLIPPED = 2.5  # robust standard deviations beyond which a residual counts as so many (Huber, 1964)


class Outlook(NamedTuple):
    """What is to be expected of a loss, in nats; arrays where several losses were given.

    Attributes:
        gain: how much it will still fall until the horizon.
        gain_se: the standard error of that.
        loss_se: the standard error of its mean over the window, rounding included.
        rounding: the part of it that is rounding.
        freedom: degrees of freedom of the standard errors.
    """

    gain: np.ndarray
    gain_se: np.ndarray
    loss_se: np.ndarray
    rounding: np.ndarray
    freedom: int

    def at_most(self, errors: float) -> np.ndarray:
        """The gain with so many standard errors added, made larger as a t distribution's quantiles are (the first term
        of their expansion in 1 / freedom)."""
        return self.gain + self._errors(errors) * self.gain_se

    def _errors(self, normal: float) -> float:
        return normal + (normal**3 + normal) / (4 * self.freedom)

    def little_left(self, errors: float) -> np.ndarray:
        """Is the loss known, and the gain certain to be negligible?"""
        return (self.at_most(errors) < THRESHOLDS.nats) & (self.loss_se < THRESHOLDS.nats)

    @property
    def certainly_falls(self) -> bool:
        """Is there a gain that counts, and that is no noise?"""
        return bool(self.gain > max(SEEN * self.gain_se, THRESHOLDS.nats))

    @property
    def certainly_rises(self) -> bool:
        """Does the loss rise, by more than noise? The steps are too long then."""
        return bool(-self.gain > max(float(FALLS * self.gain_se), THRESHOLDS.nats))

    def can_be_known(self, ahead: float) -> bool:
        """May a flat loss be seen to be flat once the fit has gone on for `ahead` times the steps so far? Errors shrink
        with the root of the steps; the horizon ends where it always ends, as many steps further on."""
        shrinks = (1.0 + ahead) ** -0.5
        span = (1.0 - 2.0**-POWER) / (1.0 - (1.0 + max(ahead, 1.0)) ** -POWER)
        unsure = self._errors(THRESHOLDS.errors_to_stop) - LUCK
        needed = max(unsure * self.gain_se * shrinks * span, np.hypot(self.loss_se * shrinks, self.rounding))
        return bool(needed < THRESHOLDS.nats)

    @property
    def said(self) -> str:
        """The gain in words."""
        gain, se = with_error(max(float(self.gain), 0.0), float(self.gain_se))
        gains = f"{gain} nats" if gain.strip("0.") else "nothing"
        known = number(float(self.loss_se))
        return f"going on would gain {gains} (standard error {se}), and the loss is known to {known} nats"


def means(losses: np.ndarray) -> np.ndarray:
    """The means of `BATCH` steps each, `(..., steps)` -> `(..., batches)`; the oldest steps that fill none are left
    out."""
    losses = np.asarray(losses, np.float64)
    count = losses.shape[-1] // BATCH
    return losses[..., losses.shape[-1] - count * BATCH :].reshape(*losses.shape[:-1], count, BATCH).mean(axis=-1)


def outlooks(batches: np.ndarray, horizon: float, eps: float = 0.0) -> list[Outlook]:
    r"""What is to be expected, by the latest half of the steps and by three quarters of them.

    A line is fitted to the means, as a function of :math:`t^{-1/2}` with t the steps since the first, and followed to
    the horizon: :math:`L(t) = L_\infty + c\,t^{-1/2}`. That is the slowest rate of a convex loss, so what is faster
    gains less than predicted. Where a straight line fits the means better, and certainly falls, the loss does not slow
    down, and that line is followed. The short window forgets the beginning sooner; the long one is less noisy. Either
    may be relied on. Residuals are clipped (Huber), so that a few wild steps do not move the line.

    Welandawe et al. (2024), "A framework for improving the reliability of black-box variational inference", end a fit
    by a predicted gain too, from a power law over learning rates.

    Args:
        batches: means of `BATCH` steps each since the level began, `(..., batches)`.
        horizon: how many times the steps so far the fit may still go on; at least as many again are looked at.
        eps: the rounding of the losses, relative: what float32 does not hold is not known.
    """
    found = []
    for part in WINDOWS:
        window = int(batches.shape[-1] * part)
        if window >= FEWEST_POINTS:
            found.append(_outlook(batches, window, 1.0 + max(horizon, 1.0), eps))
    return found


def _outlook(batches: np.ndarray, window: int, end: float, eps: float) -> Outlook:
    points, times = _gathered(batches, window)
    freedom = points.shape[-1] - 2
    slope, slope_se, level, level_se = robust_line(times**-POWER, points)
    span = 1.0 - end**-POWER
    gain, gain_se = slope * span, slope_se * span
    slope, slope_se, _, straight_se = robust_line(-times, points)
    straight = (straight_se < level_se) & (slope > FALLS * slope_se)
    gain = np.where(straight, slope * (end - 1.0), gain)
    gain_se = np.where(straight, slope_se * (end - 1.0), gain_se)
    rounding = np.abs(level) * eps / 2
    return Outlook(gain, gain_se, np.hypot(level_se, rounding), rounding, freedom)


def _gathered(batches: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_POINTS` means of equal length at the end of the window, and their times, of which now is 1."""
    length = -(-window // MOST_POINTS)
    count = window // length
    last = batches[..., batches.shape[-1] - count * length :]
    middles = batches.shape[-1] - length * (np.arange(count)[::-1] + 0.5)
    return last.reshape(*last.shape[:-1], count, length).mean(axis=-1), middles / batches.shape[-1]


def robust_line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slope and mean of a line through points `(..., n)` at x, each with its standard error, by Huber's regression with
    pseudo-values: outliers are moved to `CLIPPED` standard deviations (from the median absolute deviation)."""
    count = x.size
    design = np.stack([np.ones(count), x - x.mean()], axis=1)
    solve = np.linalg.pinv(design)
    # From the median on: a least-squares line is where a wild point pulls it, and no residual looks wild from there.
    fitted = np.broadcast_to(np.median(y, axis=-1, keepdims=True), y.shape)
    for _ in range(6):
        off = y - fitted
        spread = np.median(np.abs(off - np.median(off, axis=-1, keepdims=True)), axis=-1, keepdims=True)
        limit = CLIPPED * 1.4826 * np.sqrt(count / (count - 2)) * spread
        moved = fitted + np.clip(off, -limit, limit)
        fitted = (moved @ solve.T) @ design.T
    mean, slope = np.moveaxis(moved @ solve.T, -1, 0)
    # Each clipped residual is worth nothing to the line: the error grows by the part of them.
    kept = np.maximum((np.abs(off) <= limit).mean(axis=-1), 0.5)
    sd = np.sqrt(((moved - fitted) ** 2).sum(axis=-1) / (count - 2)) / kept
    return slope, sd * np.linalg.norm(solve[1]), mean, sd / np.sqrt(count)
