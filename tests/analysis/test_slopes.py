"""The search for wrong derivatives over the sites of a model: what is found, what is no alarm, what is paid."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.lax import stop_gradient as held

import autovi
from autovi.analysis import slopes
from autovi.analysis.slopes import find_false_slopes
from autovi.analysis.structure import analyse_structure
from autovi.model.inputs import bind
from autovi.model.loss import Loss
from autovi.model.targets import trace_program
from examples import eight_schools


def found_in(model, guide=None):
    inputs = bind(model, None)
    traced, inputs = trace_program(model, guide, inputs)
    sites = traced.sites
    return find_false_slopes(model, guide, inputs, sites, analyse_structure(traced))


def rules_of(model):
    traced, _ = trace_program(model, None, bind(model, None))
    return {n: set().union(*terms.values()) for n, terms in analyse_structure(traced).rules.items() if terms}


def observed(cost):
    """A model with one real site `x`, of which `cost(x)` is the mean of the data."""

    def model():
        x = numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        numpyro.sample("y", dist.Normal(cost(x), 1.0), obs=1.0)

    return model


def with_rule(fn, slope):
    """A function whose derivative is said to be `slope`, backwards alone."""

    @jax.custom_vjp
    def own(x):
        return fn(x)

    own.defvjp(lambda x: (fn(x), x), lambda x, t: (slope(x) * t,))
    return own


square = with_rule(jnp.square, lambda x: 2 * x)


# --- suspicion -----------------------------------------------------------------------------------------------------


def of_libraries(x):
    parts = (
        jax.nn.logsumexp(x),
        jax.nn.softmax(x)[0],
        jax.nn.log_softmax(x[None])[0, 1],
        jnp.sum(jax.nn.relu(x) + jax.nn.softplus(x) + jax.nn.silu(x) + jax.nn.gelu(x) + jax.nn.elu(x) + jnp.sinc(x)),
        jnp.linalg.norm(x) + jnp.max(x) + jnp.std(x),
        dist.Categorical(logits=x).log_prob(1),
        dist.MixtureSameFamily(dist.Categorical(logits=x), dist.StudentT(3.0, x, 1.0)).log_prob(0.3),
        jnp.sum(jax.scipy.special.xlogy(x, x**2) + jnp.logaddexp(x, 1.0)),
    )
    return sum(parts)


def test_the_functions_of_libraries_are_not_suspected(monkeypatch):
    """An ordinary fit pays nothing: nothing is evaluated, and nothing compiled."""
    monkeypatch.setattr(slopes, "_Search", None)
    assert rules_of(observed(of_libraries)) == {}
    assert not found_in(observed(of_libraries)).untested

    def model():
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
        scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
        angle = numpyro.sample("angle", dist.VonMises(0.0, 1.0))
        low = numpyro.sample("low", dist.TruncatedNormal(0.0, 1.0, low=-1.0))
        with numpyro.plate("n", 4):
            z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(low + jnp.cos(angle) * z, scale), obs=jnp.ones(4))

    assert rules_of(model) == {}


def test_what_is_suspected_has_a_name():
    relu = jax.custom_jvp(jax.nn.relu)  # a function of JAX's with the rule of a user's
    relu.defjvps(lambda tangent, ans, x: tangent)
    own = with_rule(jnp.sin, jnp.cos)
    named = {
        "stop_gradient": lambda x: x * held(x),
        "<lambda> (custom_vjp)": jax.custom_gradient(lambda x: (x, lambda t: 2 * t)),
        "own (custom_vjp)": own,
        "relu (custom_jvp)": relu,
        "floor": lambda x: jnp.floor(1e5 * x),
    }
    for name, fn in named.items():
        (found,) = rules_of(observed(lambda x, fn=fn: jnp.sum(fn(x))))["x"]
        assert found == name or name.startswith("<lambda>"), found
    # A comparison has no derivative in any case.
    assert rules_of(observed(lambda x: jnp.sum(jnp.where(held(x) > 0, x, -x)))) == {}


# --- evaluation ----------------------------------------------------------------------------------------------------


def test_a_wrong_derivative_is_blamed_on_the_site_that_has_it():
    def model():
        a, b, c = (numpyro.sample(n, dist.Normal(0.0, 1.0)) for n in "abc")
        numpyro.sample("y", dist.Normal(held(a) + square(b), 1.0), obs=1.0)
        numpyro.sample("z", dist.Normal(a + held(jnp.max(jnp.stack([b, c])) - jnp.maximum(b, c)), 1.0), obs=1.0)

    found = found_in(model)
    assert sorted(found.found) == ["a"] and not found.untested
    assert "where the term 'p:y' has the slope" in found.found["a"] and "by stop_gradient" in found.found["a"]


def test_what_cancels_in_the_sum_of_the_terms_is_no_wrong_derivative():
    def centred():
        """sum (x - m)^2, whose derivative in m is 0 at m = mean x."""
        x = numpyro.sample("x", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
        return (x - held(jnp.mean(x))) ** 2

    def parts():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        return {"one": x**2 + held(jnp.sin(x)), "other": x - held(jnp.sin(x))}

    for loss in (centred, parts):
        found = found_in(Loss(loss))
        assert not found.found and not found.untested
    alone = found_in(Loss(lambda: parts()["one"]))
    assert "'p:loss'" in alone.found["x"]


def test_a_site_behind_another():
    """The path from `a` to the loss goes through the distribution of `b`, in losses and in guide functions."""

    def loss():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        return numpyro.sample("b", dist.Normal(held(a), 1.0)) ** 2

    def model():
        b = numpyro.sample("b", dist.Normal(numpyro.sample("a", dist.Normal(0.0, 1.0)), 1.0))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=1.0)

    assert "'q:b'" in found_in(Loss(loss)).found["a"]
    plan = autovi.plan(model, guide=lambda: [loss()] and None)
    assert plan["a"].estimator == "score" and "'q:b'" in plan["a"].why and plan["b"].estimator == "explicit"


def test_values_that_are_no_numbers_say_nothing():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        inside = jnp.where(x > 0, jnp.sqrt(x), jnp.nan)
        numpyro.sample("y", dist.Normal(square(inside), 1.0), obs=1.0)
        numpyro.sample("z", dist.Normal(square(x + jnp.nan), 1.0), obs=1.0)
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("v", dist.Normal(square(jnp.where(w > 0, jnp.sqrt(w), jnp.nan)), 1.0), obs=1.0)

    found = found_in(model)
    assert not found.found and "is not finite" in found.untested["x"] and "w" not in found.untested


def in_one_precision(x):
    """Where numbers are in double precision by default, it raises."""
    return jnp.sum(lax.scan(lambda c, t: (c + t * held(x), None), jnp.zeros(3, jnp.float32), x)[0])


def test_a_function_that_runs_in_single_precision_alone():
    assert "by stop_gradient" in found_in(observed(in_one_precision)).found["x"]


def endless(x):
    return lax.while_loop(lambda c: c[0] > x[0] - 1e30, lambda c: (c[0] + 1.0, c[1] + 0.1), (0.0, 0.0))[1]


def refuses(*_):
    raise TypeError("no derivative of this")


UNTESTED = {
    "takes too many steps of loops": with_rule(lambda x: x[0], lambda x: endless(x) * jnp.ones(3)),
    "JAX cannot differentiate it (no derivative of this)": with_rule(lambda x: x[0], refuses),
}


@pytest.mark.parametrize("reason", UNTESTED)
def test_what_cannot_be_tested_takes_the_score_unless_asked(reason, monkeypatch):
    monkeypatch.setattr(slopes, "STEPS", 50)
    model = observed(UNTESTED[reason])
    choice = autovi.plan(model)["x"]
    assert choice.estimator == "score" and reason in choice.why and "if it is, ask for" in choice.why
    choice = autovi.plan(model, estimators={"x": "explicit"})["x"]
    assert choice.estimator == "explicit" and "though whether the derivative of the term 'p:y'" in choice.why


def test_after_the_limit_no_segment_is_started(monkeypatch):
    monkeypatch.setattr(slopes, "LIMIT", -1.0)
    assert "that would take more than -1 seconds" in found_in(observed(lambda x: jnp.sum(square(x)))).untested["x"]


# --- what is made of it --------------------------------------------------------------------------------------------


def test_a_plan_goes_by_the_score_and_refuses_a_path():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(held(x) + w, 1.0), obs=np.float32(1.0))

    plan = autovi.plan(model)
    assert plan["x"].estimator == "score" and plan["x"].block == "x" and "by stop_gradient" in plan["x"].why
    assert plan["w"].estimator == "explicit"
    with pytest.raises(ValueError, match="site 'x'.*'explicit' would be wrong.*is not its slope.*valid: .*'score'"):
        autovi.plan(model, estimators={"x": "explicit"})


def test_closed_over_values_that_are_traced_are_not_tested():
    @jax.jit
    def gradient(mu, shift):
        loss = lambda mu: numpyro.sample("x", dist.Normal(mu, 1.0)) * held(shift) + held(mu)  # noqa: E731
        beside = lambda mu: square(numpyro.sample("x", dist.Normal(mu, 1.0)) + shift)  # noqa: E731
        assert autovi.stochastic_grad(loss).plan(mu)["x"].estimator == "explicit"
        choice = autovi.stochastic_grad(beside).plan(mu)["x"]
        assert choice.estimator == "score" and "closes over values" in choice.why
        return mu

    gradient(0.3, 1.0)


def regression():
    """Sites and densities of many kinds, with their maps to the unconstrained scale."""
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    chance = numpyro.sample("chance", dist.Beta(2.0, 3.0))
    low = numpyro.sample("low", dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0))
    root = numpyro.sample("root", dist.LKJCholesky(2, 1.5))
    angle = numpyro.sample("angle", dist.VonMises(0.0, 1.0))
    numpyro.sample("y", dist.StudentT(3.0, low + jnp.cos(angle), scale), obs=np.linspace(-3, 5, 7, dtype=np.float32))
    numpyro.sample("counts", dist.NegativeBinomial2(10 * scale, 1.0 + weights[0]), obs=np.arange(4))
    numpyro.sample("kinds", dist.Multinomial(probs=weights, total_count=9), obs=np.array([2, 3, 4]))
    numpyro.sample("successes", dist.Binomial(20, chance), obs=np.array([3, 9]))
    numpyro.sample("pair", dist.MultivariateNormal(0.0, scale_tril=root), obs=np.array([0.3, 1e3], np.float32))
    parts = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(jnp.arange(3.0), scale))
    numpyro.sample("mixed", parts, obs=np.float32(0.4))


@pytest.mark.slow
@pytest.mark.parametrize("model", [regression, eight_schools.model, observed(of_libraries)])
def test_no_alarm_where_everything_is_suspected(model):
    schools = {"standard_errors": np.linspace(9.0, 18.0, 8), "effects": np.linspace(-3.0, 28.0, 8)}
    inputs = bind(model, schools if model is eight_schools.model else None)
    traced, inputs = trace_program(model, None, inputs)
    structure = analyse_structure(traced)
    rules = {n: {t: {"all"} for t in terms if t.startswith("p:")} for n, terms in structure.downstream.items()}
    found = find_false_slopes(model, None, inputs, traced.sites, replace(structure, rules=rules))
    assert rules and not found.found and not found.untested
