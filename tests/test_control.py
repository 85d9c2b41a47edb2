"""What a user has in hand while a fit runs and after it: where it starts, how fast it goes, what it tells, going on."""

import logging
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.run import background
from autovi.run.clock import Seconds
from autovi.run.stopping import CHUNK

Y = np.random.default_rng(0).normal(3.0, 1.0, size=12).astype(np.float32)
QUIET = {"progress_bar": False}
STILL = {"learning_rate": 1e-12, "num_steps": 1, "progress_bar": False}  # the parameters are those of the start


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("n", 12):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


@pytest.fixture(scope="module")
def short():
    return autovi.fit(model, {"y": Y}, num_steps=300, **QUIET)


def assert_same_params(a, b):
    assert set(a.params) == set(b.params)
    for name in a.params:
        np.testing.assert_array_equal(a.params[name], b.params[name], err_msg=name)


class StopAt:
    def __init__(self, step):
        self.step, self.seen = step, []

    def __call__(self, report):
        self.seen.append(report.step)
        return report.step >= self.step


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"num_steps": 650}, {"max_steps": 900}], ids=["num_steps", "until it stands still"])
def test_a_stopped_fit_goes_on_to_what_it_would_have_been(asked):
    whole = autovi.fit(model, {"y": Y}, **asked, **QUIET)
    stopped = autovi.fit(model, {"y": Y}, **asked, callback=StopAt(300), **QUIET)
    assert (stopped.status, stopped.losses.size) == ("stopped", 300)
    rest = {} if "num_steps" in asked else {"max_steps": 600}
    again = stopped.resume(**rest)
    assert again.losses.size == whole.losses.size and again.status == whole.status == "max_steps"
    np.testing.assert_array_equal(again.losses, whole.losses)
    assert_same_params(again, whole)


def test_going_on_leaves_the_fit_as_it_was(short):
    before, losses = {n: v.copy() for n, v in short.params.items()}, short.losses.copy()
    more = short.resume(200)
    assert more.losses.size == 500 and more.status == "max_steps" and "200 steps" in more.message
    np.testing.assert_array_equal(more.losses[:300], losses)
    for name, value in before.items():
        np.testing.assert_array_equal(short.params[name], value)
    assert np.any(more.params["joint.loc"] != short.params["joint.loc"]) and np.isfinite(short.sample(3)["mu"]).all()


def test_new_data_of_the_same_sizes(short):
    moved = short.resume(1500, data={"y": Y + 1.0})
    exact = autovi.fit(model, {"y": Y + 1.0}, num_steps=1500, **QUIET)
    mean, sd = exact.sample(2000)["mu"].mean(), exact.sample(2000)["mu"].std()
    assert abs(moved.sample(2000)["mu"].mean() - mean) < 0.3 * sd
    np.testing.assert_array_equal(moved.idata["observed_data"]["y"], Y + 1.0)


def test_going_on_is_refused_where_it_cannot_be(short, tmp_path):
    def local(y):
        with numpyro.plate("n", len(y)):
            numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    fit = autovi.fit(local, {"y": Y}, num_steps=1, **QUIET)
    with pytest.raises(ValueError, match=r"resume: with these data .* autovi.fit\(model, data, init=fit\)"):
        fit.resume(10, data={"y": Y[:5]})
    with pytest.raises(ValueError, match="num_steps: expected an integer of at least 1 or None, got 0"):
        fit.resume(0)
    scheduled = autovi.fit(model, {"y": Y}, num_steps=1, learning_rate=optax.constant_schedule(0.01), **QUIET)
    scheduled.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", model)
    with pytest.raises(ValueError, match="learning_rate: the fit had a schedule, which a file does not hold"):
        loaded.resume(10)
    assert loaded.resume(10, learning_rate=0.01).losses.size == 11


def test_a_loaded_fit_goes_on_as_the_fit_itself(short, tmp_path):
    short.save(tmp_path / "fit", with_data=True)
    a, b = short.resume(150), autovi.load(tmp_path / "fit", model).resume(150)
    np.testing.assert_array_equal(a.losses, b.losses)
    assert_same_params(a, b)


# --- callbacks and the log --------------------------------------------------------------------------------------------


