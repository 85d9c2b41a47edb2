"""Estimators that take a distribution apart: variances against closed forms, what they refuse, several dimensions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE

from autovi.estimators import EnumerateComponent, EnumerateGate, Implicit, Rebar
from autovi.preparation import Options, prepare


def gradients(make, params, cost, estimator, repeats=20_000, particles=1):
    """Gradients of E cost(z), z ~ make(params): prior and guide agree, so that nothing else is in them."""

    def model():
        numpyro.factor("cost", cost(numpyro.sample("z", make(params))))

    def guide():
        own = {n: numpyro.param(n, v) for n, v in params.items()}
        numpyro.sample("z", make(own))

    options = Options(guide=guide, estimators={"z": estimator}, num_particles=particles)
    engine, inputs = prepare(model, None, options)
    raw, own = {"guide": {}, "param": params}, engine.estimator_params()
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: jax.tree.map(jnp.negative, grad(raw, key)["param"])  # noqa: E731
    batches = jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000), compiler_options=ONCE)
    found = batches(jax.random.split(jax.random.key(3), repeats))
    return {n: np.asarray(g, float) for n, g in found.items()}


def means(found, expected):
    for name, value in expected.items():
        se = found[name].std(0) / len(found[name]) ** 0.5
        np.testing.assert_array_less(np.abs(found[name].mean(0) - value), 5 * se + 1e-5, err_msg=name)


def two_normals(params):
    component = dist.Normal(params["loc"], 1.0)
    logits = jnp.stack([-params["logit"], jnp.zeros(())])
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), component)


@pytest.mark.parametrize("d", [0.5, 6.0])
def test_far_components_do_no_harm(d):
    """E z of two unit normals at +-d: the logit's gradient is pi (1 - pi) (x_1 - x_0), of variance 2 / 16."""
    params = {"logit": jnp.zeros(()), "loc": jnp.array([-d, d])}
    found = gradients(two_normals, params, lambda z: z, EnumerateComponent())
    means(found, {"logit": d / 2})
    np.testing.assert_allclose(found["loc"], 0.5, rtol=1e-4)  # of a linear cost without noise
    assert found["logit"].var() == pytest.approx(0.125, rel=0.05)


def test_the_implicit_gradient_explodes_instead():
    params = {"logit": jnp.zeros(()), "loc": jnp.array([-3.0, 3.0])}
    found = gradients(two_normals, params, lambda z: z, Implicit())
    assert found["logit"].var() > 5.0


def test_components_of_several_dimensions():
    """E |z|^2 = sum_k pi_k (|m_k|^2 + 2 s^2)."""
    params = {"logits": jnp.array([0.4, -0.3]), "loc": jnp.array([[1.0, -1.0], [0.5, 2.0]]), "scale": jnp.array(0.7)}

    def make(p):
        component = dist.MultivariateNormal(p["loc"], scale_tril=p["scale"] * jnp.eye(2))
        return dist.MixtureSameFamily(dist.Categorical(logits=p["logits"]), component)

    def exact(p):
        inside = jnp.sum(p["loc"] ** 2, -1) + 2 * p["scale"] ** 2
        return jax.nn.softmax(p["logits"]) @ inside

    found = gradients(make, params, lambda z: jnp.sum(z**2), EnumerateComponent())
    means(found, jax.grad(exact)(params))


def test_discrete_components_are_scored():
    params = {"logit": jnp.array(0.4), "rates": jnp.array([1.0, 4.0])}

    def make(p):
        mixing = dist.Categorical(logits=jnp.stack([p["logit"], jnp.zeros(())]))
        return dist.MixtureGeneral(mixing, [dist.Poisson(p["rates"][0]), dist.Poisson(p["rates"][1])])

    def exact(p):  # E z^2 of a Poisson is r + r^2
        return jax.nn.softmax(jnp.stack([p["logit"], 0.0])) @ (p["rates"] + p["rates"] ** 2)

    means(gradients(make, params, lambda z: 1.0 * z**2, EnumerateComponent(), 20_000, 2), jax.grad(exact)(params))


def test_the_gate_of_a_hurdle_makes_no_noise():
    """z 0 with probability g, else exp(m + s eps): of E z the gate's gradient is -z, and that in m (1 - g) z."""
    params = {"gate": jnp.array(0.4), "loc": jnp.array(0.3)}
    found = gradients(lambda p: dist.HurdleLogNormal(p["gate"], p["loc"], 0.5), params, lambda z: z, EnumerateGate())
    mean, spread = np.exp(0.3 + 0.125), np.exp(0.6 + 0.25) * (np.exp(0.25) - 1)
    means(found, {"gate": -mean, "loc": 0.6 * mean})
    assert found["gate"].var() == pytest.approx(spread, rel=0.1)
    assert found["loc"].var() == pytest.approx(0.36 * spread, rel=0.1)


