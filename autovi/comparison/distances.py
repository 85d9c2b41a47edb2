"""How far two sets of draws of one scalar are apart, and how far by chance alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import wasserstein_distance


class Draws(NamedTuple):
    """Draws of one scalar `(num_draws,)`, and for how many independent ones they stand in their mean and in their
    standard deviation."""

    values: np.ndarray
    ess_mean: float
    ess_sd: float

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sd(self) -> float:
        return float(self.values.std(ddof=1))

    @property
    def log_sd_variance(self) -> float:
        """The variance of the log of the standard deviation: (kurtosis - 1) / (4 n), by the delta method."""
        centred = self.values - self.values.mean()
        variance = np.mean(centred**2)
        kurtosis = np.mean(centred**4) / variance**2 if variance > 0 else np.nan
        return float((kurtosis - 1) / (4 * self.ess_sd))


class Distance(NamedTuple):
    r"""From a reference, in its standard deviations s.

    Attributes:
        mean_shift: :math:`(m' - m) / s`, and `mean_shift_se` its standard error.
        log_sd_ratio: :math:`\log (s' / s)`, and `log_sd_ratio_se` its standard error.
        wasserstein: the Wasserstein-1 distance of the draws, by s: by how much a draw has to move on average.
        wasserstein_noise: what that would be on average if both were draws of one distribution.
    """

    mean_shift: float
    mean_shift_se: float
    log_sd_ratio: float
    log_sd_ratio_se: float
    wasserstein: float
    wasserstein_noise: float


def distance(draws: Draws, reference: Draws) -> Distance:
    """How far the draws are from the reference; NaN where the reference does not vary."""
    sd = reference.sd
    if not sd > 0:
        return Distance(*[float("nan")] * 6)
    errors = draws.sd**2 / draws.ess_mean + sd**2 / reference.ess_mean
    with np.errstate(divide="ignore"):
        ratio = float(np.log(draws.sd / sd))
    return Distance(
        (draws.mean - reference.mean) / sd,
        float(np.sqrt(errors)) / sd,
        ratio,
        float(np.sqrt(draws.log_sd_variance + reference.log_sd_variance)),
        float(wasserstein_distance(draws.values, reference.values)) / sd,
        noise(reference.values, 1 / draws.ess_mean + 1 / reference.ess_mean) / sd,
    )


def noise(values: np.ndarray, variance: float) -> float:
    r"""The expected Wasserstein-1 distance of two samples of one distribution F, by its draws:

    .. math:: E \int |F_n - F_m| dx \approx \sqrt{\tfrac{2}{\pi} (\tfrac{1}{n} + \tfrac{1}{m})}
        \int \sqrt{F (1 - F)} dx,

    since the difference of the empirical distribution functions is normal at each x. `variance` is 1/n + 1/m.

    Example:
        >>> round(noise(np.linspace(0, 1, 1001), 0.01), 3)  # of a uniform the integral is pi / 8
        0.031
    """
    ordered = np.sort(values)
    share = np.arange(1, len(ordered)) / len(ordered)
    integral = float(np.sum(np.diff(ordered) * np.sqrt(share * (1 - share))))
    return float(np.sqrt(2 / np.pi * variance)) * integral