def test_the_callback_is_told_of_every_chunk_and_may_stop():
    stop = StopAt(300)
    fit = autovi.fit(model, {"y": Y}, num_steps=1000, callback=stop, **QUIET)
    assert stop.seen == [CHUNK, 2 * CHUNK, 3 * CHUNK] and fit.losses.size == 300
    assert (fit.status, fit.message) == ("stopped", "stopped by the callback after 300 steps")


def test_the_report_has_losses_and_parameters():
    seen = []
    fit = autovi.fit(
        model, {"y": Y}, num_steps=250, callback=lambda r: seen.append((r.step, r.loss, r.losses, r.params)), **QUIET
    )
    assert [s[0] for s in seen] == [100, 200, 250]
    np.testing.assert_array_equal(np.concatenate([s[2] for s in seen]), fit.losses)
    assert seen[1][1] == pytest.approx(fit.losses[100:200].mean())
    for name, value in fit.params.items():
        np.testing.assert_array_equal(seen[-1][3][name], value)


def test_a_report_prints_step_and_loss():
    seen = []
    autovi.fit(model, {"y": Y}, num_steps=100, callback=lambda r: seen.append((repr(r), r.loss)), **QUIET)
    assert seen[0][0] == f"Report(step=100, loss={seen[0][1]:.6g})"


def test_a_callback_changes_nothing(short):
    watched = autovi.fit(model, {"y": Y}, num_steps=300, callback=lambda report: None, **QUIET)
    np.testing.assert_array_equal(watched.losses, short.losses)


def test_what_a_callback_raises_ends_the_fit_and_loses_nothing(caplog):
    def broken(report):
        raise KeyError("lr")

    def stops(report):
        raise StopIteration

    fit = autovi.fit(model, {"y": Y}, num_steps=500, callback=broken, **QUIET)
    assert fit.status == "stopped" and "after 100 steps, since the callback raised KeyError: 'lr'" in fit.message
    assert "the callback raised an exception" in caplog.text and "in broken" in caplog.text
    assert autovi.fit(model, {"y": Y}, num_steps=500, callback=stops, **QUIET).message.startswith(
        "stopped by the callb"
    )


def test_parameters_are_read_within_the_callback():
    kept = []
    autovi.fit(model, {"y": Y}, num_steps=100, callback=kept.append, **QUIET)
    with pytest.raises(RuntimeError, match="read report.params within the callback"):
        _ = kept[0].params


def test_the_log_tells_how_it_ended(caplog):
    with caplog.at_level(logging.INFO, logger="autovi"):
        autovi.fit(model, {"y": Y}, num_steps=200, **QUIET)
    assert "max_steps after 200 steps: ran the 200 steps asked for" in caplog.text


# --- learning rates ---------------------------------------------------------------------------------------------------


def test_the_learning_rate_is_that_of_the_built_in_optimizer(short):
    same = autovi.fit(model, {"y": Y}, num_steps=300, learning_rate=0.05, **QUIET)
    np.testing.assert_array_equal(same.losses, short.losses)
    slow = autovi.fit(model, {"y": Y}, num_steps=300, learning_rate=1e-5, **QUIET).params["joint.loc"]
    start = autovi.fit(model, {"y": Y}, **STILL).params["joint.loc"]
    assert 0 < np.abs(slow - start).max() < 300e-5 < np.abs(short.params["joint.loc"] - start).max()


def test_a_schedule_is_that_of_optax():
    schedule = optax.exponential_decay(0.1, 50, 0.5)
    a = autovi.fit(model, {"y": Y}, num_steps=300, learning_rate=schedule, **QUIET)
    b = autovi.fit(model, {"y": Y}, num_steps=300, optimizer=optax.adam(schedule), **QUIET)
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)
    one_by_one = autovi.fit(model, {"y": Y}, num_steps=300, learning_rate=lambda k: 0.1 if k < 50 else 0.01, **QUIET)
    assert np.isfinite(one_by_one.losses).all()


