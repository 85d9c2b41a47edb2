"""Doubly reparameterized gradients: unbiased against exact gradients, a signal that does not drown as particles are
added, no noise at the posterior, and the weights of everything else left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

from autovi.objectives import Iwae, Renyi
from autovi.preparation import Options, prepare
from oracles.base import expected_gamma, log_gamma_nodes, standard_normal_nodes

X = np.float32(1.4)


def normal_model(x):
    z = numpyro.sample("z", dist.Normal(numpyro.param("prior", jnp.array(0.0)), 1.0))
    numpyro.sample("x", dist.Normal(z, 0.7), obs=x)


def normal_guide(x):
    m, s = numpyro.param("m", jnp.array(0.2)), numpyro.param("s", jnp.array(-0.3))
    numpyro.sample("z", dist.Normal(m, jnp.exp(s)))


NORMAL = {"m": jnp.array(0.2), "s": jnp.array(-0.3), "prior": jnp.array(0.1)}


def bound_of_two(log_w, weights, power):
    pairs = jnp.stack(jnp.broadcast_arrays(log_w[:, None], log_w[None, :]), -1)
    return weights @ ((jax.nn.logsumexp(power * pairs, -1) - np.log(2)) / power) @ weights


def exact_normal(params, power):
    nodes, weights = standard_normal_nodes()
    z = params["m"] + jnp.exp(params["s"]) * nodes
    log_q = -0.5 * nodes**2 - params["s"]
    log_p = -0.5 * (z - params["prior"]) ** 2 - 0.5 * ((X - z) / 0.7) ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi)
    return bound_of_two(log_p - log_q, weights, power)


def gamma_model(x):
    rate = numpyro.sample("z", dist.Gamma(2.0, 1.0))
    numpyro.sample("x", dist.Poisson(rate), obs=3)


def gamma_guide(x):
    a, b = numpyro.param("a", jnp.array(1.6)), numpyro.param("b", jnp.array(0.8))
    numpyro.sample("z", dist.Gamma(jnp.exp(a), jnp.exp(b)))


GAMMA = {"a": jnp.array(1.6), "b": jnp.array(0.8)}


def exact_gamma(params, power):
    log_z, step = log_gamma_nodes()
    z = np.exp(log_z)
    log_q = expected_gamma(jnp.exp(params["a"]), jnp.exp(params["b"]), log_z, z)
    log_p = expected_gamma(jnp.array(2.0), jnp.array(1.0), log_z, z) + 3 * log_z - z - np.log(6.0)
    return bound_of_two(log_p - log_q, step * jnp.exp(log_q + log_z), power)


def gradient_of(model, guide, objective, estimator="dreg", particles=2):
    options = Options(guide=guide, estimators={"z": estimator}, num_particles=particles, objective=objective)
    engine, inputs = prepare(model, {"x": X}, options)
    own = engine.estimator_params()

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)
        return jax.tree.map(jnp.negative, grads["param"])

    return gradient


@pytest.mark.parametrize(
    ("model", "guide", "params", "exact", "objective", "power"),
    [
        pytest.param(normal_model, normal_guide, NORMAL, exact_normal, "iwae", 1.0, id="normal"),
        pytest.param(normal_model, normal_guide, NORMAL, exact_normal, Renyi(0.4), 0.6, id="normal, renyi"),
        pytest.param(gamma_model, gamma_guide, GAMMA, exact_gamma, "iwae", 1.0, id="gamma"),
        pytest.param(gamma_model, gamma_guide, GAMMA, exact_gamma, Renyi(-0.5), 1.5, id="gamma, renyi"),
    ],
)
def test_unbiased(model, guide, params, exact, objective, power):
    """A parameter of the model is among those of the normal: it keeps the plain weights."""
    gradient = gradient_of(model, guide, objective)
    assert_unbiased(batched(gradient), (params,), flat(jax.grad(exact)(params, power)))


def test_the_formula_for_given_noise():
    """sum_k v_k^2 d log w_k/dz dz/dphi for q, sum_k v_k d log w_k for the model's parameter."""
    options = Options(guide=normal_guide, estimators={"z": "dreg"}, num_particles=5, objective="iwae")
    engine, _ = prepare(normal_model, {"x": X}, options)
    key = jax.random.key(2)
    noise = engine.program.noise(key, 5)["z"]
    eps = jax.vmap(lambda k: dist.Normal(0.0, 1.0).sample(k))(noise)
    log_w = lambda z, p, q: (  # noqa: E731
        dist.Normal(p, 1.0).log_prob(z)
        + dist.Normal(z, 0.7).log_prob(X)
        - dist.Normal(q["m"], jnp.exp(q["s"])).log_prob(z)
    )
    z = NORMAL["m"] + jnp.exp(NORMAL["s"]) * eps
    weights = jax.nn.softmax(log_w(z, NORMAL["prior"], NORMAL))
    slope = jax.vmap(jax.grad(log_w), (0, None, None))(z, NORMAL["prior"], NORMAL)
    expected = {
        "m": jnp.sum(weights**2 * slope),
        "prior": jnp.sum(weights * (z - NORMAL["prior"])),
        "s": jnp.sum(weights**2 * slope * eps * jnp.exp(NORMAL["s"])),
    }
    found = gradient_of(normal_model, normal_guide, "iwae", particles=5)(NORMAL, key)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-5)


