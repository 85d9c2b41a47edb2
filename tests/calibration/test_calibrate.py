"""Calibrations as a whole: right posteriors pass, wrong ones are found, and no simulation is lost without a word."""

import signal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import autovi
from autovi.calibration import calibrate as whole
from autovi.calibration import fits

X = np.array([4.0, 5.0, 6.0, 7.0])
QUIET = {"progress_bar": False}


def line(x, y=None):
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(level + slope * x, 1.0), obs=y)


def mean(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("row", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def of_mean(**options):
    return autovi.calibrate(mean, **{"num_simulations": 12, **QUIET, **options})


@pytest.fixture(scope="module")
def right():
    return autovi.calibrate(line, {"x": X}, num_simulations=60, **QUIET)


def test_right_posteriors_are_calibrated(right):
    """With the exact posterior: means and sds of all simulations, and what is said of them."""
    assert (right.status, right.verdict.word, right.lost) == ("finished", "calibrated", ())
    assert right.quantities == ("level", "slope", "log_likelihood")
    precision = np.diag([0.25, 1.0]) + np.array([[4.0, X.sum()], [X.sum(), (X**2).sum()]])
    sds = np.sqrt(np.diag(np.linalg.inv(precision)))
    for name, sd in zip(("level", "slope"), sds, strict=True):
        np.testing.assert_allclose(right.sds[name], sd, rtol=0.12)  # of 1,000 draws, 5 errors
        scores = (right.means[name] - right.truths[name]) / sd
        assert abs(scores.mean()) < 4.5 / np.sqrt(60)
        assert stats.kstest(right.ranks[name], "uniform").pvalue > 1e-5
    assert right["slope"].is_calibrated and right.verdicts == {"good": 60}
    assert "over 60 simulations" in right.verdict.sentence and "would have shown" in right.verdict.sentence


def test_the_log_likelihood_is_that_of_the_model(right):
    truth, data = right.simulation(5)
    expected = stats.norm.logpdf(data["y"], truth["level"] + truth["slope"] * X).sum()
    assert right.truths["log_likelihood"][5] == pytest.approx(expected, rel=1e-5)
    assert truth["level"] == right.truths["level"][5]


def test_a_family_that_is_too_narrow_is_found():
    found = autovi.calibrate(line, {"x": X}, num_simulations=40, guide="mean_field", num_steps=600, **QUIET)
    assert found.plain.verdict.word == "miscalibrated"
    assert found.plain["level"].words == ("too_narrow",) and found.plain["slope"].words == ("too_narrow",)
    # Both are correlated with -0.95, so that conditional sds are 0.3 of the marginal ones.
    assert "sds about 0." in found.plain["level"].said
    assert found.plain["level"].coverage[2].share < 0.7


def test_draws_are_those_that_a_user_gets():
    """Of a mild correlation, that importance weights put right: sds of the draws are those of the posterior, and those
    of plain draws are smaller by a quarter, as normals that ignore it are."""
    x = np.array([0.0, 0.5, 1.0, 1.5])
    found = autovi.calibrate(line, {"x": x}, num_simulations=12, guide="mean_field", num_steps=1500, **QUIET)
    precision = np.diag([0.25, 1.0]) + np.array([[4.0, x.sum()], [x.sum(), (x**2).sum()]])
    exact = np.sqrt(np.diag(np.linalg.inv(precision))[0])
    corrected = np.array([o.resampled for o in found.outcomes])
    assert corrected.sum() > 5
    np.testing.assert_allclose(found.sds["level"][corrected].mean(), exact, rtol=0.06)
    np.testing.assert_allclose(found.plain.sds["level"].mean(), 1 / np.sqrt(precision[0, 0]), rtol=0.06)
    plain = found.plain.ranks["level"]
    assert np.array_equal(plain == found.ranks["level"], ~corrected)


def test_a_wrong_likelihood_is_found():
    def noisier(x, y=None):
        level = numpyro.sample("level", dist.Normal(0.0, 2.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Normal(level + slope * x + 0.7, 3.0), obs=y)

    found = autovi.calibrate(line, {"x": X}, generator=noisier, num_simulations=40, **QUIET)
    assert found.verdict.word == "miscalibrated" and "too_narrow" in found["level"].words
    # Truths explain noisy data less well than what is fitted to them.
    assert "biased_high" in found["log_likelihood"].words
    assert "'log_likelihood' is biased high by" in found.verdict.sentence


def test_a_posterior_that_is_the_prior_is_found_by_the_log_likelihood_alone():
    def guide(y=None):
        numpyro.sample("mu", dist.Normal(numpyro.param("zero", 0.0), 2.0))

    found = of_mean(guide=guide, num_simulations=40, num_steps=1, learning_rate=1e-9)
    assert found.plain["mu"].is_calibrated
    assert found.plain["log_likelihood"].words != ("calibrated",)


def test_discrete_sites_and_counts():
    def model(y=None):
        on = numpyro.sample("on", dist.Bernoulli(0.3))
        rate = numpyro.sample("rate", dist.Gamma(3.0, 1.0))
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.Poisson(rate * (1.0 + on)), obs=y)

    found = autovi.calibrate(model, num_simulations=20, **QUIET)
    assert found.verdict.word == "calibrated" and set(np.unique(found.truths["on"])) == {0.0, 1.0}
    assert stats.kstest(found.ranks["on"], "uniform").pvalue > 1e-5


def test_quantities_of_draws_and_data():
    """A function of both, an array, and one that a wrong model shows."""
    quantities = {
        "error": lambda draw, data: jnp.mean(data["y"]) - draw["mu"],
        "powers": lambda draw, data: draw["mu"] ** jnp.arange(1, 3),
    }
    found = of_mean(quantities=quantities, sites="m*")
    assert found.quantities == ("mu", "error", "powers[0]", "powers[1]", "log_likelihood")
    _, data = found.simulation(3)
    assert found.truths["error"][3] == pytest.approx(data["y"].mean() - found.truths["mu"][3], abs=1e-5)
    np.testing.assert_array_equal(found.truths["powers[0]"], found.truths["mu"])


def test_the_first_of_more_simulations_are_the_same():
    few, more = of_mean(num_simulations=4), of_mean(num_simulations=6)
    np.testing.assert_allclose(more.ranks["mu"][:4], few.ranks["mu"], rtol=1e-5, atol=0.002)
    np.testing.assert_array_equal(more.truths["mu"][:4], few.truths["mu"])
    assert not np.allclose(of_mean(num_simulations=4, rng_key=1).truths["mu"], few.truths["mu"])


# --- what has no ranks -----------------------------------------------------------------------------------------------


def positive(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", 3):
        numpyro.sample("y", dist.LogNormal(mu, 1.0), obs=y)


def sometimes_negative(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", 3):
        numpyro.sample("y", dist.Normal(mu + 3.0, 1.0), obs=y)


def test_fits_that_raise_are_counted_and_named():
    found = autovi.calibrate(positive, generator=sometimes_negative, num_simulations=20, **QUIET)
    wrong = [i for i in range(20) if np.any(found.simulation(i)[1]["y"] <= 0)]
    assert wrong and [o.number for o in found.lost] == wrong
    assert {o.status for o in found.lost} == {"raised"} and len(found.ranks["mu"]) == 20 - len(wrong)
    said = found.lost[0].message
    assert said.startswith("ValueError: site 'y': observations lie outside the support")
    assert f"{len(wrong)} the fit raised (number {wrong[0]}" in " ".join(str(found).split())


def test_fits_that_all_raise_are_the_error_of_the_first():
    def negative(y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(mu - 50.0, 1.0), obs=y)

    with pytest.raises(ValueError, match="observations lie outside") as caught:
        autovi.calibrate(positive, generator=negative, num_simulations=20, **QUIET)
    assert "the fits of the first 10 simulated data sets all raised" in caught.value.__notes__[0]


def test_what_raises_after_the_fit_is_counted_too(monkeypatch):
    def broken(self):
        raise RuntimeError("no verdict")

    monkeypatch.setattr(autovi.Fit, "verdict", property(broken))
    found = of_mean(num_simulations=2)
    assert [(o.status, o.message) for o in found.lost] == [("raised", "RuntimeError: no verdict")] * 2


def test_a_model_that_needs_values_of_its_data_is_compiled_once():
    def model(group, y=None):
        with numpyro.plate("groups", int(group.max()) + 1):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(group)):
            numpyro.sample("y", dist.Normal(mu[group], 1.0), obs=y)

    found = autovi.calibrate(model, {"group": np.array([0, 1, 1])}, num_simulations=3, **QUIET)
    assert found.verdicts == {"good": 3} and found.quantities == ("mu[0]", "mu[1]", "log_likelihood")
    np.testing.assert_allclose(found.sds["mu[1]"], 1 / np.sqrt(3), rtol=0.12)


def test_data_that_are_not_finite_are_counted_and_named():
    def model(y=None):
        log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 60.0))
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(0.0, jnp.exp(log_scale)), obs=y)

    found = autovi.calibrate(model, num_simulations=30, num_steps=5, **QUIET)
    lost = [o for o in found.lost if o.status == "not_finite"]
    assert lost and all(not np.all(np.isfinite(found.simulation(o.number)[1]["y"])) for o in lost)
    assert f"{len(lost)} not finite (number {lost[0].number}" in " ".join(str(found).split())