def test_a_schedule_that_goes_wrong_ends_the_fit():
    fit = autovi.fit(model, {"y": Y}, num_steps=500, learning_rate=lambda k: jnp.where(k < 250, 0.01, jnp.nan), **QUIET)
    assert fit.status == "stopped" and fit.losses.size == 200
    assert "learning_rate: the schedule gives nan at step 250; expected 0 or more" in fit.message


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number or an Optax schedule, got str"),
        ({"learning_rate": 0.1, "optimizer": optax.adam(0.1)}, "learning_rate: it is for autovi's own optimizer"),
        ({"learning_rate": lambda k: -1.0}, "learning_rate: the schedule gives -1.0 at step 0"),
        ({"init": "here"}, r"init: unknown name 'here'; expected one of \['prior', 'median'\]"),
        ({"init": 3.0}, "init: expected a dict from site to value, a Fit, or one of .*, got float"),
        ({"init": {"nu": 1.0}}, r"init: no site is called 'nu'; those that can start at a value are \['mu', 'sigma'\]"),
        ({"init": {"sigma": -1.0}}, r"init: the value of site 'sigma' is outside its support \(positive\)"),
        ({"init": {"mu": np.zeros(3)}}, r"init: site 'mu' has shape \(\), got a value of shape \(3,\)"),
        ({"init": {"mu": "one"}}, "init: expected numbers for site 'mu', got 'one'"),
    ],
)
def test_what_is_refused(asked, said):
    with pytest.raises((ValueError, TypeError), match=said):
        autovi.fit(model, {"y": Y}, num_steps=1, **asked, **QUIET)


# --- where it starts --------------------------------------------------------------------------------------------------


def test_starting_at_values():
    fit = autovi.fit(model, {"y": Y}, guide="mean_field", init={"mu": 2.5, "sigma": 0.7}, **STILL)
    np.testing.assert_allclose(fit.params["joint.loc"], [2.5, np.log(0.7)], rtol=1e-5)


def every_kind(y=None):
    """Own family, matrix, vector in a plate, two sites that a plate's elements have in common, a scan, a simplex."""
    numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("chol", dist.LKJCholesky(3, 1.0))
    low = numpyro.sample("low", dist.Normal(0.0, 1.0))
    numpyro.sample("above", dist.Uniform(low, low + 10.0))
    with numpyro.plate("n", 12, subsample_size=5) as i:
        numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("v", dist.Dirichlet(jnp.ones(3)))
        if y is not None:
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y[i])


def chol_of(seed):
    return np.asarray(dist.LKJCholesky(3, 1.0).sample(jax.random.key(seed)))


@pytest.mark.parametrize("guide", ["auto", "mean_field"])
def test_every_kind_of_site_starts_at_its_value(guide):
    rng = np.random.default_rng(1)
    values = {
        "rate": 1.7,
        "chol": chol_of(0),
        "low": 0.4,
        "above": 2.0,
        "u": rng.normal(size=12),
        "v": rng.dirichlet(np.ones(3), size=12),
    }
    # A posterior as narrow as it starts, so that its draws are near its start.
    fit = autovi.fit(every_kind, {"y": Y}, guide=guide, init=values, num_draws=400, **STILL)
    for name, value in values.items():
        drawn = np.median(fit.draws.values[name], axis=0)
        np.testing.assert_allclose(drawn, value, atol=0.12, err_msg=name)


def test_sites_that_are_not_named_start_as_usual():
    fit = autovi.fit(model, {"y": Y}, guide="mean_field", init={"mu": 2.5}, **STILL)
    loc = fit.params["joint.loc"]
    assert loc[0] == pytest.approx(2.5) and np.isfinite(loc[1]) and loc[1] != 0.0


