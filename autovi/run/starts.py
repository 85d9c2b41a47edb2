"""What several starts of a fit found: the modes of the posterior, and whether restarts agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.scipy.special import ndtri


class Mode(NamedTuple):
    """A mode of the posterior on the unconstrained scale.

    Attributes:
        log_density: log p(x, u) at it, in nats.
        log_weight: log of its mass by Laplace's approximation, log p + d/2 log 2 pi - 1/2 log det H, in nats.
        starts: how many starts ended there.
    """

    log_density: float
    log_weight: float
    starts: int


class Modes(NamedTuple):
    """What the starts found. The first mode is the one that is fitted.

    Attributes:
        found: different modes.
        failed: how many starts ended at none.
        unbounded: of these, where the log density grew without bound.
    """

    found: tuple[Mode, ...]
    failed: int = 0
    unbounded: int = 0

    @property
    def share(self) -> float:
        """The fitted mode's part of the mass of all, by Laplace's approximation; NaN where it has no mass."""
        logs = np.array([mode.log_weight for mode in self.found], np.float64)
        if not logs.size or not np.isfinite(logs[0]):
            return float("nan")
        known = logs[np.isfinite(logs)]
        return float(np.exp(logs[0] - known.max()) / np.exp(known - known.max()).sum())


class Agreement(NamedTuple):
    """How far restarts agree: the largest R-hat of all scalars, and whose it is."""

    rhat: float
    name: str
    restarts: int


def modes_of(saved: Any) -> Modes | None:
    """The inverse of what JSON makes of `Modes`."""
    return None if saved is None else Modes(tuple(Mode(*mode) for mode in saved[0]), *saved[1:])


def agreement_of(saved: Any) -> Agreement | None:
    """The inverse of what JSON makes of an `Agreement`."""
    return None if saved is None else Agreement(*saved)


def rhat_of_moments(means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    r"""R-hat of restarts by the means and standard deviations that each found, `(restarts, ...)` -> `(...)`.

    :math:`\sqrt{1 + B / W}`, B the variance of the means between restarts, W the mean of the variances within: what
    Gelman and Rubin (1992) do with chains, of infinite length. 1 where all agree; restarts whose means have a standard
    deviation of 0.14 posterior standard deviations have 1.01. Infinite where the means differ and there is no spread.

    Example:
        >>> rhat_of_moments(np.array([0.0, 1.0]), np.array([1.0, 1.0])).round(3)
        np.float64(1.225)
    """
    between = np.var(np.asarray(means, np.float64), axis=0, ddof=1)
    within = np.mean(np.asarray(sds, np.float64) ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between > 0, np.sqrt(1 + between / within), 1.0)


def rhat(draws: np.ndarray) -> np.ndarray:
    """R-hat of restarts by their draws, `(restarts, draws, ...)` -> `(...)`, the larger one of place and of spread.

    Draws are replaced by the normal quantiles of their ranks, so that heavy tails do no harm, and so are their
    distances from the median, which tells restarts of equal means and unequal spread (Vehtari et al., 2021,
    "Rank-normalization, folding, and localization: an improved R-hat"). Draws are independent, so none are split.
    """
    draws = np.asarray(draws, np.float64)
    folded = np.abs(draws - np.median(draws, axis=(0, 1)))
    return np.maximum(*(_of_chains(_normal_scores(x)) for x in (draws, folded)))


def agreement(draws: Sequence[Mapping[str, np.ndarray]]) -> Agreement:
    """How far the draws of several restarts agree, by variable, as `Fit.sample` gives them.

    Example:
        >>> twice = [{"mu": np.arange(100.0)}, {"mu": np.arange(100.0)}]
        >>> agreement(twice).name
        'mu'
    """
    worst = Agreement(1.0, "", len(draws))
    for name in draws[0]:
        found = rhat(np.stack([one[name] for one in draws]))
        at = np.unravel_index(np.argmax(found), found.shape)
        if not worst.name or found[at] > worst.rhat:
            label = f"{name}[{', '.join(map(str, at))}]" if at else name
            worst = Agreement(float(found[at]), label, len(draws))
    return worst


def _of_chains(draws: np.ndarray) -> np.ndarray:
    number = draws.shape[1]
    between, within = np.var(draws.mean(axis=1), axis=0, ddof=1), np.var(draws, axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between > 0, np.sqrt((number - 1) / number + between / within), 1.0)


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks among all draws, ties at their mean rank."""
    flat = draws.reshape(draws.shape[0] * draws.shape[1], -1)
    ranks = np.empty_like(flat)
    for column in range(flat.shape[1]):
        _, place, count = np.unique(flat[:, column], return_inverse=True, return_counts=True)
        last = np.cumsum(count)
        ranks[:, column] = (last - (count - 1) / 2)[place.ravel()]
    scores = np.asarray(ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4)), np.float64)
    return scores.reshape(draws.shape)