# --- kept, and stopped -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process."""


def ending(monkeypatch, after, end):
    """Ends the calibration in the outcome number `after`."""
    calls, made = [], whole.outcome_of

    def outcome_of(*args):
        calls.append(args[0].number)
        if len(calls) == after:
            end()
        return made(*args)

    monkeypatch.setattr(whole, "outcome_of", outcome_of)
    return calls


def kill():
    raise Killed


def test_a_killed_calibration_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    place = autovi.Checkpoint(tmp_path, seconds=0)
    monkeypatch.setattr(fits, "AT_ONCE", 4)
    expected = of_mean()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        ending(patch, 7, kill)
        of_mean(checkpoint=place)
    calls = ending(monkeypatch, 10**6, kill)
    found = of_mean(checkpoint=place)
    assert calls[0] in (4, 6) and calls[-1] == 11
    for kind in ("ranks", "truths", "means", "sds"):
        np.testing.assert_array_equal(getattr(found, kind)["mu"], getattr(expected, kind)["mu"])
    assert [vars(o) | {"seconds": 0} for o in found.lost] == [] and found.verdicts == expected.verdicts
    # One that has ended is not run again, and a longer one goes on from it.
    calls.clear()
    assert str(of_mean(checkpoint=place)) == str(found) and not calls
    assert len(of_mean(checkpoint=place, num_simulations=13).fitted) == 13 and calls == [12]
    assert len(of_mean(checkpoint=place, num_simulations=5).fitted) == 5


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (r"rng_key", {"rng_key": 1}),
        (r"num_draws \(it was not there, and is 500\)", {"num_draws": 500}),
        ("quantities", {"quantities": {"double": lambda draw, data: 2 * draw["mu"]}}),
        ("generator", {"generator": sometimes_negative}),
    ],
)
def test_the_folder_of_another_calibration_is_refused(said, options, tmp_path):
    of_mean(num_simulations=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=f"checkpoint: .* belongs to another calibration, of which differs: {said}"):
        of_mean(num_simulations=1, checkpoint=tmp_path, **options)


