"""Importance weights p(x, z) / q(z) of draws: what they say of q, and how they are smoothed."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numpy as np

MIN_DRAWS_FOR_K = 30  # a fifth of the draws is the tail, and fewer than six points have no shape
# Of an exact q the log weights differ by rounding alone. In single precision, over sums of 1 to 30,000 terms of normal,
# binomial and Poisson likelihoods, their standard deviation was 0.4 to 4 times eps * |log p|.
_NOISE_ULPS = 8
# Below the smallest normal number exp underflows: such weights are all zero to the fit.
_LOG_TINY = float(np.log(np.finfo(np.float64).tiny))
_PRIOR_COUNT = 10

TOO_FEW = f"fewer than {MIN_DRAWS_FOR_K} draws"
EQUAL = "weights equal to rounding"
TIED = "the largest weights are tied, so that they have no tail to fit"
UNUSABLE = "a weight is NaN or infinite"
ALL_ZERO = "all weights are zero"
CONCENTRATED = "a few draws carry all the weight"


class Weights(NamedTuple):
    """What the importance weights of draws say.

    Attributes:
        log: smoothed log weights, summing to one, `(num_draws,)`; the raw ones where there is no tail to smooth, empty
            where they cannot be used.
        khat: Pareto k, see `pareto_k`.
        why: of a k-hat that is NaN or infinite, the reason in words; otherwise empty.
    """

    log: np.ndarray
    khat: float
    why: str

    @property
    def efficiency(self) -> float:
        """(sum w)^2 / (n sum w^2): 1 of equal weights, 1 / n where one draw carries all; NaN of unusable ones."""
        return effective_size(self.log) / self.log.size if self.log.size else float("nan")


def weights_of(log_weights: Any, log_p: Any = None) -> Weights:
    """What weights say, Pareto smoothed where they have a tail that could be.

    Args:
        log_weights: log p(x, z) - log q(z), one per draw, any shape; `-inf` is a weight of zero. The dtype says how
            large rounding is: give float32 as float32.
        log_p: log p(x, z) of the same draws, whose size says how large rounding is; None: the size of the weights.

    Example:
        >>> weights_of(np.zeros(1000)).why
        'weights equal to rounding'
    """
    given = np.asarray(log_weights)
    logs = given.astype(np.float64).ravel()
    nan, inf, none = float("nan"), float("inf"), np.zeros(0)
    if np.isnan(logs).any() or np.isposinf(logs).any():
        return Weights(none, inf, UNUSABLE)
    if logs.size and np.isneginf(logs.max()):
        return Weights(none, *((nan, TOO_FEW) if logs.size < MIN_DRAWS_FOR_K else (inf, ALL_ZERO)))
    plain = _normalized(logs)
    if logs.size < MIN_DRAWS_FOR_K:
        return Weights(plain, nan, TOO_FEW)
    noise = _noise(given, given if log_p is None else np.asarray(log_p))
    if np.isfinite(logs).all() and logs.std() <= noise:
        return Weights(plain, nan, EQUAL)
    size = tail_size(logs.size)
    tail = np.maximum(np.sort(logs - logs.max())[-size:], _LOG_TINY)
    # The fit takes its scale from the tail's first quartile.
    if tail[int(size / 4 - 0.5)] - tail[0] <= noise:
        return Weights(plain, *((nan, TIED) if effective_size(plain) >= size else (inf, CONCENTRATED)))
    smoothed, k = _psis(logs - logs.max(), size)
    return Weights(smoothed, k, "") if np.isfinite(k) else Weights(plain, inf, CONCENTRATED)


def pareto_k(log_weights: Any, log_p: Any = None) -> float:
    r"""Shape :math:`\hat k` of the generalized Pareto tail of importance weights.

    Below 0.7 importance weighting works and the approximation is usable; above 1 the weights have no mean
    that draws could estimate. It is ArviZ's k-hat (0.x; that of 1.x differs by a few hundredths), computed here because
    to import ArviZ takes longer than many a fit.

    What ArviZ leaves undefined, or answers differently by version, is defined here, in this order:

    - a NaN or infinitely large weight: `inf` (the comparison with the posterior failed);
    - fewer than 30 draws: `nan` (too few to say);
    - all weights zero: `inf`;
    - weights whose standard deviation is rounding, 8 eps |log p|: `nan`, for what is fitted would be noise. So it is
      where q is the posterior;
    - a tail whose lowest quarter is equal weights (up to rounding), which has no shape to fit: `nan` if the
      effective sample size is at least the number of draws in the tail, about `3 sqrt(n)`, otherwise `inf`.
      Latent sites that are all discrete may give either;
    - a fit that fails: `inf`.

    Which it was is in `Weights.why`.

    Example:
        >>> round(pareto_k(np.random.default_rng(0).standard_exponential(1000)), 1)
        0.9
    """
    return weights_of(log_weights, log_p).khat


def pareto_k_se(khat: float, num_draws: int) -> float:
    """The standard error of `pareto_k` with so many draws, by the asymptotic variance (1 + k)^2 / n of the maximum
    likelihood estimate from n weights in the tail (Smith, 1985); NaN where k is not finite or below -1/2."""
    if not -0.5 < khat < float("inf"):
        return float("nan")
    return float((1 + khat) / tail_size(num_draws) ** 0.5)


def tail_size(num_draws: int) -> int:
    """How many of the largest weights are the tail that `pareto_k` is fitted to: `3 sqrt(n)`, at most a fifth."""
    return ceil(min(num_draws / 5, 3 * num_draws**0.5))


def effective_size(log_weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2, for how many draws of equal weight the weighted ones stand."""
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def _psis(log_weights: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Pareto smoothed log weights, and the shape of their tail: the largest are replaced by the expected order
    statistics of a generalized Pareto distribution fitted to them, none above the largest (Vehtari et al., 2024).

    `log_weights` are at most 0, the largest is 0. Weights that tie with the largest outside of the tail are not in it.
    """
    order = np.argsort(log_weights, kind="stable")
    start = max(log_weights[order[-size - 1]], _LOG_TINY)
    tail = order[log_weights[order] > start]
    if tail.size < 5:
        return log_weights, float("inf")
    k, scale = _generalized_pareto(np.exp(log_weights[tail]) - np.exp(start))
    if not np.isfinite(k):
        return log_weights, float("inf")
    shares = (np.arange(tail.size) + 0.5) / tail.size
    with np.errstate(over="ignore"):
        excess = scale * (-np.log1p(-shares) if abs(k) < 1e-12 else np.expm1(-k * np.log1p(-shares)) / k)
    smoothed = log_weights.copy()
    smoothed[tail] = np.minimum(np.log(excess + np.exp(start)), 0.0)
    return _normalized(smoothed), k


def _generalized_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of the generalized Pareto distribution of positive numbers in ascending order: the posterior mean
    of Zhang and Stephens (2009), the shape drawn towards 1/2 as if by ten more numbers, as Vehtari et al. (2024) do."""
    count = excess.size
    grid = 1 - np.sqrt((30 + int(count**0.5)) / (np.arange(30 + int(count**0.5)) + 0.5))
    rates = grid / (3 * excess[int(count / 4 + 0.5) - 1]) + 1 / excess[-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shapes = np.log1p(-rates[:, None] * excess).mean(axis=1)
        likelihood = count * (np.log(-rates / shapes) - shapes - 1)
        share = np.exp(likelihood - np.max(likelihood))
        share = np.where(share < 10 * np.finfo(np.float64).eps * share.sum(), 0.0, share)
        rate = float(rates @ share / share.sum())
        shape = float(np.log1p(-rate * excess).mean())
        return (count * shape + _PRIOR_COUNT * 0.5) / (count + _PRIOR_COUNT), -shape / rate


def _normalized(log_weights: np.ndarray) -> np.ndarray:
    if not log_weights.size:
        return log_weights
    relative = log_weights - log_weights.max()
    return np.asarray(relative - np.log(np.exp(relative).sum()))


def _noise(log_weights: np.ndarray, log_p: np.ndarray) -> float:
    """How far log weights of this precision are apart by rounding alone, where densities are of this size."""
    sizes = [np.abs(x[np.isfinite(x)]).astype(np.float64).max(initial=0.0) for x in (log_weights, log_p)]
    is_float = log_weights.dtype.kind == "f"
    eps = float(np.finfo(log_weights.dtype if is_float else np.float64).eps)
    return _NOISE_ULPS * eps * max(1.0, *sizes)
