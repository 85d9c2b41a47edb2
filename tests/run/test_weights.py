"""Importance weights of known shape: k-hat, smoothing, efficiency, and what is said where there is none."""

import arviz as az
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.run.weights import (
    ALL_ZERO,
    CONCENTRATED,
    EQUAL,
    TIED,
    TOO_FEW,
    UNUSABLE,
    effective_size,
    pareto_k,
    tail_size,
    weights_of,
)

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1


def pareto_log_weights(k, size, seed=0):
    """Log of generalized Pareto draws of shape k: the exact tail that the fit assumes."""
    u = np.random.default_rng(seed).random(size)
    return np.log(np.expm1(-k * np.log(u)) / k)


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_pareto_k_finds_the_tail(k):
    found = [pareto_k(pareto_log_weights(k, 20_000, seed) + 1000.0) for seed in range(8)]
    # 424 tail draws: standard error (1 + k) / sqrt(424) each, over eight of them.
    assert np.mean(found) == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(424 * 8))
    assert found[0] == pytest.approx(k, abs=0.3)


def test_pareto_k_of_a_thin_tail_is_low_and_its_mirror_is_not():
    """The two ArviZ lines take weights of opposite sign; either way the upper tail counts."""
    skewed = -np.random.default_rng(0).exponential(size=2000) * 5
    assert pareto_k(skewed) < 0 < 1 < pareto_k(-skewed)


def test_pareto_k_takes_what_jax_gives():
    log_weights = pareto_log_weights(0.7, 2000)
    expected = pareto_k(log_weights)
    assert pareto_k(jnp.asarray(log_weights, jnp.float32)) == pytest.approx(expected, abs=1e-3)
    assert pareto_k(log_weights.reshape(4, -1)) == expected
    assert pareto_k(list(log_weights)) == expected


RNG = np.random.default_rng(1)
SOME = RNG.normal(size=100)


@pytest.mark.parametrize(
    ("log_weights", "expected"),
    [
        pytest.param(np.zeros(100), (np.nan, EQUAL), id="equal"),
        pytest.param(np.full(100, -1e5, np.float32), (np.nan, EQUAL), id="equal and large"),
        pytest.param(np.zeros(100, int), (np.nan, EQUAL), id="integers"),
        pytest.param((-1e3 + 1e-4 * SOME).astype(np.float32), (np.nan, EQUAL), id="equal up to float32"),
        pytest.param(np.where(np.arange(100) < 50, -np.inf, 0.0), (np.nan, TIED), id="half of them zero"),
        pytest.param(np.where(np.arange(100) < 50, -1.0, 0.0), (np.nan, TIED), id="two values"),
        pytest.param(np.where(np.arange(1000) < 800, -np.inf, 0.0), (np.nan, TIED), id="most of them zero"),
        pytest.param(np.where(np.arange(1000) < 5, 7.5, 0.0), (np.inf, CONCENTRATED), id="rare and heavy"),
        pytest.param(np.where(np.arange(1000) < 5, 0.5, 0.0), (np.nan, TIED), id="a rare value of little weight"),
        pytest.param(np.where(np.arange(100) < 98, -np.inf, SOME), (np.inf, CONCENTRATED), id="two draws carry all"),
        pytest.param(np.where(np.arange(100) < 98, SOME, 900.0 + SOME), (np.inf, CONCENTRATED), id="underflow"),
        pytest.param(np.full(100, -np.inf), (np.inf, ALL_ZERO), id="all zero"),
        pytest.param(np.append(SOME, np.nan), (np.inf, UNUSABLE), id="nan"),
        pytest.param(np.append(SOME, np.inf), (np.inf, UNUSABLE), id="infinite"),
        pytest.param(np.array([np.nan]), (np.inf, UNUSABLE), id="few and nan"),
        pytest.param(SOME[:29], (np.nan, TOO_FEW), id="few"),
        pytest.param(np.zeros(0), (np.nan, TOO_FEW), id="none"),
    ],
)
def test_pareto_k_of_degenerate_weights(log_weights, expected):
    before = log_weights.copy()
    found = weights_of(log_weights)
    np.testing.assert_equal((found.khat, found.why), expected)
    np.testing.assert_array_equal(log_weights, before)


def test_pareto_k_lets_some_weights_be_zero():
    weights = pareto_log_weights(0.7, 2000)
    some = np.where(np.arange(2000) % 2 == 0, -np.inf, weights)
    assert pareto_k(some) == pytest.approx(0.7, abs=0.35)
    assert np.isfinite(pareto_k(SOME[:30]))


def test_pareto_k_of_discrete_weights_is_calm_where_they_are_even():
    """As from a model whose latent sites are all discrete: few values, each many times."""
    for levels in range(1, 40):
        even = pareto_k(RNG.integers(0, levels, 500) * 0.1 / levels)
        assert not even >= 0.7
        rare = np.where(np.arange(500) < 3, 9.0, RNG.integers(0, levels, 500) * 0.1 / levels)
        assert pareto_k(rare) > 0.7


@pytest.mark.skipif(ARVIZ_1, reason="ArviZ 1.x fits the tail in another way")
@pytest.mark.parametrize(("count", "sd"), [(30, 0.5), (1000, 0.3), (1000, 3.0), (20_000, 1.0)])
def test_smoothing_is_that_of_arviz(count, sd):
    log_weights = np.random.default_rng(count).normal(size=count) * sd - 1e3
    smoothed, k = az.psislw(log_weights)
    found = weights_of(log_weights)
    assert found.khat == pytest.approx(float(k), abs=1e-9) and found.why == ""
    np.testing.assert_allclose(found.log, smoothed, atol=1e-9)


def test_smoothing_touches_the_tail_alone_and_keeps_its_order():
    log_weights = np.random.default_rng(0).normal(size=1000)
    smoothed = weights_of(log_weights).log
    order = np.argsort(log_weights)
    shift = smoothed[order] - log_weights[order]
    np.testing.assert_allclose(shift[: -tail_size(1000)], shift[0], atol=1e-12)
    assert np.ptp(shift[-tail_size(1000) :]) > 0.01
    assert (np.diff(smoothed[order]) >= 0).all()
    assert np.exp(smoothed).sum() == pytest.approx(1.0)


def test_efficiency_is_the_share_of_draws_that_count():
    assert weights_of(np.zeros(100)).efficiency == 1.0
    assert weights_of(np.where(np.arange(1000) < 300, 5.0, -np.inf)).efficiency == pytest.approx(0.3)
    assert weights_of(np.where(np.arange(1000) == 7, 900.0, 0.0)).efficiency == pytest.approx(1e-3)
    assert np.isnan(weights_of(np.array([0.0, np.nan])).efficiency)
    # Of log normal weights it is exp(-sd^2), which their largest, smoothed, leave as it is within a tenth.
    found = [weights_of(0.7 * np.random.default_rng(i).normal(size=4000)).efficiency for i in range(10)]
    assert np.mean(found) == pytest.approx(np.exp(-0.49), rel=0.1)
    assert effective_size(np.log([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_that_of_log_p(dtype):
    """Weights near 0 of densities near -1e4 are differences of large numbers."""
    log_p = np.full(1000, -1e4, dtype)
    sd = 4 * np.finfo(dtype).eps * 1e4
    log_weights = (sd * np.random.default_rng(0).normal(size=1000)).astype(dtype)
    assert weights_of(log_weights, log_p).why == EQUAL
    assert weights_of(log_weights).why == ("" if sd > 10 * np.finfo(dtype).eps else EQUAL)
    assert weights_of(100 * log_weights, log_p).why == ""