def test_the_folder_of_a_fit_is_refused(tmp_path):
    autovi.fit(mean, {"y": np.zeros(3)}, num_steps=100, checkpoint=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="checkpoint: .* belongs to a fit"):
        of_mean(checkpoint=tmp_path)


def test_ctrl_c_gives_back_what_is_done(monkeypatch):
    """With the rest of the fits that were made together."""
    monkeypatch.setattr(fits, "AT_ONCE", 4)
    calls = ending(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    found = of_mean()
    assert found.status == "stopped" and calls == list(range(8)) and len(found.fitted) == 8
    assert "stopped after 8" in str(found) and found.verdict.word == "calibrated"


def test_ctrl_c_in_the_steps_of_a_fit_leaves_that_one_out(monkeypatch):
    """A fit takes Ctrl-C itself, and gives back what there is: that is no fit to be ranked."""
    from autovi.run import loop

    counted, chunk = [], loop.Progress.schedule

    def schedule(self, step):
        counted.append(step)
        if len(counted) == 25:
            signal.raise_signal(signal.SIGINT)
        return chunk(self, step)

    monkeypatch.setattr(loop.Progress, "schedule", schedule)
    monkeypatch.setattr(fits, "AT_ONCE", 1)
    found = of_mean(num_steps=1000)  # ten chunks
    assert found.status == "stopped" and len(found.fitted) == 2
    assert {o.fit_status for o in found.fitted} == {"max_steps"}


def test_nothing_done_is_said():
    found = of_mean(num_simulations=1)
    nothing = type(found)(found.quantities, (), 5, 0.01, "stopped")
    assert nothing.verdict.word == "unknown" and "no simulation has ranks" in str(nothing)
    assert nothing.rows[0].count == 0 and len(nothing.summary()) == 2


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said", "options"),
    [
        (ValueError, "num_simulations: expected an integer of at least 1", {"num_simulations": 0}),
        (ValueError, "level: expected a number between 0 and 1, got 2", {"level": 2}),
        (ValueError, r"sites: expected names or globs of \['mu'\], got \['tau'\]", {"sites": ["tau"]}),
        (TypeError, "quantities: expected a mapping", {"quantities": ["mu"]}),
        (TypeError, r"quantities\['a'\]: expected a function", {"quantities": {"a": 1}}),
        (ValueError, r"quantities\['mu'\]: a site or another quantity has this name", {"quantities": {"mu": len}}),
        (TypeError, "steps: neither calibrate nor fit has an argument of this name", {"steps": 3}),
        (ValueError, "guide: unknown name 'meanfield'", {"guide": "meanfield"}),
        (ValueError, "generator: it has no site in common with the model", {"generator": None}),
    ],
)
def test_bad_arguments(error, said, options):
    def stranger(y=None):
        other = numpyro.sample("other", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(other, 1.0).expand([3]).to_event(1), obs=y)

    if "generator" in options:
        options = {"generator": stranger}
    with pytest.raises(error, match=said):
        of_mean(**options)
