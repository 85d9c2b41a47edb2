"""Every estimator of the table against oracles: unbiased, stable under jit, the same under vmap and loop.

The mean of independent gradient estimates is compared with the exact gradient, coordinate by coordinate. Batches are
added until the standard error of the whole gradient is under 2 % of its norm, so that a bias of a tenth would be five
standard errors. With about a thousand coordinates in all and a bound of 5.5 standard errors the suite would raise a
false alarm in 4e-5 of all seeds; the seeds are fixed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE, assert_unbiased, batched, flat

from autovi.estimators import ESTIMATORS, Score
from autovi.preparation import Options, prepare
from oracles import ORACLES

BY_NAME = {o.name: o for o in ORACLES}


def cases():
    """(oracle, site, estimator): each site in turn with each of its estimators, the others with their first.

    All sites with their first is one case, under the name of the first site: it is the same program for each of them.
    """
    for oracle in ORACLES:
        for i, (site, names) in enumerate(oracle.estimators.items()):
            for name in names[min(i, 1) :]:
                yield pytest.param(oracle, site, name, id=f"{oracle.name}-{site}-{name}")


@functools.cache
def exact_gradient(oracle, marginal=False):
    """At the oracle's parameters, for all estimators."""
    exact = oracle.exact_marginal if marginal else oracle.exact_elbo
    # Not compiled: JAX keeps a NumPy constant's conversion by its identity, and the tests of the oracles themselves, in
    # double precision, would be given the one made here.
    gradient = jax.grad(exact)
    return flat(gradient({k: jnp.asarray(v) for k, v in oracle.params.items()}))


@functools.cache
def engine_of(oracle, site, estimator, num_particles=2):
    chosen = {s: names[0] for s, names in oracle.estimators.items()} | {site: estimator}
    options = Options(guide=oracle.guide, estimators=chosen, num_particles=num_particles)
    return prepare(oracle.model, oracle.data, options)


def gradient_fn(engine, inputs):
    def gradient(params, key):
        own = engine.estimator_params()
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    return gradient


def check_unbiased(oracle, gradient, exact):
    params = {k: jnp.asarray(v) for k, v in oracle.params.items()}
    assert_unbiased(batched(gradient), (params,), exact)


@pytest.mark.parametrize("oracle, site, estimator", list(cases()))
def test_unbiased(oracle, site, estimator):
    exact = exact_gradient(oracle, marginal=estimator == "marginalize")
    check_unbiased(oracle, gradient_fn(*engine_of(oracle, site, estimator)), exact)


@pytest.mark.parametrize("baseline", ["none", "moving_average", "optimal"])
@pytest.mark.parametrize("name", ["bernoulli_plate_subsample2", "dependent_pair", "normal_above_discrete", "poisson"])
def test_baselines_leave_the_mean_alone(name, baseline):
    oracle = BY_NAME[name]
    site = list(oracle.estimators)[-1]
    engine, inputs = engine_of(oracle, site, Score(baseline), max(2, Score(baseline).min_particles))

    def gradient(params, key):
        # A baseline that has seen past costs, different in every element.
        own = jax.tree.map(lambda b: b - 3.0 + jnp.arange(b.size).reshape(b.shape), engine.estimator_params())
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    check_unbiased(oracle, gradient, exact_gradient(oracle))


@pytest.mark.parametrize("name", ["bernoulli_plate_local_subsample2", "masked_latent"])
def test_a_network_of_the_data_leaves_the_mean_alone(name):
    """It sees the rows of the elements of the step."""
    oracle = BY_NAME[name]
    site, data = list(oracle.estimators)[-1], next(iter(oracle.data))
    engine, inputs = engine_of(oracle, site, Score("network", inputs=data))
    own = engine.estimator_params()
    own[site]["network"]["out"] += jnp.linspace(-2.0, 3.0, own[site]["network"]["out"].size)

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    check_unbiased(oracle, gradient, exact_gradient(oracle))


@pytest.mark.parametrize(
    ("name", "site", "estimator"),
    [("cross_element_sum", "z", "rodeo"), ("masked_latent", "z", "rodeo"), ("discrete_above_normal", "x", "lax")],
)
def test_coefficients_of_control_variates_leave_the_mean_alone(name, site, estimator):
    oracle = BY_NAME[name]
    engine, inputs = engine_of(oracle, site, estimator)
    own = engine.estimator_params()
    known = own[site]["moments"]
    number = known["products"].size
    known |= {"weight": jnp.ones(()), "squares": jnp.eye(number), "products": jnp.linspace(-0.4, 0.5, number)}

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    check_unbiased(oracle, gradient, exact_gradient(oracle))


def test_every_estimator_is_in_some_oracle():
    # "sticking" is for the engine's own families, and the oracles are guide functions: `test_sticking.py`.
    tested = {n for o in ORACLES for names in o.estimators.values() for n in names}
    # The biased ones have their own means tested in `test_biased.py`.
    assert tested | {"sticking"} == {cls.name for cls in ESTIMATORS.values() if not cls.biased}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture_plate_subsample2", "change_point", "two_sites_in_plate"])
def test_same_under_jit_vmap_and_loop(name):
    oracle = BY_NAME[name]
    site, names = next(iter(oracle.estimators.items()))
    gradient = gradient_fn(*engine_of(oracle, site, names[0]))
    params = {k: jnp.asarray(v) for k, v in oracle.params.items()}
    keys = jax.random.split(jax.random.key(3), 4)
    one = functools.partial(gradient, params)
    compiled = functools.partial(jax.jit, compiler_options=ONCE)
    loop = compiled(lambda ks: jax.lax.map(one, ks))(keys)
    together = compiled(jax.vmap(one))(keys)
    single = compiled(one)
    alone = [single(k) for k in keys]
    for a, b in zip(jax.tree.leaves(loop), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    for i, g in enumerate(alone):
        np.testing.assert_allclose(flat(g), flat(jax.tree.map(lambda x, i=i: x[i], loop)), rtol=2e-4, atol=1e-5)
