"""Errors of XLA while a fit runs: what was fitted before them comes back, and the fit says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.errors import JaxRuntimeError

import autovi
from autovi.run import drawing, faults, running
from autovi.run.background import Compiling
from autovi.run.faults import LastState, said
from autovi.run.stopping import Progress

Y = np.array([0.4, -1.2, 2.0, 0.3, 1.1, -0.5], np.float32)
MEMORY = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.StudentT(3.0, mu, 0.5), obs=y)


def fit(**options):
    return autovi.fit(model, {"y": Y}, **{"num_draws": 20, "progress_bar": False, **options})


@pytest.fixture
def failing(monkeypatch):
    """Makes the chunk of a number fail after it has used up its state. Copies are made after each chunk."""

    def of(number, text=MEMORY):
        optimize, calls = running.optimize, []

        def failing_chunk(chunk, *args):
            calls.append(1)
            made = chunk(*args)
            if len(calls) == number:
                jax.tree.map(lambda x: x.delete(), made)
                raise JaxRuntimeError(text)
            return made

        patched = lambda chunk, *args, **kwargs: optimize(functools.partial(failing_chunk, chunk), *args, **kwargs)  # noqa: E731
        monkeypatch.setattr(running, "optimize", patched)

    monkeypatch.setattr(faults, "OFTEN", 0.0)
    monkeypatch.setattr(faults, "SHARE", np.inf)
    return of


@pytest.mark.parametrize("options", [{"num_steps": 1000}, {"max_steps": 1000}], ids=["number", "until it stands still"])
def test_the_last_state_comes_back(options, failing):
    reports = []
    fit(callback=lambda report: reports.append((report.step, report.params["mu.loc"])), **options)
    failing(6)
    stopped = fit(**options)
    assert stopped.status == "stopped" and stopped.losses.size == int(stopped.state.step) == 500
    assert stopped.message.startswith("stopped after 500 steps by an error of XLA: RESOURCE_EXHAUSTED: Out of memory")
    assert "a smaller num_particles= or batch_size= takes less memory" in stopped.message
    step, loc = reports[4]
    assert step == 500
    np.testing.assert_array_equal(stopped.params["mu.loc"], loc)
    assert np.isfinite(stopped.sample(10)["mu"]).all()


def test_it_goes_on_from_there(failing, monkeypatch):
    whole = fit(num_steps=1000)
    failing(6)
    stopped = fit(num_steps=1000)
    monkeypatch.undo()
    rest = stopped.resume()
    assert rest.losses.size == 1000
    np.testing.assert_array_equal(rest.losses, whole.losses)
    np.testing.assert_array_equal(rest.params["mu.loc"], whole.params["mu.loc"])


def test_an_error_before_anything_is_kept_is_raised(failing):
    failing(1)
    with pytest.raises(JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        fit(num_steps=1000)


def test_the_fit_of_an_earlier_restart_comes_back(failing):
    failing(11)
    first = fit(num_steps=1000, num_restarts=3)
    assert first.status == "stopped" and first.losses.size == 1000
    assert first.message.startswith("stopped by an error of XLA in restart 2: RESOURCE_EXHAUSTED")


def test_a_kept_fit_goes_on_to_the_same_numbers(failing, tmp_path, monkeypatch):
    seen = []
    options = {"num_steps": 1000, "callback": lambda report: seen.append(report.step)}
    whole = fit(**options)
    kept = {**options, "checkpoint": autovi.Checkpoint(tmp_path, seconds=3600)}
    failing(6)
    assert fit(**kept).status == "stopped"
    monkeypatch.undo()
    seen.clear()
    rest = fit(**kept)
    assert seen[0] == 600
    np.testing.assert_array_equal(rest.losses, whole.losses)


def test_the_ladder_gives_the_best_so_far(failing):
    """A banana, which no normal follows: the ladder goes on to a flow by steps."""

    def banana():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        y = numpyro.sample("y", dist.Normal(0.0, 3.0))
        numpyro.factor("bend", -0.5 * ((y - 2.0 * x**2) / 0.1) ** 2)

    failing(2)
    stopped = autovi.fit(banana, progress_bar=False)
    assert stopped.status == "stopped" and "by an error of XLA: RESOURCE_EXHAUSTED" in stopped.message
    failing(1)
    stopped = autovi.fit(banana, progress_bar=False)
    assert stopped.status == "stopped"
    assert stopped.message.startswith("stopped by an error of XLA (RESOURCE_EXHAUSTED")
    assert np.isfinite(stopped.sample(10)["x"]).all()


@pytest.fixture
def crowded(monkeypatch):
    """Memory for so many draws at once."""

    def of(most):
        whole = drawing.compiling_draws

        def compiling(*args, **kwargs):
            made, part = whole(*args, **kwargs)
            return (made if part <= most else Compiling(lambda: full)), part

        monkeypatch.setattr(drawing, "compiling_draws", compiling)

    def full(*args):
        raise JaxRuntimeError(MEMORY)

    return of


def test_draws_are_made_in_smaller_parts_where_memory_runs_out(crowded):
    whole = fit(num_steps=100)
    expected = whole.sample(50, resample=False)
    crowded(7)
    drawn = whole.sample(50, resample=False)
    np.testing.assert_allclose(drawn["mu"], expected["mu"], rtol=1e-6)


def test_memory_for_no_draw_is_an_error_that_says_what_to_do(crowded):
    whole = fit(num_steps=100)
    crowded(0)
    with pytest.raises(JaxRuntimeError, match="num_draws: memory ran out in 50 posterior draws; the fit itself is who"):
        whole.sample(50, resample=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MEMORY, f"{MEMORY}; a smaller num_particles= or batch_size= takes less memory"),
        ("INTERNAL: a\nb", "INTERNAL: a"),
        ("x" * 400, "x" * 300 + "…"),
        ("", "JaxRuntimeError"),
    ],
)
def test_an_error_in_a_sentence(text, expected):
    assert said(JaxRuntimeError(text)) == expected


def test_copies_are_as_rare_as_they_are_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(faults.time, "monotonic", lambda: now[0])
    last = LastState({"x": jnp.zeros(1_000_000)})  # 4 MB, or 4 ms as a guess
    due_at = lambda t: (now.__setitem__(0, t), last.is_due)[1]  # noqa: E731
    assert not due_at(0.79) and due_at(0.81)
    monkeypatch.setattr(faults, "_on_host", lambda leaf: now.__setitem__(0, now[0] + 0.1) or np.array(leaf))
    last.keep({"x": jnp.ones(3)}, Progress(1000, 1000))  # which takes 0.1 s
    assert not due_at(0.91 + 19.9) and due_at(0.91 + 20.1)


def test_a_copy_is_apart_from_what_it_was_made_of():
    state = {"x": jnp.zeros(3), "key": jax.random.key(1)}
    progress = Progress(1000, 1000)
    last = LastState(state)
    assert last.found(progress) is None
    last.keep(state, progress)
    progress.step, progress.level = 100, 2
    progress.losses.append(np.zeros(100))
    progress.lowered.append(50)
    jax.tree.map(lambda x: x.delete(), state)
    found = last.found(progress)
    np.testing.assert_array_equal(found["x"], np.zeros(3))
    assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(jax.random.key(1)).tolist()
    assert (progress.step, progress.level, progress.losses, progress.lowered) == (0, 0, [], [])
