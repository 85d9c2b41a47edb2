"""The exact answers that some examples are compared with, against other ways to them."""

import numpy as np
import pytest
from scipy import stats

from examples import capture_recapture, nile


def test_the_exact_nile_agrees_with_a_filter():
    """The ratio of two posterior probabilities by a Kalman filter in NumPy."""
    wander, noise, p = nile.exact_grid(5)

    def log_p(i, j):
        mean, variance = nile.MEAN, nile.SD**2
        total = stats.norm.logpdf(np.log(wander[i]), np.log(40.0), 0.7)
        total += stats.norm.logpdf(np.log(noise[j]), np.log(100.0), 0.7)
        for flow in nile.FLOW:
            variance += wander[i] ** 2
            seen = variance + noise[j] ** 2
            total += stats.norm.logpdf(flow, mean, np.sqrt(seen))
            mean, variance = mean + variance / seen * (flow - mean), variance * noise[j] ** 2 / seen
        return total

    for i, j in ((1, 2), (3, 2), (2, 1)):
        assert np.log(p[i, j] / p[2, 2]) == pytest.approx(log_p(i, j) - log_p(2, 2), abs=1e-6)
    assert p.sum() == pytest.approx(1.0)


def test_the_likelihood_of_captures_is_the_sum_over_all_states():
    """Two animals of four occasions, by all eight states of each."""
    seen = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    survival, recapture = 0.7, 0.4
    total = 0.0
    for history in seen.T:
        first, p = int(np.flatnonzero(history)[0]), 0.0
        for states in np.ndindex(*(2,) * (3 - first)):
            before, one = 1, 1.0
            for alive, caught in zip(states, history[first + 1 :], strict=True):
                one *= stats.bernoulli.pmf(alive, survival * before) * stats.bernoulli.pmf(caught, recapture * alive)
                before = alive
            p += one
        total += np.log(p)
    assert capture_recapture.log_likelihood(seen, survival, recapture) == pytest.approx(total, rel=1e-9)