@pytest.mark.parametrize("init, width", [("prior", 5.0), ("median", 2.0)])
def test_starting_at_the_prior(init, width):
    def far(y):
        mu = numpyro.sample("mu", dist.Normal(1000.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    loc = autovi.fit(far, {"y": 1000.0}, guide="mean_field", init=init, **STILL).draws.values["mu"].mean()
    assert abs(loc - 1000.0) < width and loc != 1000.0


def test_starting_at_another_fit(short):
    same = autovi.fit(model, {"y": Y + 1.0}, init=short, **STILL)
    assert_same_params(same, short)
    # Another family: from the posterior means.
    other = autovi.fit(model, {"y": Y}, guide="mean_field", init=short, **STILL)
    means = [short.draws.values[name].mean() for name in ("mu", "sigma")]
    np.testing.assert_allclose(other.params["joint.loc"], [means[0], np.log(means[1])], rtol=1e-4)


def test_a_fit_of_other_sites_is_refused(short):
    def other(y):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"init: the fit has no site of the same name and shape .* \['mu', 'sigma'\]"):
        autovi.fit(other, {"y": 1.0}, init=short, **STILL)


def test_parameters_of_a_guide_function_start_at_values():
    def guide(y=None):
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        numpyro.sample("mu", dist.Normal(loc, scale))
        numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))

    fit = autovi.fit(model, {"y": Y}, guide=guide, init={"loc": 2.0, "scale": 0.3}, **STILL)
    assert (fit.params["loc"], fit.params["scale"]) == (pytest.approx(2.0), pytest.approx(0.3))
    with pytest.raises(ValueError, match="init: site 'mu' cannot start at a value, since the guide function draws it"):
        autovi.fit(model, {"y": Y}, guide=guide, init={"mu": 2.0}, **STILL)
    with pytest.raises(ValueError, match=r"init: the value of parameter 'scale' is outside its constraint"):
        autovi.fit(model, {"y": Y}, guide=guide, init={"scale": -2.0}, **STILL)


# --- time and Ctrl-C --------------------------------------------------------------------------------------------------


def test_seconds_say_what_went_where():
    autovi.clear_cache()
    fit = autovi.fit(model, {"y": Y}, num_steps=100, **QUIET)
    seconds = fit.seconds
    assert seconds.trace > 0 and seconds.compile > seconds.run > 0 and seconds.diagnostics == 0
    before = seconds.total
    _ = fit.elbo
    assert seconds.diagnostics > 0 and seconds.total == pytest.approx(before + seconds.diagnostics)
    assert str(Seconds(1.25, 2.0, 0.031)) == "3.3 s (trace 1.2, compile 2, run 0.031, diagnostics 0)"


def test_a_line_stands_while_it_compiles(capsys):
    autovi.clear_cache()
    fit = autovi.fit(model, {"y": Y}, num_steps=100, progress_bar=True)
    shown = capsys.readouterr().err
    assert "compiling, about " in shown and "100/100" in shown
    fit.sample(7)
    assert "computing 7 posterior draws" in capsys.readouterr().err


def test_ctrl_c_during_compilation_is_heard_at_once(monkeypatch):
    autovi.clear_cache()
    compile_it = background.Compiling._compile

    def slow(self):
        time.sleep(3.0)
        compile_it(self)

    monkeypatch.setattr(background.Compiling, "_compile", slow)
    heard = threading.Event()

    def press():
        # Python drops an interrupt that falls into a callback of its garbage collector: one presses again.
        while not heard.wait(1.0):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt, match="stopped by Ctrl-C before the first step: there is no fit"):
        try:
            autovi.fit(model, {"y": Y}, num_steps=100, **QUIET)
        finally:
            heard.set()
    waiting = [t for t in threading.enumerate() if t.name == "autovi-compile"]
    assert waiting  # it did not wait for them
    monkeypatch.undo()
    assert autovi.fit(model, {"y": Y}, num_steps=100, **QUIET).losses.size == 100


def test_ctrl_c_in_the_model_leaves_nothing_behind():
    def interrupted(y):
        numpyro.sample("mu", dist.Normal(0.0, 1.0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="before the first step"):
        autovi.fit(interrupted, {"y": Y}, num_steps=100, **QUIET)
    assert autovi.fit(model, {"y": Y}, num_steps=100, **QUIET).losses.size == 100


def test_a_program_that_cannot_be_compiled_is_tried_again(monkeypatch):
    autovi.clear_cache()

    def fails(self):
        self._error = RuntimeError("no room")

    monkeypatch.setattr(background.Compiling, "_compile", fails)
    with pytest.raises(RuntimeError, match="no room"):
        autovi.fit(model, {"y": Y}, num_steps=100, **QUIET)
    monkeypatch.undo()
    assert autovi.fit(model, {"y": Y}, num_steps=100, **QUIET).losses.size == 100
