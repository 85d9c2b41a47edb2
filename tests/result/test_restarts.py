"""`fit.restarts`: modes and their exact weights, stacking against an oracle, chains for ArviZ, files."""

import copy
import doctest
import pickle

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import optimize

import autovi
from autovi.ladder.search import _in_turn
from autovi.result import restarts, stacking
from autovi.result.restarts import WEIGHTS, Restart, Restarts, text_of
from autovi.result.stacking import loo_scores, stacked

QUIET = {"progress_bar": False}


def two_modes(y):
    """Independent of `y`, `x` has modes of mass 0.3 and 0.7 exactly; `z` is normal."""
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    means = dist.Normal(jnp.array([-10.0, 10.0]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), means))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.fixture(scope="module")
def bimodal():
    return autovi.fit(two_modes, {"y": np.array([1.0, 2.0])}, num_restarts=4, **QUIET)


def test_examples_in_the_docstrings():
    tried = doctest.testmod(stacking)
    assert tried.failed == 0 and tried.attempted >= 1


def test_restarts_take_the_modes_in_turn_and_weigh_them_by_their_mass(bimodal):
    found = bimodal.restarts
    assert len(found) == 4 and found[found.best] is bimodal
    assert [row.mode for row in found.table] == [0, 1, 0, 1]
    # q is exact at each mode: log evidence log 0.3 and log 0.7, plus that of y ~ N(z, 1), of no noise.
    by_mode = [row.log_evidence for row in found.table]
    assert by_mode[0] - by_mode[1] == pytest.approx(np.log(0.7 / 0.3), abs=1e-3)
    np.testing.assert_allclose(found.weights(), [0.35, 0.15, 0.35, 0.15], atol=1e-3)
    # The evidence of both: y ~ N(0, [[2, 1], [1, 2]]) at (1, 2), with determinant 3 and quadratic form 2.
    both = np.logaddexp(by_mode[0], by_mode[1])
    assert both == pytest.approx(-np.log(2 * np.pi) - 0.5 * np.log(3) - 1.0, abs=1e-3)


def test_modes_are_taken_in_turn():
    """Those with a tenth of the mass and more."""
    known = [("a", 0.0, 1), ("b", -1.0, 1), ("c", -9.0, 1)]
    assert ["".join(mode for mode, _, _ in _in_turn(known, restart)) for restart in range(4)] == [
        "abc",
        "bac",
        "abc",
        "bac",
    ]
    assert _in_turn([], 1) == [] and _in_turn(known[:1], 5) == known[:1]