@pytest.mark.parametrize("hurdle", [True, False])
def test_gates_before_counts_by_logits(hurdle):
    params = {"logit": jnp.array(-0.4), "concentration": jnp.array(2.5)}
    wrapper = dist.HurdleDistribution if hurdle else dist.ZeroInflatedDistribution
    make = lambda p: wrapper(dist.NegativeBinomial2(3.0, p["concentration"]), gate_logits=p["logit"])  # noqa: E731

    def exact(p):
        zero = (p["concentration"] / (3.0 + p["concentration"])) ** p["concentration"]
        return jax.nn.sigmoid(-p["logit"]) * 3.0 / (1 - zero if hurdle else 1.0)

    expected = {n: float(v) for n, v in jax.grad(exact)(params).items()}
    means(gradients(make, params, lambda z: 1.0 * z, EnumerateGate(), 4_000, 4), expected)


def refusal(guide, estimator, model=None):
    def normal():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=0.5)

    with pytest.raises(ValueError) as raised:
        engine, inputs = prepare(model or normal, None, Options(guide=guide, estimators={"z": estimator}))
        raw = {"guide": {}, "param": {}}
        engine.estimate(raw, engine.estimator_params(), inputs.traced(), jax.random.key(0))
    return str(raised.value)


def mixture(components):
    return dist.MixtureGeneral(dist.Categorical(logits=jnp.zeros(len(components))), components, support=real)


real = dist.constraints.real


def test_what_is_refused():
    other = lambda: numpyro.sample("z", dist.Normal(0.0, 1.0))  # noqa: E731
    assert "it is for MixtureSameFamily, MixtureGeneral sites only" in refusal(other, "enumerate_component")
    assert "it is for HurdleGamma," in refusal(other, "enumerate_gate")
    unequal = lambda: numpyro.sample("z", mixture([dist.Normal(0.0, 1.0), dist.HalfNormal(1.0)]))  # noqa: E731
    assert "do not all have the same support" in refusal(unequal, "enumerate_component")


def test_a_jump_above_the_hurdle_is_refused_and_that_at_0_is_not():
    guide = lambda: numpyro.sample("z", dist.HurdleGamma(0.3, 2.0, numpyro.param("rate", 1.0)))  # noqa: E731

    def model(edge=1.5):
        z = numpyro.sample("z", dist.HurdleGamma(0.3, 2.0, 1.0))
        numpyro.factor("cost", jnp.where(z > edge, 1.0, 0.0))

    assert "the cost jumps in it (the term 'p:cost' jumps by 1 nat" in refusal(guide, "enumerate_gate", model)
    prepare(partial(model, 0.0), None, Options(guide=guide, estimators={"z": "enumerate_gate"}))


def test_costs_that_cannot_be_told_apart_are_refused():
    def model():
        with numpyro.plate("N", 3):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z.sum(), 1.0), obs=0.5)

    def guide():
        component = dist.Normal(jnp.array([-1.0, 1.0]), 1.0)
        with numpyro.plate("N", 3):
            numpyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), component))

    assert "mixes its elements" in refusal(guide, "enumerate_component", model)

    def of_events():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(z.sum(), 1.0), obs=0.5)

    def events():
        component = dist.Normal(jnp.array([-1.0, 1.0]), 1.0)
        q = dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros((3, 2))), component)
        numpyro.sample("z", q.to_event(1))

    assert "the numbers of an event share one" in refusal(events, "enumerate_component", of_events)


@pytest.mark.parametrize("estimator", [EnumerateComponent()])
def test_what_is_drawn_below_must_carry_a_gradient(estimator):
    """The cost's slope in a site is that of its expectation only if what is drawn given the site carries it."""
    component = dist.Normal(jnp.array([-1.0, 1.0]), 1.0)
    q = dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), component)
    q = dist.Bernoulli(0.4) if isinstance(estimator, Rebar) else q

    def model():
        z = numpyro.sample("z", q)
        numpyro.sample("w", dist.Poisson(jnp.exp(z * 0.3)))

    guide = lambda: numpyro.sample("w", dist.Poisson(1.0 + numpyro.sample("z", q) ** 2))  # noqa: E731
    assert "'w' is drawn given it without a gradient through its draw" in refusal(guide, estimator, model)
