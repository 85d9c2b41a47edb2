"""The loop: how many steps, how it ends, and what it skips."""

import re
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.preparation import Options, prepare
from autovi.run.loop import optimize
from autovi.run.stopping import CHUNK, HOPELESS, Progress

Y = np.array([0.5, 1.0, 1.5, 3.0])


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def quick(model, data, **options):
    return autovi.fit(model, data, **{"num_steps": 50, "num_draws": 50, "progress_bar": False, **options})


# --- how many steps, and how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 99, 100, 101, 250])
def test_every_step_has_a_loss(num_steps):
    fit = quick(model, {"y": Y}, num_steps=num_steps)
    assert fit.losses.shape == (num_steps,) and np.isfinite(fit.losses).all()
    assert fit.status == "max_steps" and f"the {num_steps} step{'s' * (num_steps > 1)} asked for" in fit.message


def test_one_chunk_is_a_beginning_of_the_next():
    """Whether a chunk is full or not, the steps in it are the same."""
    short, long = (quick(model, {"y": Y}, num_steps=n, optimizer=optax.sgd(0.01)) for n in (30, 130))
    np.testing.assert_array_equal(short.losses, long.losses[:30])


def test_converged():
    fit = quick(model, {"y": Y}, num_steps=None, learning_rate=0.05)
    assert fit.status == "converged"
    assert "stands still" in fit.message and "standard error" in fit.message and "nats" in fit.message
    assert fit.losses.size % CHUNK == 0 and fit.losses.size < 20_000
    mu = fit.sample(5000)["mu"]
    assert mu.mean() == pytest.approx(6 / 5, abs=0.04) and mu.std() == pytest.approx(0.2**0.5, rel=0.05)


def test_converged_with_an_optimizer_of_ones_own():
    fit = quick(model, {"y": Y}, num_steps=None, optimizer=optax.adam(0.02), num_particles=16)
    assert fit.status == "converged" and re.search("stands still: going on would gain", fit.message)
    mu = fit.sample(5000)["mu"]
    assert mu.mean() == pytest.approx(6 / 5, abs=0.06) and mu.std() == pytest.approx(0.2**0.5, rel=0.1)


def test_another_kind_of_key():
    """A second fit of the same shapes with a key of another implementation has a state of another type."""
    fits = [quick(model, {"y": Y}, rng_key=key) for key in (0, jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0))]
    assert all(np.isfinite(fit.losses).all() for fit in fits)
    # Old-style and integer keys are the same stream.
    np.testing.assert_array_equal(fits[0].losses, fits[2].losses)