def no_mode(y):
    """Where `scale` goes to zero, and `z` to `mu` with it, the density grows without bound: no mode has a curvature."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("n", y.shape[0]):
        z = numpyro.sample("z", dist.Normal(mu, scale))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def test_no_restart_is_lost_where_there_is_no_mode():
    fit = autovi.fit(
        no_mode, {"y": np.array([0.1, -0.1, 0.2])}, num_restarts=3, guide="mean_field", num_steps=100, **QUIET
    )
    assert len(fit.restarts) == 3


def test_restarts_of_one_mode_share_its_mass(bimodal):
    three = Restarts([bimodal.restarts[at] for at in (0, 1, 2)], [0.0] * 3, 0)
    np.testing.assert_allclose(three.weights(), [0.35, 0.3, 0.35], atol=1e-3)


def test_the_one_with_most_mass_is_kept_and_the_verdict_warns(bimodal):
    assert bimodal.restarts.best in (0, 2) and bimodal.values["x"].mean() > 9
    words = [finding.word for finding in bimodal.verdict.findings]
    assert "starts_disagree" in words and "other_modes" in words and bimodal.progress.restarts.name == "x"


def test_the_mixture_has_the_moments_of_the_posterior(bimodal):
    draws = bimodal.restarts.sample(4000)
    # Systematic resampling: shares to 1 / 4,000. Means of z ~ N(1, 1/3): four standard errors of 0.0091.
    assert (draws["x"] > 0).mean() == pytest.approx(0.7, abs=2e-3)
    assert draws["z"].mean() == pytest.approx(1.0, abs=0.0365) and draws["z"].shape == (4000,)
    assert draws["x"].mean() == pytest.approx(0.4 * 10.0, abs=0.1)
    again = bimodal.restarts.sample(4000)
    np.testing.assert_array_equal(draws["x"], again["x"])
    assert not np.array_equal(draws["x"], bimodal.restarts.sample(4000, rng_key=1)["x"])
    one = bimodal.restarts.sample(50, weights=[0.0, 1.0, 0.0, 0.0])
    assert (one["x"] < 0).all()


def test_each_restart_is_a_chain_for_arviz(bimodal):
    idata = bimodal.to_arviz(chains="restarts")
    assert dict(idata["posterior"].sizes) == {"chain": 4, "draw": 1000}
    for at, fit in enumerate(bimodal.restarts):
        np.testing.assert_array_equal(idata["posterior"]["x"].values[at], fit.values["x"])
    assert idata["observed_data"]["y"].shape == (2,) and idata["log_likelihood"]["y"].shape == (4, 1000, 2)
    table = az.summary(idata["posterior"].to_dataset() if hasattr(idata["posterior"], "to_dataset") else idata)
    assert float(table.loc["x", "r_hat"]) > 1.5 and float(table.loc["z", "r_hat"]) < 1.02
    short = bimodal.to_arviz("posterior", chains="restarts", num_draws=50)
    assert dict(short["posterior"].sizes) == {"chain": 4, "draw": 50}
    assert bimodal.to_arviz("posterior")["posterior"].sizes["chain"] == 1


def test_large_draws_of_the_others_are_made_again_when_asked_for(bimodal, monkeypatch):
    monkeypatch.setattr(restarts, "FORGOTTEN", 100)
    again = autovi.fit(two_modes, {"y": np.array([1.0, 2.0])}, num_restarts=4, **QUIET)
    kept = ["_own" in vars(fit) or "draws" in vars(fit) for fit in again.restarts]
    assert kept == [at == again.restarts.best for at in range(4)]
    for fit, other in zip(again.restarts, bimodal.restarts, strict=True):
        np.testing.assert_array_equal(fit.values["x"], other.values["x"])
    assert repr(again.restarts) == repr(bimodal.restarts)


def test_what_is_wrong_is_said(bimodal):
    alone = autovi.fit(two_modes, {"y": np.array([1.0, 2.0])}, **QUIET)
    assert alone.restarts is None
    with pytest.raises(ValueError, match="chains: this fit has no restarts"):
        alone.to_arviz(chains="restarts")
    with pytest.raises(ValueError, match="chains: expected 'fit' or 'restarts', got 'all'"):
        bimodal.to_arviz(chains="all")
    with pytest.raises(ValueError, match="weights: expected 'evidence' or 'stacking', got 'loo'"):
        bimodal.restarts.weights("loo")
    for wrong in ([1.0, 0.0], [-1.0, 1.0, 1.0, 1.0], [0.0] * 4, [np.nan] * 4):
        with pytest.raises(ValueError, match="weights: expected 'evidence', 'stacking' or 4 numbers of 0 or more"):
            bimodal.restarts.sample(10, weights=wrong)


def test_a_file_keeps_the_table_and_copies_keep_the_fits(bimodal, tmp_path):
    bimodal.save(tmp_path / "fit")
    loaded = autovi.load(tmp_path / "fit", two_modes)
    for other in (loaded, pickle.loads(pickle.dumps(bimodal))):
        np.testing.assert_array_equal(_numbers(other), _numbers(bimodal))  # of which k-hat is NaN
        assert [row[:2] for row in other.restarts.table] == [row[:2] for row in bimodal.restarts.table]
        assert other.restarts.best == bimodal.restarts.best
        assert repr(other.restarts) == repr(bimodal.restarts)
        np.testing.assert_array_equal(other.restarts.weights(), bimodal.restarts.weights())
        with pytest.raises(ValueError, match="restarts: a file holds their table and not their draws"):
            other.restarts.sample(10)
        with pytest.raises(ValueError, match="restarts: a file holds their table"):
            other.to_arviz(chains="restarts")
    twin = copy.deepcopy(bimodal)
    assert twin.restarts[twin.restarts.best] is twin
    np.testing.assert_array_equal(_numbers(twin), _numbers(bimodal))
    assert bimodal.resume(100).restarts is None


def _numbers(fit):
    return np.array([row[2:] for row in fit.restarts.table])


def test_the_table_as_text():
    rows = (Restart("converged", "good", 3.0, -3.0, 0.01, 0.12, -2.9, 0.01, 0), Restart("failed", "", *[np.nan] * 6, 1))
    lines = text_of(rows, np.array([0.75, 0.25]), 0).splitlines()
    assert lines[0] == "2 restarts, 2 modes (* is the one kept; weights by evidence)"
    assert lines[2].split() == ["0*", "converged", "good", "-3.000", "±", "0.010", "0.12", "0", "0.750"]
    assert lines[3].split()[-2:] == ["1", "0.250"]


def test_stacking_finds_the_best_weights():
    """Against SLSQP on the same concave objective, at an optimum inside and at one on the edge."""
    rng = np.random.default_rng(0)
    for shift in (0.0, 3.0):
        scores = rng.normal(size=(4, 60))
        scores[1] += shift
        found = stacked(scores)
        objective = lambda w, s=scores: -np.log(w @ np.exp(s)).sum()  # noqa: E731
        simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
        best = optimize.minimize(
            objective, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=simplex, options={"ftol": 1e-12}
        )
        assert objective(found) <= best.fun + 2 * stacking.GAP
        assert found.sum() == pytest.approx(1.0) and (found >= 0).all()
        np.testing.assert_allclose(found, best.x, atol=0.03)


def normal(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_log_scores_are_exact_where_these_are_known_and_those_of_arviz():
    """Normal data of variance 1: without y_i the posterior is N(m_i, v_i), the score that of N(m_i, v_i + 1) at y_i."""
    y = np.random.default_rng(1).normal(2.0, 1.0, 30)
    fit = autovi.fit(normal, {"y": y}, num_draws=4000, **QUIET)
    precision = 29 + 0.01
    means = (y.sum() - y) / precision
    exact = -0.5 * np.log(2 * np.pi * (1 + 1 / precision)) - 0.5 * (y - means) ** 2 / (1 + 1 / precision)
    scores = loo_scores(fit)
    # Standard error of each below 0.006 nats (of 1 / p(y_i | mu) over 4,000 draws, for |y_i - m| < 3).
    np.testing.assert_allclose(scores, exact, atol=0.03)
    theirs = az.loo(fit.to_arviz(), pointwise=True)
    theirs = theirs.loo_i if hasattr(theirs, "loo_i") else theirs.elpd_i
    np.testing.assert_allclose(scores, np.asarray(theirs), atol=0.01)


def wrong(y):
    """One Cauchy distribution, for data that are of two."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 20.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Cauchy(mu, 1.0), obs=y)


