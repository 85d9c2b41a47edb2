"""The protocol carries estimators of every kind: those of `written`, each against the exact gradients of the oracles.

Plates, masks, subsamples, sites below and above, and neighbours that are summed out of the model.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from numpyro import handlers
from written import WRITTEN

from autovi.estimators import ESTIMATORS
from autovi.preparation import Options, prepare
from oracles import ORACLES
from oracles.base import Oracle, declare, expected_normal, normal_entropy

X = np.array([0.4, 2.9, 1.7, -0.6])
MASK = np.array([True, False, True, True])


def normals(subsample_size):
    """z_i ~ N(0, 1.5) in a plate of 4, one of them masked, x_i ~ N(z_i, 0.7) on data, all of it under a scale."""
    params = {"loc": np.array([0.3, -0.8, 0.5, 1.1]), "log_scale": np.array([-0.2, 0.3, -0.6, 0.1])}

    def model(x):
        with numpyro.plate("N", 4, subsample_size=subsample_size) as idx:
            with handlers.mask(mask=jnp.asarray(MASK)[idx]):
                z = numpyro.sample("z", dist.Normal(0.0, 1.5))
            numpyro.sample("x", dist.Normal(z, 0.7), obs=jnp.asarray(x)[idx])

    def guide(x):
        p = declare(params)
        with numpyro.plate("N", 4, subsample_size=subsample_size) as idx, handlers.mask(mask=jnp.asarray(MASK)[idx]):
            numpyro.sample("z", dist.Normal(p["loc"][idx], jnp.exp(p["log_scale"])[idx]))

    def exact_elbo(p):
        scale = jnp.exp(p["log_scale"])
        own = expected_normal(p["loc"], 0.0, 1.5, scale**2) + normal_entropy(scale)
        return jnp.sum(MASK * own + expected_normal(X, p["loc"], 0.7, scale**2))

    return Oracle(f"normals_{subsample_size}", model, guide, {"x": X}, params, exact_elbo, {"z": ("explicit",)})


BY_NAME = {o.name: o for o in (*ORACLES, normals(4), normals(2))}
BERNOULLI = [
    ("bernoulli_plate_local", "z", {}),
    ("bernoulli_plate_local_subsample2", "z", {}),
    ("scale_10_subsample2", "z", {}),
    ("masked_latent", "z", {}),
    ("mixture_plate_subsample2", "z", {}),
    ("two_sites_in_plate", "a", {"b": "marginalize"}),
    ("nested_plates", "z", {"w": "marginalize"}),
    ("discrete_above_normal", "z", {}),
]
INDEXED = ("nested_plates", "discrete_above_normal")  # there z is an index, which no value between 0 and 1 can be
NORMAL = [
    ("normals_4", "z", {}),
    ("normals_2", "z", {}),
    ("mixture_plate_subsample2", "mu", {"z": "marginalize"}),
    ("categorical_normal", "mu", {"z": "marginalize"}),
    ("discrete_above_normal", "x", {}),
]
CASES = [
    *(("twin", *case) for case in BERNOULLI),
    *(("mu_prop", *case) for case in BERNOULLI if case[0] not in INDEXED),
    *(("network_baseline", *case) for case in BERNOULLI),
    *(("rebar", *case) for case in BERNOULLI if case[0] not in INDEXED),
    *(("stratified", *case) for case in NORMAL),
    *(("measure_valued", *case) for case in NORMAL),
]


@functools.cache
def prepared(estimator, name, site, others):
    oracle = BY_NAME[name]
    chosen = {s: names[0] for s, names in oracle.estimators.items()} | dict(others) | {site: WRITTEN[estimator]}
    return prepare(oracle.model, oracle.data, Options(guide=oracle.guide, estimators=chosen, num_particles=2))


@pytest.mark.parametrize(("estimator", "name", "site", "others"), CASES, ids=lambda v: str(v) if v else "")
def test_unbiased(estimator, name, site, others):
    oracle = BY_NAME[name]
    engine, inputs = prepared(estimator, name, site, tuple(others.items()))
    own = engine.estimator_params()

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    exact = oracle.exact_marginal if "marginalize" in others.values() else oracle.exact_elbo
    params = {k: jnp.asarray(v) for k, v in oracle.params.items()}
    assert_unbiased(batched(gradient), (params,), flat(jax.grad(exact)(params)))


@pytest.mark.parametrize("name", INDEXED)
def test_values_between_are_refused_where_the_model_needs_whole_ones(name):
    with pytest.raises(ValueError, match="site 'z': its estimator asks for the cost between the values"):
        prepared("rebar", name, "z", ())


@pytest.mark.parametrize("validate", [None, True])
def test_densities_between_the_values(validate):
    """log q of a Bernoulli at 0.3 is linear between its values, for the estimator and in the cost, whatever the guide
    says of validation."""
    seen = {}

    class Between(type(WRITTEN["rebar"])):
        def surrogate(self, q, draw, cost, params):
            value = jnp.full_like(draw.value, 0.3)
            seen.update(density=q.log_prob(value), at=cost.at(value))
            return jnp.zeros(()), jnp.zeros(())

    def model():
        b = numpyro.sample("b", dist.Bernoulli(0.4))
        numpyro.factor("cost", 2.0 * b)

    def guide():
        numpyro.sample("b", dist.Bernoulli(logits=0.8, validate_args=validate))

    options = Options(guide=guide, estimators={"b": Between()}, num_particles=1)
    engine, inputs = prepare(model, None, options)
    engine.estimate({"guide": {}, "param": {}}, {}, inputs.traced(), jax.random.key(0))
    log_q = 0.3 * 0.8 - np.log1p(np.exp(0.8))
    log_p = 0.3 * np.log(0.4) + 0.7 * np.log(0.6)
    np.testing.assert_allclose(seen["density"], [log_q], rtol=1e-5)
    np.testing.assert_allclose(seen["at"], [log_p - log_q + 0.6], rtol=1e-5)


@pytest.mark.parametrize("estimator", sorted(WRITTEN))
def test_each_is_short_and_none_is_in_the_table(estimator):
    assert len(inspect.getsource(type(WRITTEN[estimator])).splitlines()) <= 40
    assert type(WRITTEN[estimator]) not in ESTIMATORS.values()


def toy(site_logit):
    """(b - 0.499)^2 under Bernoulli(p), where prior and guide agree."""

    def model():
        b = numpyro.sample("b", dist.Bernoulli(logits=site_logit))
        numpyro.factor("loss", -((b - 0.499) ** 2))

    def guide():
        logit = numpyro.param("logit", jnp.asarray(site_logit))
        numpyro.sample("b", dist.Bernoulli(logits=logit))

    return model, guide


def variance_of(estimator, logit, particles=1, repeats=20_000):
    model, guide = toy(logit)
    options = Options(guide=guide, estimators={"b": WRITTEN[estimator]}, num_particles=particles)
    engine, inputs = prepare(model, None, options)
    raw = {"guide": {}, "param": {"logit": jnp.asarray(logit)}}
    grad = jax.grad(lambda p, key: engine.estimate(p, engine.estimator_params(), inputs.traced(), key)[0])
    one = lambda key: grad(raw, key)["param"]["logit"]  # noqa: E731
    return float(jnp.var(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), repeats))))


def test_variance_of_the_twin():
    """With |logit| = a, b and b' differ in 2 sigma(-a) of all draws, and the estimate is then (f1 - f0) sigma(a) / 2. A
    twin that had lost its coupling would have another variance."""
    logit, difference = 0.8, 0.251001 - 0.249001
    p = 1 / (1 + np.exp(-logit))
    value = difference * p / 2
    expected = 2 * (1 - p) * value**2 - (2 * (1 - p) * value) ** 2
    assert variance_of("twin", logit) == pytest.approx(expected, rel=0.05)


def test_the_conditional_relaxation_is_coupled():
    """REBAR without tuning, at temperature 1/2, has variance 2.2e-2 in the toy of its authors (known to two digits)."""
    assert variance_of("rebar", 0.0, repeats=50_000) == pytest.approx(2.2e-2, abs=0.05e-2)


def test_coupled_draws_lower_the_variance():
    """E z^2 under a normal by two particles: stratified noise has less variance than independent noise."""

    def model():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("cost", -jnp.exp(z))

    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    variances = {}
    for estimator in ("explicit", WRITTEN["stratified"]):
        engine, inputs = prepare(model, None, Options(guide=guide, estimators={"z": estimator}, num_particles=8))
        grad = jax.grad(lambda p, key, e=engine, i=inputs: e.estimate(p, {}, i.traced(), key)[0])
        raw = {"guide": {}, "param": {"loc": jnp.zeros(())}}
        one = lambda key, g=grad, r=raw: g(r, key)["param"]["loc"]  # noqa: E731
        variances[getattr(estimator, "name", estimator)] = float(
            jnp.var(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20_000)))
        )
    # Strata of width 1/8 hold about an eighth of the variance of e^z.
    assert variances["stratified"] < 0.4 * variances["explicit"]
