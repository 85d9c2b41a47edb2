"""LAX: right where the cost jumps, quieter than the score once it is trained, at home in every continuous family."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from scipy.stats import norm

import autovi
from autovi.estimators import Lax, Score
from autovi.preparation import Options, prepare

AT = {"loc": jnp.array(0.3), "log_scale": jnp.array(-0.2)}


def variances(cost, estimator, particles, steps):
    """The mean of the gradient, and its variance, after so many steps of training."""

    def model():
        numpyro.factor("cost", cost(numpyro.sample("z", dist.Normal(AT["loc"], jnp.exp(AT["log_scale"])))))

    def guide():
        own = {n: numpyro.param(n, x) for n, x in AT.items()}
        numpyro.sample("z", dist.Normal(own["loc"], jnp.exp(own["log_scale"])))

    engine, inputs = prepare(model, None, Options(guide=guide, estimators={"z": estimator}, num_particles=particles))
    estimate = lambda raw, own, key: engine.estimate({"guide": {}, "param": raw}, own, inputs.traced(), key)[0]  # noqa: E731
    own = engine.estimator_params()
    if steps:

        def step(carry, key):
            own, memory = carry
            changes, memory = estimator.optimizer.update(jax.grad(estimate, 1)(AT, own, key)["z"], memory, own["z"])
            return ({"z": optax.apply_updates(own["z"], changes)}, memory), None

        start = (own, estimator.optimizer.init(own["z"]))
        (own, _), _ = jax.jit(lambda c, ks: jax.lax.scan(step, c, ks))(
            start, jax.random.split(jax.random.key(0), steps)
        )
    keys = jax.random.split(jax.random.key(1), 40_000)
    found = jax.jit(lambda ks: jax.lax.map(lambda k: jax.grad(estimate)(AT, own, k), ks, batch_size=1000))(keys)
    found = -np.stack([found["loc"], found["log_scale"]], -1).astype(float)
    return found.mean(0), found.var(0).sum()


@pytest.mark.parametrize("steps", [0, 1_500])
def test_a_cost_that_jumps(steps):
    """E 1[z > 1]: its gradient in loc is phi(x) / s, in log s it is x phi(x), x = (1 - loc) / s."""
    mean, variance = variances(lambda z: 3.0 * (z > 1.0), Lax(), 2, steps)
    s = float(jnp.exp(AT["log_scale"]))
    x = (1 - 0.3) / s
    exact = 3 * norm.pdf(x) * np.array([1 / s, x])
    assert np.linalg.norm(np.sqrt(variance / 40_000)) < 0.03 * np.linalg.norm(exact)
    np.testing.assert_allclose(mean, exact, atol=5 * np.sqrt(variance / 40_000))


def test_training_takes_the_noise_away():
    cost = lambda z: 100.0 + 2.0 * z - jnp.square(z - 1.0)  # noqa: E731
    without, plain = variances(cost, Score(), 2, 0)
    mean, trained = variances(cost, Lax(), 2, 3_000)
    np.testing.assert_allclose(mean, without, atol=5 * np.sqrt(plain / 40_000))
    assert trained < 0.1 * plain


@pytest.mark.parametrize("guide", ["full_rank", "flow"])
def test_it_finds_a_posterior_in_every_family(guide):
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        rate = numpyro.sample("rate", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(x, 1.0).expand([4]).to_event(1), obs=y)
        numpyro.factor("rate_too", -rate)

    plan = autovi.plan(model, {"y": jnp.ones(4)}, guide=guide, estimators={"*": "lax"})
    assert plan["x"].estimator == "lax"
    fit = autovi.fit(
        model, {"y": jnp.ones(4)}, guide=guide, estimators={"*": "lax"}, num_steps=1500, progress_bar=False
    )
    draws = fit.sample(4000, resample=False)["x"]
    assert draws.mean() == pytest.approx(0.8, abs=0.12) and draws.std() == pytest.approx(0.2**0.5, rel=0.2)


def test_where_it_would_be_wrong():
    def refused(distribution, match):
        model = lambda: numpyro.factor("cost", numpyro.sample("z", distribution(0.5)) * 1.0)  # noqa: E731
        guide = lambda: numpyro.sample("z", distribution(numpyro.param("own", 0.5)))  # noqa: E731
        with pytest.raises(ValueError, match=f"site 'z'.*estimator 'lax' would be wrong, since {match}"):
            prepare(model, None, Options(guide=guide, estimators={"z": "lax"}))

    refused(lambda p: dist.Bernoulli(p), "its values are discrete")
    refused(lambda high: dist.Uniform(0.0, high), "its support depends on its parameter low, high")
    refused(lambda loc: dist.VonMises(loc, 2.0), "the control variate is not periodic in it")