def _of_two(rng, number):
    return np.where(rng.random(number) < 0.6, 10.0, -10.0) + rng.standard_cauchy(number)


def test_stacking_predicts_better_than_the_posterior_where_the_model_is_wrong():
    """The example of Yao, Vehtari and Gelman (2022). Data from 0.6 C(10, 1) + 0.4 C(-10, 1), a model with one centre.

    By the evidence one mode has all the weight, as the exact posterior would. Stacking gives each the part of the data
    that are nearer to it, to the little that a centre predicts of the others.
    """
    rng = np.random.default_rng(2)
    y = _of_two(rng, 100)
    starts = (10.0, -10.0)
    fits = [autovi.fit(wrong, {"y": y}, init={"mu": start}, num_steps=1500, **QUIET) for start in starts]
    found = Restarts(fits, [fit.progress.final_loss() for fit in fits], 0)
    assert [row.mode for row in found.table] == [0, 1]
    assert found.weights("evidence")[0] > 0.999
    weights, share = found.weights("stacking"), (y > 0).mean()
    assert weights[0] == pytest.approx(share, abs=0.03) and 0.5 < share < 0.7

    # On new data the mixture scores what the truth does, to a tenth of a nat; the posterior's one mode much less.
    new = _of_two(rng, 5000)[:, None]
    density = lambda centres: 1 / (np.pi * (1 + (new - centres) ** 2))  # noqa: E731
    truth = np.log(density(np.array(starts)) @ [0.6, 0.4]).mean()
    by = {w: np.log(density(found.sample(500, weights=w)["mu"]).mean(axis=1)).mean() for w in WEIGHTS}
    assert by["stacking"] == pytest.approx(truth, abs=0.1) and by["evidence"] < truth - 0.8


def test_the_log_scores_need_observations():
    def prior_only():
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    fit = autovi.fit(prior_only, num_restarts=2, **QUIET)
    np.testing.assert_allclose(fit.restarts.weights(), [0.5, 0.5])
    with pytest.raises(ValueError, match="weights: the model has no observations"):
        fit.restarts.weights("stacking")