def noise_of(estimator, particles, objective="iwae", params=NORMAL):
    gradient = gradient_of(normal_model, normal_guide, objective, estimator, particles)
    keys = jax.random.split(jax.random.key(5), 5_000)
    found = jax.jit(lambda ks: jax.lax.map(lambda k: gradient(params, k)["m"], ks, batch_size=1000))(keys)
    return float(jnp.mean(found)), float(jnp.std(found))


def test_signal_to_noise_grows_with_the_particles_and_falls_without():
    """As the root of K, and as one over the root: Rainforth et al. (2018), theorem 1; Tucker et al. (2019)."""
    ratio = {}
    for name in ("dreg", "explicit"):
        few, many = (noise_of(name, k) for k in (4, 64))
        ratio[name] = (abs(many[0]) / many[1]) / (abs(few[0]) / few[1])
    assert ratio["dreg"] > 2.0
    assert ratio["explicit"] < 0.6


def test_no_noise_at_the_posterior():
    precision = 1 + 1 / 0.49
    at = {"m": jnp.array((0.1 + 1.4 / 0.49) / precision), "s": jnp.array(-0.5 * np.log(precision)), "prior": 0.1}
    at = {n: jnp.asarray(x, jnp.float32) for n, x in at.items()}
    for objective in ("iwae", Renyi(0.5), "elbo"):
        assert noise_of("dreg", 8, objective, at)[1] < 1e-5
        assert noise_of("explicit", 8, objective, at)[1] > 0.1


def test_beside_a_site_with_the_score():
    """A yes-or-no site with VIMCO's signal and a normal one, K = 2, by enumeration and quadrature."""

    def model(x):
        on = numpyro.sample("on", dist.Bernoulli(0.3))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z + 2.0 * on, 0.7), obs=x)

    def guide(x):
        numpyro.sample("on", dist.Bernoulli(logits=numpyro.param("a", jnp.array(0.4))))
        normal_guide(x)

    params = {"a": jnp.array(0.4), "m": jnp.array(0.2), "s": jnp.array(-0.3)}

    def exact(params):
        nodes, weights = standard_normal_nodes()
        on = np.array([0.0, 1.0])[:, None]
        z = params["m"] + jnp.exp(params["s"]) * nodes
        log_on = jnp.stack([jax.nn.log_sigmoid(-params["a"]), jax.nn.log_sigmoid(params["a"])])[:, None]
        log_q = -0.5 * nodes**2 - params["s"] + log_on
        log_p = -0.5 * z**2 - 0.5 * ((X - z - 2 * on) / 0.7) ** 2 + np.log(np.array([0.7, 0.3]))[:, None]
        total = jnp.ravel(jnp.exp(log_on) * weights)
        return bound_of_two(jnp.ravel(log_p - log_q), total, 1.0)

    estimators = {"z": "dreg", "on": {"estimator": "score", "baseline": "none"}}
    options = Options(guide=guide, estimators=estimators, num_particles=2, objective="iwae")
    engine, inputs = prepare(model, {"x": X}, options)
    own = engine.estimator_params()

    def gradient(params, key):
        loss = lambda p: -engine.estimate({"guide": {}, "param": p}, own, inputs.traced(), key)[0]  # noqa: E731
        return jax.grad(loss)(params)

    assert_unbiased(batched(gradient), (params,), flat(jax.grad(exact)(params)))


def joint(x):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(z[0] * z[1], 0.7), obs=x)


@pytest.mark.parametrize("family", ["full_rank", "low_rank"])
def test_with_the_engines_own_families(family):
    """The mean is that of `explicit`, which leaves the score in."""
    means = []
    for estimator in ("dreg", "explicit"):
        options = Options(
            families={"z": family}, estimators={"z": estimator}, num_particles=4, objective=Iwae(), guide="auto"
        )
        engine, inputs = prepare(joint, {"x": X}, options)
        own = engine.estimator_params()
        params = engine.program.init(jax.random.key(0), {}, jnp.array([0.8, 1.1]))["guide"]
        params = jax.tree.map(lambda x: x + 0.1, params)

        def gradient(guide, key, engine=engine, own=own, inputs=inputs):
            loss = lambda g: engine.estimate({"guide": g, "param": {}}, own, inputs.traced(), key)[0]  # noqa: E731
            return flat_of(jax.grad(loss)(guide))

        keys = jax.random.split(jax.random.key(7), 20_000)
        found = jax.jit(lambda ks, g=gradient, p=params: jax.lax.map(lambda k: g(p, k), ks, batch_size=2000))(keys)
        means.append((np.mean(found, 0), np.std(found, 0) / np.sqrt(len(keys))))
    (a, a_error), (b, b_error) = means
    assert np.linalg.norm(a_error) < 0.05 * np.linalg.norm(a)
    assert (np.abs(a - b) / (np.hypot(a_error, b_error) + 1e-5)).max() < 5.5


def flat_of(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def test_refused_where_sites_are_tied_in_the_guide():
    def guide(x):
        on = numpyro.sample("on", dist.Bernoulli(0.5))
        numpyro.sample("z", dist.Normal(on * 1.0, 1.0))

    def model(x):
        numpyro.sample("on", dist.Bernoulli(0.5))
        normal_model(x)

    with pytest.raises(ValueError, match="'dreg' would be wrong, since the guide draws 'z' given 'on'"):
        prepare(model, {"x": X}, Options(guide=guide, estimators={"z": "dreg"}))
