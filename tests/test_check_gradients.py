"""`check_gradients`: it finds what is biased, calls good what is good, and says where it cannot tell."""

import json
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from written import Twin

import autovi
from autovi.analysis import discontinuities
from autovi.checking.report import WORDS
from autovi.estimators import Estimator, Explicit, Score
from autovi.estimators.base import Draw
from oracles import ORACLES

stop = jax.lax.stop_gradient
T, LOGIT = 0.3, -0.8
P = 1 / (1 + np.exp(-LOGIT))
EXACT = P * (1 - P) * (1 - 2 * T)  # d/dl E (b - t)^2


def toy(params, t=T):
    b = numpyro.sample("b", dist.Bernoulli(logits=params))
    return (b - t) ** 2


def check_toy(estimator, num_samples=4096, **options):
    asked = {"estimators": {"b": estimator}, "num_samples": num_samples, "allow_bias": True}
    return autovi.check_gradients(toy, (LOGIT,), argnums=0, **asked, **options)


@dataclass(frozen=True)
class TenthMore(Twin):
    """DisARM with a wrong factor."""

    name: ClassVar[str] = "tenth_more"

    def surrogate(self, q, draw, cost, params):
        right, loss = super().surrogate(q, draw, cost, params)
        return 1.1 * right, loss


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The gradient of a draw is that of its mean."""

    name: ClassVar[str] = "straight"
    pathwise: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    def refuses(self, facts):
        return None

    def draw(self, noise, q):
        p = q.mean
        return Draw(stop(q(rng_key=noise) - p) + p)


@dataclass(frozen=True)
class Blind(Explicit):
    """Reparameterization, jump or no jump."""

    name: ClassVar[str] = "blind"

    def refuses(self, facts):
        return None


@dataclass(frozen=True)
class Noisy(Score):
    """The score with noise of mean zero, and of no variance."""

    name: ClassVar[str] = "noisy"
    spoilt: bool = False

    def draw(self, noise, q):
        u = jax.random.uniform(jax.random.fold_in(noise, 1), (), minval=1e-7, maxval=1 - 1e-7)
        # Where spoilt, one draw of eight is NaN instead.
        extra = jnp.where(u < 0.125, jnp.nan, 0.0) if self.spoilt else jnp.tan(jnp.pi * (u - 0.5)) ** 3
        return Draw(stop(q(rng_key=noise)), aux=extra)

    def surrogate(self, q, draw, cost, params):
        right, loss = super().surrogate(q, draw, cost, params)
        return right + jnp.mean(draw.aux * q.log_prob(draw.value)), loss


# --- what is biased ---------------------------------------------------------------------------------------------------


def test_a_wrong_factor_is_found():
    check = check_toy(TenthMore())
    (row,) = check.rows
    assert (check.verdict, row.verdict, row.reference) == ("biased", "biased", "enumerate") and check.biased == (row,)
    np.testing.assert_allclose(row.reference_mean, EXACT, rtol=1e-5)
    np.testing.assert_allclose(row.mean, 1.1 * EXACT, atol=5 * float(row.se[0]))
    assert abs(row.z) > check.threshold and "BIASED" in str(check) and "of the gradient" in str(check)


def test_the_right_factor_is_not():
    check = check_toy(Twin())
    (row,) = check.rows
    assert check.verdict == "agrees" and row.detectable < 0.1 and not check.biased
    np.testing.assert_allclose(row.mean, EXACT, atol=5 * float(row.se[0]))


def test_straight_through_is_found():
    (row,) = check_toy(StraightThrough()).rows
    assert row.verdict == "biased"
    np.testing.assert_allclose(row.mean, 2 * (P - T) * P * (1 - P), atol=6 * np.sqrt(row.variance / 4096))


# Where a fit starts q is narrow, and sees a jump only beside it.
AT_JUMP = {"data": {"x": 0.05}, "init": {"when": 0.1}}


def jumping(x):
    when = numpyro.sample("when", dist.Normal(0.0, 2.0))
    numpyro.factor("cost", jnp.where(when > x, 2.0, 0.0))


def test_a_pathwise_estimator_at_a_jump_is_found():
    check = autovi.check_gradients(jumping, **AT_JUMP, estimators={"when": Blind()}, num_samples=8192)
    assert {row.parameter: row.verdict for row in check["when"]}["loc"] == "biased"
    assert {row.reference for row in check.rows} == {"score"}


@pytest.mark.slow
def test_so_is_one_where_the_jump_was_not_tested(monkeypatch):
    monkeypatch.setattr(discontinuities, "LIMIT", 0.0)

    def elsewhere(x):
        when = numpyro.sample("when", dist.Normal(0.0, 2.0))
        numpyro.factor("cost", jnp.where(when > x, 2.5, 0.0))

    check = autovi.check_gradients(elsewhere, **AT_JUMP, estimators={"when": "explicit"}, num_samples=8192)
    assert check.verdict == "biased" and {row.estimator for row in check.rows} == {"explicit"}
    # The score is never blamed for it: where a jump is in doubt nothing pathwise is a reference.
    asked = autovi.check_gradients(elsewhere, **AT_JUMP, estimators={"when": "score"}, num_samples=4096)
    assert {row.reference for row in asked.rows} == {"score (none)"} and asked.verdict != "biased"


@pytest.mark.slow
def test_the_planned_score_at_a_jump_is_good():
    check = autovi.check_gradients(jumping, **AT_JUMP, num_samples=16384)
    assert {(r.estimator, r.reference) for r in check.rows} == {("score", "measure_valued")}
    assert check.verdict == "agrees"


# --- what is good -----------------------------------------------------------------------------------------------------

BY_NAME = {o.name: o for o in ORACLES}


@cache
def checked(name):
    oracle = BY_NAME[name]
    chosen = {site: names[0] for site, names in oracle.estimators.items()}
    return autovi.check_gradients(oracle.model, oracle.data, guide=oracle.guide, estimators=chosen, num_samples=16384)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dependent_pair", "bernoulli_plate_local_subsample2"])
def test_estimators_agree_on_oracles_and_their_means_with_the_exact_gradient(name):
    oracle, check = BY_NAME[name], checked(name)
    assert check.verdict in ("agrees", "not_known") and {r.sites[0] for r in check.rows} == set(oracle.estimators)
    exact = jax.grad(oracle.exact_elbo)({k: jnp.asarray(v) for k, v in oracle.params.items()})
    for row in check.rows:
        assert row.detectable < 1.5
        error = np.sqrt(row.variance / check.num_samples)
        assert np.linalg.norm(row.mean - np.ravel(exact[row.parameter])) < 5 * error + 1e-4


@pytest.mark.slow
def test_a_bias_is_put_down_to_its_own_site():
    """The second of two dependent Bernoullis is biased, the first is not, though its parameters move the second."""
    oracle = BY_NAME["dependent_pair"]
    first, second = oracle.estimators
    asked = {first: "score", second: TenthMore()}
    check = autovi.check_gradients(oracle.model, oracle.data, guide=oracle.guide, estimators=asked, num_samples=32768)
    assert {r.sites[0] for r in check.biased} == {second}
    assert {r.verdict for r in check[first]} <= {"agrees", "not_known"}


def mixed(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("row", len(x)):
        shifted = numpyro.sample("shifted", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(slope * x + shifted, noise), obs=y)


DATA = {"x": np.arange(4.0), "y": np.array([0.1, 2.1, 1.9, 4.2])}


@cache
def audited():
    return autovi.check_gradients(mixed, DATA, num_samples=8192)


def test_a_plan_of_rules():
    check = audited()
    assert check.verdict in ("agrees", "not_known")
    assert {(r.sites, r.parameter, r.reference) for r in check.rows} == {
        (("slope", "noise"), p, "score") for p in ("loc", "log_diagonal", "lower")
    }
    assert any(note.startswith("shifted: summed out exactly") for note in check.notes)
    # What is exact comes first, and says so with its noise: below the diagonal there is one number that counts.
    assert all(row.variance > 0 and np.isfinite(row.signal_to_noise) and 0 < row.seconds < 1 for row in check.rows)


@pytest.mark.slow
def test_all_that_is_right_at_a_site_is_compared():
    check = autovi.check_gradients(toy, (LOGIT,), argnums=0, estimators="all", num_samples=4096, num_particles=2)
    found = check.variances[("b",)]
    assert {"enumerate", "score", "disarm", "arms", "muprop", "rebar", "relax", "measure_valued"} <= set(found)
    assert "marginalize" not in found and "explicit" not in found and check.verdict == "agrees"
    assert [r.estimator for r in check.rows if r.planned] == ["enumerate"]
    assert found["enumerate"] == 0.0 and found["disarm"] < found["score"]
    assert set(check.work[("b",)]) == set(found) and "variance x time at b: enumerate no noise" in str(check)


def test_a_few_are_compared_and_their_variances_are_those_of_closed_forms():
    """E (b - 0.499)^2 at p = 1/2 with one particle: REINFORCE has variance 1.56e-2 (Tucker et al., 2017, and by hand:
    the square of f(b) (b - p), averaged, less the square of the mean), DisARM none: f(1) - f(0) is all it needs."""
    listed = [{"estimator": "score", "baseline": "none"}, "disarm"]
    options = {"estimators": listed, "num_samples": 32768, "num_particles": 1}
    check = autovi.check_gradients(toy, {"params": 0.0, "t": 0.499}, argnums=0, **options)
    found = check.variances[("b",)]
    assert set(found) == {"enumerate", "score (none)", "disarm"}
    assert found["score (none)"] == pytest.approx(0.25 * (0.501**4 + 0.499**4) / 2 - (0.002 / 4) ** 2, rel=0.02)
    assert found["disarm"] < 1e-12


def test_gradients_of_a_loss_are_those_of_its_expectation():
    """E [(b - t)^2 + c b g], g ~ Gamma(a, 2): all three gradients in closed form, c apart from any distribution."""

    def loss(params, t):
        b = numpyro.sample("b", dist.Bernoulli(logits=params["l"]))
        g = numpyro.sample("g", dist.Gamma(params["a"], 2.0))
        return (b - t) ** 2 + params["c"] * b * g

    check = autovi.check_gradients(loss, ({"l": LOGIT, "a": 1.5, "c": 2.0}, T), argnums=0, num_samples=8192)
    exact = {"l": EXACT + 2.0 * 0.75 * P * (1 - P), "a": 2.0 * P / 2, "c": P * 0.75}
    assert check.verdict == "agrees" and {(r.sites[0], r.parameter) for r in check.rows} == {
        ("b", "params['l']"),
        ("b", "params['c']"),
        ("g", "params['a']"),
        ("g", "params['c']"),
    }
    for row in check.rows:
        np.testing.assert_allclose(row.mean, exact[row.parameter[8]], atol=5 * np.sqrt(row.variance / 8192) + 1e-5)


def test_a_reference_below_a_relaxed_site_is_right():
    """The score checks x below REBAR at a, which counts the scores of what is drawn below it."""

    def loss(params):
        a = numpyro.sample("a", dist.Bernoulli(logits=params["l"]))
        x = numpyro.sample("x", dist.Normal(params["m"] + a, 1.0))
        return (x - 0.3) ** 2

    asked = {"estimators": {"a": "rebar", "x": "explicit"}, "num_samples": 4096}
    check = autovi.check_gradients(loss, ({"l": -0.4, "m": 0.7},), argnums=0, **asked)
    assert {(r.sites[0], r.reference) for r in check.rows} == {("a", "enumerate"), ("x", "score")}
    assert {r.verdict for r in check.rows} == {"agrees"}


def test_what_stochastic_grad_returned_is_checked_as_it_is():
    gradient = autovi.stochastic_grad(toy, estimators={"b": "score"}, num_samples=3)
    check = autovi.check_gradients(gradient, (LOGIT, T), num_samples=4096)
    assert (check.num_particles, check.verdict, check.rows[0].estimator) == (3, "agrees", "score")
    with pytest.raises(ValueError, match="num_particles: stochastic_grad was told of it before"):
        autovi.check_gradients(gradient, (LOGIT,), num_particles=2)
    with pytest.raises(ValueError, match="guide: a loss has none; it is for models"):
        autovi.check_gradients(gradient, (LOGIT,), guide="mean_field")
    with pytest.raises(TypeError, match="data: expected the arguments of the loss, a tuple or a dict, got float"):
        autovi.check_gradients(gradient, LOGIT)


def test_biased_estimators_are_found_and_said_to_be_so():
    options = {"argnums": 0, "estimators": ["straight_through"], "num_samples": 4096}
    check = autovi.check_gradients(toy, (LOGIT,), **options, allow_bias=True)
    found = {row.estimator: row for row in check.rows}
    assert (
        found["straight_through"].verdict == "biased" and "as a biased estimator may" in found["straight_through"].why
    )
    with pytest.raises(ValueError, match="estimators: 'straight_through' would be wrong at every site.*it is biased"):
        autovi.check_gradients(toy, (LOGIT,), **options)


# --- what it cannot tell ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_where_there_is_no_power_it_says_so():
    check = autovi.check_gradients(mixed, DATA, estimators={"shifted": "score"}, num_samples=100)
    assert check.verdict == "not_known" and "would not show; num_samples=" in str(check).replace("\n    ", " ")
    assert all(row.verdict == "not_known" or row.detectable <= 0.5 for row in check.rows)


def test_heavy_tails_are_no_bias():
    check = check_toy(Noisy())
    assert check.rows[0].verdict == "heavy_tails" and np.isnan(check.rows[0].z)


def test_gradients_that_are_not_finite_are_counted():
    (row,) = check_toy(Noisy(spoilt=True), num_particles=2).rows
    assert row.verdict == "not_finite" and "are NaN or infinite" in row.why


def test_where_nothing_else_is_right_nothing_is_checked():
    def uniform(params):
        return numpyro.sample("u", dist.Uniform(0.0, params)) ** 2

    check = autovi.check_gradients(uniform, (2.0,), argnums=0, num_samples=2048)
    (row,) = check.rows
    assert (check.verdict, row.reference, check.num_tests) == ("unchecked", None, 0)
    np.testing.assert_allclose(row.mean, 2 * 2.0 / 3, rtol=0.1)
    assert "nothing was compared" in str(check).replace("\n", " ")


# --- its words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"slope": "enumerate"}, {"shifted": "explicit"}, {"none": "score"}, {"slope": "x"}])
def test_refusals_are_those_of_a_fit(asked):
    with pytest.raises(ValueError) as of_plan:
        autovi.plan(mixed, DATA, estimators=asked)
    with pytest.raises(ValueError) as of_check:
        autovi.check_gradients(mixed, DATA, estimators=asked)
    assert str(of_check.value) == str(of_plan.value)


def test_bad_arguments():
    with pytest.raises(ValueError, match="estimators: 'disarm' would be wrong at every site, since site 'slope': "):
        autovi.check_gradients(mixed, DATA, estimators=["disarm"])
    with pytest.raises(TypeError, match="estimators: expected a dict .* got 'score'"):
        autovi.check_gradients(mixed, DATA, estimators="score")
    with pytest.raises(ValueError, match="num_samples: expected"):
        autovi.check_gradients(mixed, DATA, num_samples=0)


def test_it_prints_and_is_json():
    check = audited()
    told = json.loads(json.dumps(check.to_dict()))
    assert told["verdict"] == check.verdict and len(told["rows"]) == 3
    assert told["rows"][0]["sites"] == ["slope", "noise"]
    text = str(check)
    assert repr(check) == text and text.startswith("Gradients: ") and "log_diagonal" in text and "slope, noise" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    parser = HTMLParser()
    parser.feed(check._repr_html_())
    assert check._repr_html_().count("<tr>") == 5  # the header, three parameters, what is said of them
    with pytest.raises(KeyError, match="no row is of a site called 'nobody'; the sites are"):
        check["nobody"]


def test_every_verdict_has_its_words():
    assert {"biased", "not_finite", "heavy_tails", "not_known", "unchecked", "agrees"} == set(WORDS)
