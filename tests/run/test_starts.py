"""Restarts as chains, and the mass of modes."""

import doctest
import json

import arviz as az
import numpy as np
import pytest

from autovi.result import saving
from autovi.run import starts
from autovi.run.starts import Agreement, Mode, Modes, agreement, agreement_of, modes_of, rhat, rhat_of_moments
from autovi.run.stopping import Progress


def test_examples_in_the_docstrings():
    tried = doctest.testmod(starts)
    assert tried.failed == 0 and tried.attempted >= 3


def test_rhat_of_moments_is_the_textbook_one():
    means = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 3.0], [0.0, 3.0, 3.0]])
    sds = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [3.0, 2.0, 0.0]])
    # Variances between: 0, 1, 0; within: 14 / 3, 2, 0.
    np.testing.assert_allclose(rhat_of_moments(means, sds), [1.0, 1.5**0.5, 1.0])
    assert rhat_of_moments(np.array([0.0, 1.0]), np.zeros(2)) == np.inf
    # The threshold: a standard deviation of 0.14 between means.
    assert rhat_of_moments(np.array([-0.1, 0.1]), np.ones(2)) == pytest.approx(1.01, abs=2e-4)


def test_rhat_is_that_of_arviz():
    """Its rank-normalized, folded R-hat splits chains, ours does not: so it is given the halves as two chains."""
    rng = np.random.default_rng(0)
    draws = rng.standard_t(2.0, (4, 500, 3)) * [1.0, 1.0, 3.0] + np.array([0.0, 0.3, 0.0, 0.0])[:, None, None]
    draws[2, :, 2] *= 2
    halves = draws.reshape(8, 250, 3)
    for i in range(3):
        reference = float(az.rhat(draws[..., i]))
        assert float(rhat(halves)[i]) == pytest.approx(reference, abs=2e-3)


def test_restarts_that_agree_have_none_above_the_threshold():
    """Of 300 scalars the largest, 4 restarts of 1,000 draws: (R^2 - 1) * 1,000 is chi-squared with 3 degrees over 3."""
    found = rhat(np.random.default_rng(1).normal(size=(4, 1000, 300)))
    assert found.shape == (300,) and found.max() < 1.005 and found.min() > 0.999


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 2.0)])
def test_another_place_or_spread_is_seen_and_named(shift, scale):
    rng = np.random.default_rng(2)
    draws = [{"a": rng.normal(size=(400,)), "b": rng.normal(size=(400, 2, 3))} for _ in range(3)]
    assert agreement(draws).rhat < 1.01
    draws[1]["b"][:, 1, 2] = shift + scale * draws[1]["b"][:, 1, 2]
    found = agreement(draws)
    assert found.rhat > 1.02 and (found.name, found.restarts) == ("b[1, 2]", 3)


def test_sites_that_cannot_vary_agree():
    assert rhat(np.ones((3, 100))) == 1.0
    assert agreement([{"z": np.ones(9, bool)}] * 2).rhat == 1.0
    half = np.tile([0, 1], 50)
    assert rhat(np.stack([half, half])) < 1.0001  # ties
    assert rhat(np.stack([np.zeros(100), np.ones(100)])) == np.inf


def test_the_share_of_a_mode():
    modes = Modes((Mode(-3.0, np.log(3.0), 5), Mode(-2.0, 0.0, 2)))
    assert modes.share == pytest.approx(0.75)
    assert Modes((Mode(-3.0, -1e4, 5), Mode(-2.0, np.nan, 2))).share == 1.0
    assert Modes((Mode(-3.0, -1e4, 5), Mode(-2.0, 0.0, 2))).share == 0.0
    assert np.isnan(Modes(()).share) and np.isnan(Modes((Mode(0.0, np.nan, 1),)).share)


def test_what_is_saved_comes_back():
    modes, found = Modes((Mode(-3.0, 1.5, 5),), 2, 1), Agreement(1.2, "mu", 3)
    assert modes_of(json.loads(json.dumps(modes))) == modes and modes_of(None) is None
    assert agreement_of(json.loads(json.dumps(found))) == found and agreement_of(None) is None


def test_a_saved_progress_has_them():
    found = {"modes": Modes((Mode(-3.0, 1.5, 5),), 2, 1), "restarts": Agreement(1.2, "mu", 3)}
    for options in (found, {}):
        progress = Progress(None, 900, gain=0.1, **options)
        saved = json.loads(json.dumps(saving.progress_fields(progress)))
        again = saving.progress_of(saved, np.zeros(0, np.float32))
        assert (again.modes, again.restarts, again.gain) == (progress.modes, progress.restarts, 0.1)
