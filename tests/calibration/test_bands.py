"""Simultaneous bands of empirical distribution functions, and the test that goes with them: exact, so compared with
sums over all orders, and with simulation."""

import itertools

import numpy as np
import pytest

from autovi.calibration.bands import band, counts_below, p_value, points_of, probability_inside


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_probability_of_staying_inside_is_that_of_all_ways_to_fall(count):
    """Each number falls between two points with the length between them: all `cells ** count` ways are summed."""
    points = np.array([0.2, 0.5, 0.9])
    lengths = np.diff([0.0, *points, 1.0])
    rng = np.random.default_rng(count)
    for _ in range(5):
        lower = rng.integers(0, count + 1, 3)
        upper = lower + rng.integers(0, count + 1, 3)
        total = 0.0
        for cells in itertools.product(range(4), repeat=count):
            below = np.array([sum(cell <= i for cell in cells) for i in range(3)])
            if np.all((below >= lower) & (below <= upper)):
                total += np.prod(lengths[list(cells)])
        assert probability_inside(count, points, lower, np.minimum(upper, count)) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("count", [20, 150])
def test_the_band_holds_as_many_functions_as_it_says(count):
    """20,000 sets of uniform numbers: a standard error of 0.0015 at 0.95."""
    found = band(count, 0.95)
    u = np.random.default_rng(0).random((20_000, count))
    share = np.stack([counts_below(row, found.points) for row in u]) / count
    inside = np.mean(np.all((share >= found.lower - 1e-9) & (share <= found.upper + 1e-9), axis=1))
    exact = probability_inside(
        count, found.points, np.rint(found.lower * count).astype(int), np.rint(found.upper * count).astype(int)
    )
    assert 0.95 <= exact < 0.97
    assert abs(inside - exact) < 4.5 * np.sqrt(exact * (1 - exact) / len(u))


def test_p_values_are_uniform_and_no_larger_than_they_say():
    """2,000 sets of 60 numbers; p-values are discrete, so at most the level, and near it."""
    u = np.random.default_rng(1).random((2000, 60))
    p = np.array([p_value(row) for row in u])
    for level in (0.01, 0.1, 0.5):
        error = np.sqrt(level * (1 - level) / len(u))
        assert level * 0.7 - 4 * error < np.mean(p <= level) < level + 4 * error


def test_the_test_and_the_band_agree():
    """Numbers are outside of the band of 95 % where their p-value is below 5 %, and the other way round."""
    rng, found = np.random.default_rng(2), band(50, 0.95)
    seen = {True: 0, False: 0}
    for _ in range(300):
        u = rng.beta(0.8, 0.8, size=50)
        share = counts_below(u, found.points) / 50
        outside = bool(np.any((share < found.lower - 1e-9) | (share > found.upper + 1e-9)))
        seen[outside] += 1
        assert outside == (p_value(u) < 0.05)
    assert min(seen.values()) > 20


def test_few_numbers_have_points_to_be_looked_at():
    assert points_of(1).tolist() == [0.5] and len(points_of(5)) == 4 and len(points_of(10_000)) == 99
    assert p_value(np.array([0.3])) == pytest.approx(1.0)
