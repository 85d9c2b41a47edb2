r"""Are numbers uniform? Three exact tests, each against another fault of a posterior.

Where posteriors are right, the rank of the truth among their draws, as a number u in (0, 1), is uniform. Then
:math:`z = \Phi^{-1}(u)` is standard normal, so that over N simulations

- :math:`\sqrt N \bar z` is standard normal: far from 0 where posteriors lie beside the truth (location);
- :math:`\sum (z - \bar z)^2` is chi-squared with N - 1 degrees of freedom, whatever the first: too large where they are
  too narrow, too small where they are too wide (width);
- the empirical distribution function of u stays in its simultaneous band, whatever the fault (shape).

Cook, Gelman and Rubin (2006), "Validation of software for Bayesian models using posterior quantiles", for z;
Säilynoja, Bürkner and Vehtari (2022) for the third.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from autovi.calibration.bands import p_value

POWER = 0.98  # of the tests, at what is called detectable
SHIFTED = 3.0  # standard errors


class Uniformity(NamedTuple):
    """What the tests say of numbers that should be uniform.

    Attributes:
        number: how many there were.
        location, width, shape: the probability of what is at least as far from uniform; NaN of no numbers.
        shift: the mean of z, in posterior standard deviations where posteriors are normal: truths lie so much higher.
        spread: the standard deviation of z: more than 1 where posterior standard deviations are too small, about by
            that factor.
    """

    number: int
    location: float
    width: float
    shape: float
    shift: float
    spread: float

    @property
    def is_shifted(self) -> bool:
        """Is the mean of z far from 0 beside its own error? That of ranks that pile up at both ends may be far from 0
        for a normal of unit variance, and lie beside 0 by chance."""
        return bool(abs(self.shift) * np.sqrt(self.number) > SHIFTED * self.spread)


def uniformity(u: np.ndarray) -> Uniformity:
    """The three tests of `(num_values,)` numbers in (0, 1).

    Example:
        >>> found = uniformity((np.arange(1000) + 0.5) / 1000)
        >>> min(found.location, found.width, found.shape) > 0.5
        True
    """
    count = len(u)
    if count == 0:
        return Uniformity(0, *[float("nan")] * 5)
    z = special.ndtri(u)
    shift = float(z.mean())
    location = float(2 * special.ndtr(-abs(shift) * np.sqrt(count)))
    if count == 1:
        return Uniformity(count, location, float("nan"), p_value(u), shift, float("nan"))
    total = float(np.sum((z - shift) ** 2))
    width = 2 * min(special.chdtr(count - 1, total), special.chdtrc(count - 1, total))
    spread = float(np.sqrt(total / (count - 1)))
    return Uniformity(count, location, float(min(width, 1.0)), p_value(u), shift, spread)


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjustment: where what is below a level is called found, the chance of any false alarm is at most that
    level, however the tests depend on one another. NaN stands for a test that was not made.

    Holm (1979), "A simple sequentially rejective multiple test procedure".

    Example:
        >>> adjusted(np.array([0.01, 0.04, 0.02])).round(6).tolist()
        [0.03, 0.04, 0.04]
    """
    flat = np.asarray(p_values, float).ravel()
    made = np.flatnonzero(~np.isnan(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    steps = flat[order] * np.arange(len(order), 0, -1)
    result = flat.copy()
    result[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return result.reshape(np.shape(p_values))


def detectable(count: int, num_tests: int, level: float) -> tuple[float, float]:
    """The shift, in posterior sds, and the relative error of a posterior sd that these many simulations would have
    shown in 98 of 100 cases, by the tests for location and width, `num_tests` tests being made."""
    tail = level / (2 * max(num_tests, 1))
    shift = float(special.ndtri(1 - tail) + special.ndtri(POWER)) / np.sqrt(count)
    if count == 1:
        return shift, float("inf")
    return shift, float(np.sqrt(special.chdtri(count - 1, tail) / special.chdtri(count - 1, POWER))) - 1
