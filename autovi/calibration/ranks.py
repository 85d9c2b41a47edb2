r"""Ranks of true values among posterior draws, as numbers that are uniform where the posteriors are right.

Of L independent draws from the posterior and the truth, which is one more draw from it, every order is equally likely.
With :math:`l` draws below the truth and :math:`t` equal to it, its rank is one of :math:`l, \dots, l + t`, each equally
likely, and

.. math:: u = (l + U (t + 1)) / (L + 1), \quad U \sim \mathrm{Uniform}(0, 1)

is uniform on (0, 1), exactly, whatever L: discrete sites, whose draws often equal the truth, need nothing else.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference algorithms with simulation-based
calibration", who have whole ranks; Modrák et al. (2023), "Simulation-based calibration checking for Bayesian
computation: the choice of test quantities shapes sensitivity", for ties.
"""

from __future__ import annotations

import numpy as np

# Corrected draws repeat, and are so not independent. Of a tenth as many as the weights stand for nearly all are.
DRAWS_PER_RANK = 10


def num_ranked(num_draws: int, effective: float | None) -> int:
    """Among how many draws a truth is ranked: all where they are independent (`effective` is None), else a tenth of
    the effective number of draws that resampled ones were chosen from, so that hardly any repeats."""
    if effective is None or not np.isfinite(effective):
        return num_draws
    return int(np.clip(effective // DRAWS_PER_RANK, 1, num_draws))


def fractional_ranks(truth: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """u of each quantity: `truth` is `(num_quantities,)`, `draws` `(num_draws, num_quantities)`. NaN where the truth or
    a draw is NaN.

    Example:
        >>> u = fractional_ranks(np.array([2.5]), np.array([[1.0], [2.0], [3.0]]), np.random.default_rng(0))
        >>> 0.5 < u[0] < 0.75
        True
    """
    below, tied = np.sum(draws < truth, axis=0), np.sum(draws == truth, axis=0)
    ranks = (below + rng.random(len(truth)) * (tied + 1)) / (len(draws) + 1)
    ranks = np.clip(ranks, np.finfo(float).tiny, np.nextafter(1.0, 0.0))  # the normal quantiles of 0 and 1 are infinite
    return np.where(np.isnan(truth) | np.isnan(draws).any(axis=0), np.nan, ranks)