@pytest.mark.slow
def test_restarts_keep_the_best():
    def two_modes(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        numpyro.factor("modes", jnp.logaddexp(3.0 - 8.0 * (mu - 3.0) ** 2, -8.0 * (mu + 3.0) ** 2))

    fits = [quick(two_modes, {"y": Y}, num_steps=600, num_restarts=n, rng_key=3) for n in (1, 8)]
    assert fits[1].elbo >= fits[0].elbo - 0.1
    assert fits[1].sample(100)["mu"].mean() == pytest.approx(3.0, abs=0.2)


def test_max_steps():
    fit = quick(model, {"y": Y}, num_steps=None, max_steps=350)
    assert fit.losses.shape == (350,)
    assert fit.status == "max_steps" and "max_steps=350" in fit.message


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def interrupting(at, times=1):
    """A progress bar at whose `at`-th update the user presses Ctrl-C."""
    from autovi.run.loop import tqdm

    class Bar(tqdm):
        updates = 0

        def update(self, n=1):
            self.updates += 1
            if self.updates == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            return super().update(n)

    return Bar


@pytest.mark.parametrize("num_steps", [None, 50_000])
def test_ctrl_c_returns_what_there_is(monkeypatch, num_steps):
    monkeypatch.setattr("autovi.run.loop.tqdm", interrupting(at=3))
    before = signal.getsignal(signal.SIGINT)
    fit = quick(model, {"y": Y}, num_steps=num_steps, learning_rate=0.05, progress_bar=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert fit.status == "stopped" and f"after {fit.losses.size} steps" in fit.message
    assert 300 <= fit.losses.size <= 500 and np.isfinite(fit.losses).all()
    assert all(np.isfinite(value).all() for value in fit.params.values())
    assert np.isfinite(fit.sample(10)["mu"]).all() and np.isfinite(fit.elbo)
    assert "mu" in fit.summary().index


def test_a_second_ctrl_c_interrupts_at_once(monkeypatch):
    monkeypatch.setattr("autovi.run.loop.tqdm", interrupting(at=2, times=2))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick(model, {"y": Y}, num_steps=50_000, progress_bar=True)
    assert signal.getsignal(signal.SIGINT) is before


def test_fits_in_a_thread():
    """Signals belong to the main thread: elsewhere they are left alone."""
    found = []
    worker = threading.Thread(target=lambda: found.append(quick(model, {"y": Y}).status))
    worker.start()
    worker.join()
    assert found == ["max_steps"]


# --- steps that are not finite ---------------------------------------------------------------------------------------


def test_bad_steps_are_skipped_counted_and_named():
    def sometimes(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.factor("trap", 0.1 * jnp.log(2.2 - mu))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = quick(sometimes, {"y": np.array(1.5)}, num_steps=600, num_particles=2)
    bad = ~np.isfinite(fit.losses)
    assert fit.skipped_steps == bad.sum() and 5 < fit.skipped_steps < 200
    assert fit.status == "max_steps"
    assert f"{fit.skipped_steps} of 600 steps" in fit.message and "'trap'" in fit.message
    assert all(np.isfinite(value).all() for value in fit.params.values())
    assert 0.2 < fit.params["mu.loc"].item() < 1.2


def test_all_steps_bad():
    """A density that is finite everywhere and has no derivative anywhere."""

    def never(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + jnp.sqrt(0.0 * mu), 1.0), obs=y)

    fit = quick(never, {"y": np.array(1.5)}, num_steps=120)
    assert fit.status == "failed" and fit.skipped_steps == 120
    assert "120 of 120 steps" in fit.message and "'mu'" in fit.message
    assert all(np.isfinite(value).all() for value in fit.params.values())


def test_a_hopeless_fit_ends_early():
    def never(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + jnp.sqrt(0.0 * mu), 1.0), obs=y)

    fit = quick(never, {"y": np.array(1.5)}, num_steps=None, learning_rate=0.05)
    assert fit.status == "failed" and fit.losses.size == HOPELESS * CHUNK


def toy(bad=lambda key: False, optimizer=None, baseline=False):
    """The loss |p - e|^2 / 2 with noise e around TARGET, where its minimum is. As a program: e is drawn alike in model
    and guide, so that only the factor counts. With `baseline` a site is added whose estimator has a moving average."""

    def model(target):
        e = numpyro.sample("e", dist.Normal(target, 1.0).to_event(1))
        p = numpyro.param("p", jnp.zeros(2))
        z = numpyro.sample("z", dist.Bernoulli(0.5)) if baseline else 0.0
        loss = 0.5 * jnp.sum((p - e) ** 2) + z
        numpyro.factor("loss", -jnp.where(bad(numpyro.prng_key()), jnp.nan, 1.0) * loss)

    def guide(target):
        numpyro.sample("e", dist.Normal(target, 1.0).to_event(1))
        if baseline:
            numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logit", jnp.zeros(()))))

    estimators = {"z": {"estimator": "score", "baseline": "moving_average"}} if baseline else None
    options = Options(guide=guide, optimizer=optimizer, num_particles=1, estimators=estimators)
    return prepare(model, {"target": TARGET}, options)


TARGET = np.array([1.0, -1.0], np.float32)


def begin(engine, inputs, seed=0):
    """The chunk and the state before the first step."""
    start, chunk = engine.compile(inputs.traced(), seed)
    return chunk, start(inputs.traced(), seed)[0]


@pytest.mark.parametrize("baseline", [False, True])
def test_a_bad_step_changes_nothing_but_the_counts(baseline):
    engine, inputs = toy(bad=lambda key: True, baseline=baseline)
    chunk, state = begin(engine, inputs)
    before = jax.tree.map(np.asarray, state._replace(rng_key=None))
    after, losses = chunk(state, inputs.traced(), Progress(CHUNK, CHUNK).schedule(0))
    for name in ("params", "optimizer", "average", "estimators", "estimator_optimizers"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert bool(jax.tree.leaves(after.estimators)) == baseline
    assert np.isnan(losses).all()
    assert int(after.skipped) == int(after.step) == CHUNK
    counts = dict(zip(engine.program.term_names, after.bad_terms.tolist(), strict=True))
    assert counts["p:loss"] == CHUNK and counts["p:e"] == 0
    assert (after.bad_params.whole["param"]["p"] == CHUNK).all()


def test_a_good_step_trains_the_baseline():
    engine, inputs = toy(baseline=True)
    chunk, state = begin(engine, inputs)
    after, _ = chunk(state, inputs.traced(), Progress(CHUNK, CHUNK).schedule(0))
    (average,) = jax.tree.leaves(after.estimators)
    assert float(average) < -0.1  # costs are minus a square, less z half of the time


def test_bad_steps_leave_the_good_ones_alone():
    """With every other step bad the rest reaches the minimum, and only they are counted."""
    engine, inputs = toy(bad=jax.random.bernoulli, optimizer=optax.sgd(0.1))
    chunk, state = begin(engine, inputs)
    progress = Progress(1000, 1000)
    state = optimize(chunk, state, inputs.traced(), progress, progress_bar=False)
    assert 400 < int(state.skipped) == np.isnan(progress.all_losses()).sum() < 600
    np.testing.assert_allclose(state.average["param"]["p"], TARGET, atol=0.3)


# --- the optimizer ---------------------------------------------------------------------------------------------------


def moved(optimizer, num_steps=1):
    """How far one step goes from the start, which a rate of 0 leaves where it is."""
    start = quick(model, {"y": Y}, num_steps=1, optimizer=optax.sgd(0.0)).raw_params
    end = quick(model, {"y": Y}, num_steps=num_steps, optimizer=optimizer).raw_params
    return np.concatenate([np.ravel(b - a) for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True)])


@pytest.mark.slow
def test_the_users_optimizer_is_used_as_it_is():
    np.testing.assert_array_equal(moved(optax.sgd(0.0), num_steps=10), 0.0)
    step = moved(optax.sgd(0.01))
    used = step != 0  # some families have parameters that never count
    assert used.sum() >= 2
    np.testing.assert_allclose(moved(optax.sgd(0.02)), 2 * step, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moved(optax.adam(0.1))[used], 0.1 * np.sign(step[used]), rtol=1e-3)
    clipped = moved(optax.chain(optax.clip_by_global_norm(1e-2), optax.sgd(1.0)))
    assert np.linalg.norm(clipped) == pytest.approx(1e-2, rel=1e-3)
    np.testing.assert_allclose(clipped / 1e-2, step / np.linalg.norm(step), rtol=1e-2, atol=1e-4)


def test_the_users_optimizer_finds_the_posterior():
    fit = quick(model, {"y": Y}, num_steps=1500, optimizer=optax.adam(0.02))
    mu = fit.sample(5000)["mu"]
    assert mu.mean() == pytest.approx(6 / 5, abs=0.04) and mu.std() == pytest.approx(0.2**0.5, rel=0.06)


@pytest.mark.parametrize("transform", [optax.sgd(0.1), optax.adam(0.1)], ids=["sgd", "adam"])
def test_the_average_beats_the_last_iterate(transform):
    engine, inputs = toy(optimizer=transform)
    averages, lasts = [], []
    for seed in range(20):
        progress = Progress(1000, 1000)
        chunk, state = begin(engine, inputs, seed)
        state = optimize(chunk, state, inputs.traced(), progress, progress_bar=False)
        averages.append(np.sum((state.average["param"]["p"] - TARGET) ** 2))
        lasts.append(np.sum((state.params["param"]["p"] - TARGET) ** 2))
    assert np.mean(averages) < 0.4 * np.mean(lasts)
    # 250 steps are averaged; no unbiased estimate from them has a smaller error than 2 / 250.
    assert np.mean(averages) < 6 * 2 / 250


def test_arrays_of_the_user_are_never_given_away():
    y, key = jnp.asarray(Y), jax.random.key(4)
    given = {"y": y}
    first = quick(model, given, rng_key=key)
    assert not y.is_deleted() and not key.is_deleted() and given["y"] is y
    np.testing.assert_array_equal(y, Y.astype(np.float32))
    second = quick(model, given, rng_key=key)
    np.testing.assert_array_equal(first.losses, second.losses)
    assert np.isfinite(first.predict()["y"]).all()
    assert not y.is_deleted()


# --- progress bar ----------------------------------------------------------------------------------------------------


def test_progress_bar_shows_elbo_and_speed(capsys):
    quick(model, {"y": Y}, num_steps=250, progress_bar=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "250/250" in err and "ELBO -" in err and "step" in err.split("250/250")[-1] and "/s" in err


def test_no_progress_bar_prints_nothing(capsys):
    quick(model, {"y": Y}, num_steps=250)
    assert capsys.readouterr() == ("", "")
