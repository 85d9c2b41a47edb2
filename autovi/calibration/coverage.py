"""How often central intervals hold the truth, and how far posterior means are from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)


class Coverage(NamedTuple):
    """The share of simulations in which the central interval of probability `level` held the truth, with the binomial
    standard error that it has where the posteriors are right."""

    level: float
    share: float
    se: float


class Bias(NamedTuple):
    """The mean over simulations of (posterior mean - truth) / posterior sd, with its standard error."""

    mean: float
    se: float


def coverages(u: np.ndarray) -> tuple[Coverage, ...]:
    """Of central intervals at `LEVELS`. An interval holds the truth where its fractional rank is between the interval's
    ends: with ties at an end the truth counts in part, so that right posteriors cover exactly."""
    count = len(u)
    share = lambda level: float(np.mean(np.abs(u - 0.5) <= level / 2)) if count else float("nan")  # noqa: E731
    error = lambda level: float(np.sqrt(level * (1 - level) / count)) if count else float("nan")  # noqa: E731
    return tuple(Coverage(level, share(level), error(level)) for level in LEVELS)


def bias(truths: np.ndarray, means: np.ndarray, sds: np.ndarray) -> Bias:
    """In posterior standard deviations, over the simulations whose draws are not all equal; NaN where there are none.

    All arrays are `(num_simulations,)`.
    """
    used = (sds > 0) & np.isfinite(truths) & np.isfinite(means) & np.isfinite(sds)
    if not used.any():
        return Bias(float("nan"), float("nan"))
    scores = (means[used] - truths[used]) / sds[used]
    return Bias(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(used.sum())) if used.sum() > 1 else np.nan)
