"""Fits side by side: the numbers of fits alone but for rounding, whatever ends the others."""

import _thread

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.errors import JaxRuntimeError

import autovi
from autovi.fitting import fits
from autovi.run import lanes, together

Y = np.array([0.5, 1.0, 1.5, 3.0])
QUIET = {"progress_bar": False, "guide": "mean_field"}


def model(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def data(seed, number=20):
    rng = np.random.default_rng(seed)
    x = np.linspace(-1.0, 1.0, number)
    return {"x": x, "y": rng.normal(1.5 * x, 0.5)}


@pytest.fixture
def in_lanes(monkeypatch):
    """All legs of a program run in lanes, whatever that costs; the list of how many did, by group."""
    monkeypatch.setattr(lanes, "SAVED_SECONDS", 1.0)
    seen = []

    def watched(legs, *args):
        states = original(legs, *args)
        seen.append(sum(state is not None for state in states))
        return states

    original = together.in_lanes
    monkeypatch.setattr(together, "in_lanes", watched)
    return seen


def same(one, other, tolerance=1e-3):
    assert one.params.keys() == other.params.keys()
    for name, value in one.params.items():
        np.testing.assert_allclose(value, other.params[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_each_is_the_fit_alone_but_for_rounding(in_lanes):
    """Data sets that share `x`: a hundred steps of equal noise, so that rounding has no time to grow."""
    sets = [data(seed) for seed in range(3)]
    found = fits(model, sets, [5, 6, 7], num_steps=150, **QUIET)
    assert in_lanes == [3]
    for one, seed, fit in zip(sets, (5, 6, 7), found, strict=True):
        own = autovi.fit(model, one, rng_key=seed, num_steps=150, **QUIET)
        same(fit, own, 1e-4)
        assert (fit.status, fit.message, fit.losses.shape) == (own.status, own.message, own.losses.shape)
        np.testing.assert_allclose(fit.losses, own.losses, rtol=1e-3, atol=1e-3)
        assert fit.elbo == pytest.approx(own.elbo, abs=1e-3)


def test_what_the_data_sets_share_is_held_once():
    engine, legs = None, []
    for seed in range(2):
        begun = _begun(data(seed), seed)
        legs.append(next(begun))
        engine = legs[-1].engine
    stacked = lanes.Lanes(legs, 2)
    assert stacked.engine is engine and sorted(stacked.shared) == ["x"] and stacked.own == {"y"}


def _begun(one, seed):
    from autovi.run.clock import Seconds
    from autovi.starting import asked_for

    asked, clock = asked_for(model, num_steps=100, **QUIET), Seconds()
    return asked.begun(*asked.prepared(one, clock), seed, clock, alone=False)


def test_the_same_call_gives_the_same_bits(in_lanes):
    calls = [autovi.fit(model, data(0), rng_key=3, num_restarts=3, num_steps=300, **QUIET) for _ in range(2)]
    assert in_lanes == [3, 3]
    for name, value in calls[0].params.items():
        np.testing.assert_array_equal(value, calls[1].params[name])
    np.testing.assert_array_equal(calls[0].losses, calls[1].losses)


def far(y):
    """The further `y` is, the more steps; the posterior is normal around its mean."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1000.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_more_fits_than_lanes_and_each_ends_in_its_own_time(in_lanes, monkeypatch):
    monkeypatch.setattr(lanes, "MOST_ON_CPU", 2)
    away = (0.0, 90.0, 0.0, 60.0, 0.0)
    found = fits(far, [{"y": Y + a} for a in away], range(5), init={"mu": 0.0}, **QUIET)
    assert in_lanes == [5]
    steps = [fit.losses.size for fit in found]
    assert steps[1] > steps[3] > max(steps[0], steps[2], steps[4]) and {fit.status for fit in found} == {"converged"}
    for fit, a in zip(found, away, strict=True):
        assert fit.losses.size == fit.progress.step == int(fit.state.step)
        # Means of four values of variance 1: within a tenth of a posterior standard deviation.
        assert fit.params["mu.loc"] == pytest.approx(Y.mean() + a, abs=0.05)


def broken(x, y):
    """Where `x` is 0, the root has no derivative; where it is 1, the mean is `slope`."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    mean = jnp.sqrt(x[0] * (slope + 10.0) ** 2) - 10.0 * x[0]
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def test_one_that_fails_does_not_touch_the_others(in_lanes):
    fine, bad = {"x": np.ones(4), "y": Y}, {"x": np.zeros(4), "y": Y}
    found = fits(broken, [fine, bad, fine], [0, 1, 2], num_steps=400, init={"slope": 0.5}, **QUIET)
    assert in_lanes == [3]
    assert [fit.status for fit in found] == ["max_steps", "failed", "max_steps"]
    assert found[1].skipped_steps == 400 and "slope" in found[1].message
    assert found[0].skipped_steps == found[2].skipped_steps == 0
    # mu ~ N(0, 1), four observations of variance 1: the posterior is N(sum y / 5, 1 / 5).
    for fit in (found[0], found[2]):
        assert fit.params["slope.loc"] == pytest.approx(Y.sum() / 5, abs=0.15)  # a third of its standard deviation


def test_data_that_cannot_be_right_are_that_fits_own_error(in_lanes):
    found = fits(model, [data(0), {"x": np.ones(3)}, data(1)], [0, 1, 2], num_steps=100, **QUIET)
    assert in_lanes == [2] and isinstance(found[1], TypeError | ValueError)
    assert [type(found[i]).__name__ for i in (0, 2)] == ["Fit", "Fit"]


def test_other_shapes_run_beside_their_own_kind(in_lanes):
    sets = [data(0), data(1, 30), data(2), data(3, 30), data(4, 7)]
    found = fits(model, sets, range(5), num_steps=100, **QUIET)
    assert in_lanes == [2, 2, 0]
    assert [fit.inputs.arrays["y"].size for fit in found] == [20, 30, 20, 30, 7]


def test_ctrl_c_ends_all_with_what_there_is(in_lanes, monkeypatch):
    monkeypatch.setattr(lanes, "MOST_ON_CPU", 2)
    counted = []

    def advance(self, chunk, schedules):
        counted.append(len(schedules))
        if len(counted) == 3:
            _thread.interrupt_main()
        return original(self, chunk, schedules)

    original = lanes.Lanes.advance
    monkeypatch.setattr(lanes.Lanes, "advance", advance)
    found = fits(model, [data(seed) for seed in range(3)], range(3), num_steps=1000, **QUIET)
    assert counted == [2, 2, 2]
    for fit in found[:2]:
        assert (fit.status, fit.progress.message) == ("stopped", "stopped by Ctrl-C after 300 steps")
        assert fit.losses.size == 300 and np.isfinite(fit.elbo)
    assert isinstance(found[2], KeyboardInterrupt)

    counted.clear()
    best = autovi.fit(model, data(0), num_restarts=3, num_steps=1000, **QUIET)
    assert (best.status, best.progress.message) == ("stopped", "stopped by Ctrl-C after 300 steps")


def test_where_xla_fails_those_that_have_not_ended_run_alone(in_lanes, monkeypatch):
    calls = []

    def advance(self, chunk, schedules):
        calls.append(1)
        if len(calls) == 5:  # the first two have ended, the third is on its way
            raise JaxRuntimeError("RESOURCE_EXHAUSTED: no memory for so many lanes")
        return original(self, chunk, schedules)

    original = lanes.Lanes.advance
    monkeypatch.setattr(lanes.Lanes, "advance", advance)
    monkeypatch.setattr(lanes, "MOST_ON_CPU", 2)
    sets = [data(seed) for seed in range(3)]
    found = fits(model, sets, range(3), num_steps=300, **QUIET)
    assert in_lanes == [2]
    for seed, fit in enumerate(found):
        same(fit, autovi.fit(model, sets[seed], rng_key=seed, num_steps=300, **QUIET))
        assert (fit.status, fit.losses.size) == ("max_steps", 300)


def test_a_program_that_cannot_be_made_of_many_runs_one_after_another(in_lanes, monkeypatch):
    def refuse(self, leg, num_steps):
        raise NotImplementedError("no batching rule")

    monkeypatch.setattr(lanes.Lanes, "_compiling", refuse)
    autovi.clear_cache()
    found = fits(model, [data(0), data(1)], [0, 1], num_steps=200, **QUIET)
    assert in_lanes == [0] and [fit.losses.size for fit in found] == [200, 200]


def test_a_callback_and_a_checkpoint_run_one_after_another(in_lanes, tmp_path):
    options = {"num_restarts": 2, "num_steps": 100, **QUIET}
    autovi.fit(model, data(0), callback=lambda report: None, **options)
    kept = autovi.fit(model, data(0), checkpoint=tmp_path / "kept", **options)
    again = autovi.fit(model, data(0), checkpoint=tmp_path / "kept", **options)
    assert in_lanes == []
    np.testing.assert_array_equal(kept.losses, again.losses)


def test_lanes_are_made_where_they_pay(monkeypatch):
    """By the rule on the time that they save; as many as fit into the memory; a power of two."""
    legs = [next(_begun(data(seed), seed)) for seed in range(5)]
    cost = legs[0].engine.kept(("cost",), lambda: lanes._cost(legs[0]))
    assert lanes.count_of_lanes(legs) == 1  # a small program, few steps
    worth = cost.equations * lanes.COMPILE_SECONDS / (500 * cost.numbers)
    monkeypatch.setattr(lanes, "SAVED_SECONDS", worth * 1.01)
    assert lanes.count_of_lanes(legs) == 8 and lanes.count_of_lanes(legs[:4]) == 1
    monkeypatch.setattr(lanes, "BUDGET", 3.5 * cost.bytes)
    assert lanes.count_of_lanes(legs) == 2
    monkeypatch.setattr(lanes, "BUDGET", 1.5 * cost.bytes)
    assert lanes.count_of_lanes(legs) == 1
    assert cost.bytes > sum(np.asarray(x).nbytes for x in legs[0].arrays.values())


def test_a_fit_alone_gets_what_went_wrong_with_its_steps():
    """So that it may give back an earlier answer."""
    seen = []

    def fit():
        try:
            yield leg
        except JaxRuntimeError as error:
            seen.append(str(error))
        return "an earlier answer"

    leg = next(_begun(data(0), 0))._replace(engine=_Failing())
    assert together.alone(fit()) == "an earlier answer" and seen == ["no memory"]


class _Failing:
    def chunk(self, *args):
        raise JaxRuntimeError("no memory")
