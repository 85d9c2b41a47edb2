"""The search for jumps over the sites of a model ends, whatever the model computes, and says what it left untested."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.experimental.ode import odeint

import autovi
from autovi.analysis import bounded_loops, discontinuities
from autovi.analysis.discontinuities import find_jumps
from autovi.analysis.structure import analyse_structure
from autovi.analysis.trial_values import FARTHEST, trial_values
from autovi.model.inputs import bind
from autovi.model.targets import trace_program


def found_in(model, data=None):
    inputs = bind(model, data)
    traced, inputs = trace_program(model, None, inputs)
    return find_jumps(model, None, inputs, traced.sites, analyse_structure(traced))


def observed(cost):
    """A model with one real site `x`, of which `cost(x)` is the mean of the data."""

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(cost(x), 1.0), obs=1.0)

    return model


# --- loops ---------------------------------------------------------------------------------------------------------


def predator_and_prey():
    rates = numpyro.sample("rates", dist.LogNormal(jnp.log(jnp.array([0.5, 0.3, 0.7, 0.2])), 0.3).to_event(1))

    def change(state, _, p):
        prey, predators = state
        return jnp.stack([p[0] * prey - p[1] * prey * predators, -p[2] * predators + p[3] * prey * predators])

    path = odeint(change, jnp.array([1.0, 0.5]), jnp.linspace(0.0, 3.0, 4), rates)
    numpyro.sample("y", dist.Normal(path, 0.5).to_event(2), obs=np.ones((4, 2), np.float32))


@pytest.mark.slow
def test_an_adaptive_solver_is_tested_and_its_parameters_stay_pathwise():
    # At rates of exp(20) the solver takes millions of steps; at the others it ends, and is continuous.
    choice = autovi.plan(predator_and_prey)["rates"]
    assert choice.estimator == "explicit" and "tested" not in choice.why


def steps_of_a_rate(x):
    """One step more whenever exp(x) passes a whole number: it jumps, and at x = 1e4 it does not end."""
    rate = jnp.exp(x)
    return lax.while_loop(lambda c: c[0] < rate, lambda c: (c[0] + 1.0, c[1] + 0.1), (0.0, 0.0))[1]


def endless(x):
    return lax.while_loop(lambda c: c[0] > x - 1e30, lambda c: (c[0] + 1.0, c[1] + 0.1), (0.0, 0.0))[1]


def newton(x):
    """The square root of exp(x), by as many steps as it takes."""

    def step(c):
        better = (c[0] + jnp.exp(x) / c[0]) / 2
        return better, jnp.abs(better - c[0])

    return lax.while_loop(lambda c: c[1] > 1e-5 * c[0], step, (jnp.exp(x), jnp.inf))[0]


def with_a_switch_in_a_scan(x):
    return lax.scan(lambda c, t: (jnp.where(c > t, 0.9 * c + x, c + x), None), x, jnp.arange(5.0))[0]


def test_a_loop_whose_length_explodes_jumps():
    found = found_in(observed(steps_of_a_rate))
    assert "'p:y' jumps by" in found.found["x"] and not found.untested


def test_a_loop_that_converges_is_tested_and_smooth():
    found = found_in(observed(newton))
    assert not found.found and not found.untested


def test_a_switch_inside_a_scan_jumps():
    assert "by gt" in found_in(observed(with_a_switch_in_a_scan)).found["x"]


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(discontinuities, "STEPS", (100, 1_000))


def test_a_loop_that_ends_nowhere_leaves_the_site_untested(few_steps):
    choice = autovi.plan(observed(endless))["x"]
    assert choice.estimator == "score" and "estimators={'x': ...}" in choice.why
    assert "was not tested: at most values tried, its loops take more than 1,000 steps" in choice.why


def test_an_untested_site_can_be_given_a_pathwise_estimator(few_steps):
    choice = autovi.plan(observed(endless), estimators={"x": "explicit"})["x"]
    assert choice.estimator == "explicit" and "though whether the term 'p:y' jumps in it" in choice.why
    # A jump that was found cannot.
    with pytest.raises(ValueError, match="would be wrong, since the cost jumps in it"):
        autovi.plan(observed(with_a_switch_in_a_scan), estimators={"x": "explicit"})


def test_a_prior_behind_a_loop_without_end(few_steps):
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("z", dist.Normal(endless(x), 1.0))

    assert "was not tested" in found_in(model).untested["x"]


def test_an_angle_whose_costs_do_not_end_counts_as_not_periodic():
    def model():
        angle = numpyro.sample("angle", dist.VonMises(0.0, 1.0))
        numpyro.sample("y", dist.Normal(endless(jnp.cos(angle)), 1.0), obs=1.0)

    def guide():
        numpyro.sample("angle", dist.VonMises(numpyro.param("loc", 0.0), 2.0))

    choice = autovi.plan(model, guide=guide)["angle"]
    assert choice.estimator == "score" and "not tested" in choice.why


def test_a_loop_out_of_reach_leaves_the_sites_untested(monkeypatch):
    # As if a scan with a loop inside were an operation that is not understood.
    monkeypatch.delitem(bounded_loops.WITH_LOOPS, "scan")

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        angle = numpyro.sample("angle", dist.VonMises(0.0, 1.0))
        total = lax.scan(lambda c, t: (c + newton(c + t), None), x + jnp.cos(angle), jnp.arange(3.0))[0]
        numpyro.sample("y", dist.Normal(total, 1.0), obs=1.0)

    reason = "a loop inside the operation scan cannot be bounded"
    assert reason in found_in(model).untested["x"]
    assert reason in autovi.plan(model)["angle"].why


# --- time ----------------------------------------------------------------------------------------------------------


def switched(count):
    def model():
        xs = [numpyro.sample(f"x{i}", dist.Normal(0.0, 1.0)) for i in range(count)]
        # Continuous, which only an evaluation tells.
        numpyro.sample("y", dist.Normal(sum(jnp.where(x > 0.3, x - 0.3, 0.0) for x in xs), 1.0), obs=1.0)

    return model


@pytest.mark.parametrize(("sites", "untested"), [(1, 0), (2, 2)])
def test_after_the_limit_no_evaluation_is_started(monkeypatch, sites, untested):
    # By this clock every evaluation takes a second: ten of them are in the limit, and a site needs eight.
    ticks = itertools.count()
    monkeypatch.setattr(discontinuities, "perf_counter", lambda: next(ticks))
    found = found_in(switched(sites))
    assert not found.found and len(found.untested) == untested
    assert next(ticks) == 2 * discontinuities.LIMIT
    assert all("was not tested: that would take more than 10 seconds" in said for said in found.untested.values())


def test_an_evaluation_without_end_is_not_started():
    long = observed(lambda x: lax.fori_loop(0, 10**10, lambda i, c: jnp.where(c > 1.0, c / 2, c + x), x))
    assert "more than 10 seconds" in found_in(long).untested["x"]


def test_one_program_is_compiled_for_all_sites(monkeypatch):
    compiled = []
    prepare = discontinuities.Segments.prepare

    def counted(self, name):
        compiled.append(name) if name not in self._compiled else None
        return prepare(self, name)

    monkeypatch.setattr(discontinuities.Segments, "prepare", counted)
    found = found_in(switched(5))
    assert not found.found and not found.untested and compiled == ["jumps"]


def test_a_jump_is_blamed_on_the_site_that_makes_it():
    def model():
        a, b, c = (numpyro.sample(n, dist.Normal(0.0, 1.0)) for n in "abc")
        numpyro.sample("y", dist.Normal(jnp.where(a > 0.3, a - 0.3, 0.0) + b, 1.0), obs=1.0)
        numpyro.sample("z", dist.Normal(jnp.where(b > 0.1, 1.0, 0.0) + jnp.where(a > 0.2, a - 0.2, 0.0), 1.0), obs=1.0)
        numpyro.sample("w", dist.Normal(jnp.floor(c) + b, 1.0), obs=1.0)

    found = found_in(model).found
    assert sorted(found) == ["b", "c"] and "'p:z'" in found["b"] and "'p:w'" in found["c"]


# --- trial values --------------------------------------------------------------------------------------------------


def test_only_real_sites_go_far_from_the_origin():
    def model():
        numpyro.sample("real", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        numpyro.sample("positive", dist.HalfNormal(1.0))
        numpyro.sample("unit", dist.Uniform(0.0, 1.0))
        numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)))

    inputs = bind(model, None)
    traced, inputs = trace_program(model, None, inputs)
    sites = traced.sites
    values = trial_values(model, None, inputs, {}, sites, jax.random.key(0))
    farthest = {n: float(jnp.max(jnp.abs(v))) for n, v in values.items()}
    assert farthest["real"] > 5e3
    assert all(FARTHEST / 2 < farthest[n] <= FARTHEST for n in ("positive", "unit", "simplex"))
