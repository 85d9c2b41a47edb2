"""Fractional ranks, the tests of their uniformity, coverage and bias, against exact distributions."""

import numpy as np
import pytest
from scipy import stats

from autovi.calibration.coverage import bias, coverages
from autovi.calibration.ranks import fractional_ranks, num_ranked
from autovi.calibration.rows import rows_of, verdict_of
from autovi.calibration.uniformity import adjusted, detectable, uniformity

N = 6000


def ranks_of(truths, draws, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([fractional_ranks(t[None], d[:, None], rng)[0] for t, d in zip(truths, draws, strict=True)])


def assert_uniform(u):
    """Kolmogorov and Smirnov's test; a false alarm in 10^6."""
    assert stats.kstest(u, "uniform").pvalue > 1e-6


@pytest.mark.parametrize("num_draws", [1, 3, 100])
def test_of_draws_from_the_same_distribution_they_are_uniform(num_draws):
    rng = np.random.default_rng(num_draws)
    drawn = rng.normal(size=(N, num_draws + 1))
    assert_uniform(ranks_of(drawn[:, 0], drawn[:, 1:]))


@pytest.mark.parametrize("draw", [lambda r, s: r.poisson(0.7, s), lambda r, s: r.binomial(1, 0.05, s)], ids="pb")
def test_ties_of_discrete_sites_are_broken_at_random(draw):
    drawn = draw(np.random.default_rng(1), (N, 21))
    u = ranks_of(drawn[:, 0], drawn[:, 1:])
    assert_uniform(u)
    # Without that they are not: a rank that counts only what is below is 0 where most draws are 0.
    below = np.mean(drawn[:, 1:] < drawn[:, :1], axis=1)
    assert stats.kstest(below, "uniform").pvalue < 1e-6


def test_a_rank_is_where_the_truth_stands():
    rng = np.random.default_rng(0)
    draws = np.array([[1.0, 5.0, 2.0], [2.0, 5.0, np.nan], [3.0, 5.0, 2.0]])
    seen = np.array([fractional_ranks(np.array([2.5, 5.0, 2.0]), draws, rng) for _ in range(2000)])
    assert 0.5 < seen[:, 0].min() < 0.51 and 0.74 < seen[:, 0].max() < 0.75
    assert seen[:, 1].min() < 0.01 and seen[:, 1].max() > 0.99
    assert np.isnan(seen[:, 2]).all()


def test_corrected_draws_are_thinned_to_those_that_are_independent():
    assert num_ranked(1000, None) == 1000
    assert (num_ranked(1000, 2000.0), num_ranked(100, 2000.0), num_ranked(1000, 3.0)) == (200, 100, 1)
    # 100 proposals of which 1,000 draws were resampled: a rank among all of them is not uniform, of ten of them it is.
    rng = np.random.default_rng(3)
    proposals, truths = rng.normal(size=(N, 100)), rng.normal(size=N)
    draws = np.take_along_axis(proposals, rng.integers(0, 100, (N, 300)), axis=1)
    edges = lambda u: np.mean((u < 1 / 301) | (u > 300 / 301))  # noqa: E731
    assert edges(ranks_of(truths, draws)) > 2.5 * 2 / 301
    assert_uniform(ranks_of(truths, draws[:, : num_ranked(300, 100.0)]))


def test_p_values_of_uniform_numbers_are_uniform():
    """2,000 sets of 40; those of the band are discrete and no larger than they say."""
    found = [uniformity(row) for row in np.random.default_rng(4).random((2000, 40))]
    for name, least in (("location", 1.0), ("width", 1.0), ("shape", 0.7)):
        p = np.array([getattr(test, name) for test in found])
        for level in (0.01, 0.1, 0.5):
            error = 4.5 * np.sqrt(level * (1 - level) / len(p))
            assert least * level - error < np.mean(p <= level) < level + error


def test_each_fault_is_found_by_its_test():
    rng = np.random.default_rng(5)
    normal = rng.normal(size=400)
    u = {
        "low": stats.norm.cdf(normal + 0.4),
        "narrow": stats.norm.cdf(1.4 * normal),
        "wide": stats.norm.cdf(normal / 2),
    }
    u["high"] = 1 - u["low"]
    u["hollow"] = np.where(rng.random(400) < 0.5, 0.25, 0.75) + rng.uniform(-0.1, 0.1, 400)
    ranks = np.column_stack(list(u.values()))
    means, truths, sds = np.zeros(ranks.shape), ranks - 0.5, np.ones(ranks.shape)
    rows, fixed = rows_of(list(u), ranks, truths, means, sds, 0.01)
    found = {row.quantity: row.words for row in rows}
    assert found["low"] == ("biased_low",) and found["high"] == ("biased_high",)
    assert found["narrow"] == ("too_narrow",) and found["wide"] == ("too_wide",)
    assert "biased_low" not in found["hollow"] and found["hollow"] != ("calibrated",)
    assert fixed == ()
    verdict = verdict_of(rows, 0.01)
    assert verdict.word == "miscalibrated" and all(f"'{name}' is" in verdict.sentence for name in u)


def test_what_never_varies_has_no_row():
    ones = np.ones((30, 1))
    u = np.random.default_rng(6).random((30, 2))
    rows, fixed = rows_of(
        ["one", "free"],
        u,
        np.hstack([ones, u[:, :1]]),
        np.hstack([ones, 0 * ones]),
        np.hstack([0 * ones, ones]),
        0.01,
    )
    assert [row.quantity for row in rows] == ["free"] and fixed == ("one",)


def test_right_posteriors_are_called_miscalibrated_as_seldom_as_said():
    """Of 1,000 calibrations of five quantities, copies of one another or independent, at level 0.05: at most 5 % (a
    standard error of 0.7 %), and not none."""
    rng = np.random.default_rng(7)
    alarms = 0
    for i in range(1000):
        u = rng.random((30, 5)) if i % 2 else np.repeat(rng.random((30, 1)), 5, axis=1)
        rows, _ = rows_of(list("abcde"), u, u, 0 * u, 0 * u + 1, 0.05)
        alarms += verdict_of(rows, 0.05).word != "calibrated"
    assert 10 < alarms < 50 + 4 * 7


def test_holm_s_adjustment():
    p = np.array([[0.01, np.nan], [0.02, 0.5]])
    np.testing.assert_allclose(adjusted(p), [[0.03, np.nan], [0.04, 0.5]])
    assert adjusted(np.array([0.6, 0.6])).tolist() == [1.0, 1.0]


def test_what_is_said_to_be_detectable_is_detected():
    """98 of 100, by the claim."""
    rng, count, tests = np.random.default_rng(8), 150, 12
    shift, relative = detectable(count, tests, 0.01)
    seen = np.zeros(2)
    for _ in range(200):
        normal = rng.normal(size=count)
        shifted, spread = (uniformity(stats.norm.cdf(z)) for z in (normal + shift, normal * (1 + relative)))
        seen += [shifted.location * tests < 0.01, spread.width * tests < 0.01]
    assert (seen / 200 > 0.94).all()


def test_coverage_counts_ranks_between_the_ends_of_intervals():
    u = (np.arange(1000) + 0.5) / 1000
    assert [c.share for c in coverages(u)] == pytest.approx([0.5, 0.8, 0.9, 0.95], abs=1e-9)
    assert coverages(u)[0].se == pytest.approx(0.5 / np.sqrt(1000))
    assert coverages(np.array([0.01, 0.02, 0.5, 0.99]))[0].share == 0.25
    assert np.isnan(coverages(np.zeros(0))[0].share)


def test_bias_is_in_posterior_sds():
    found = bias(np.array([1.0, 2.0, 7.0]), np.array([2.0, 4.0, 7.0]), np.array([1.0, 1.0, 0.0]))
    assert (found.mean, found.se) == (1.5, pytest.approx(0.5))
    assert np.isnan(bias(np.ones(2), np.ones(2), np.zeros(2)).mean)
