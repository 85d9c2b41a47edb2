"""Generalized Gumbel-softmax for counts: its mean, the draws, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.estimators import GumbelSoftmax
from autovi.preparation import Options, prepare

TARGET, NUM_VALUES = 1.5, 12
COUNTS = {
    "Poisson": lambda t: dist.Poisson(jnp.exp(t)),
    "GeometricLogits": lambda t: dist.Geometric(logits=-t),
    "GeometricProbs": lambda t: dist.Geometric(jax.nn.sigmoid(-t)),
    "NegativeBinomial2": lambda t: dist.NegativeBinomial2(jnp.exp(t), 3.0),
}


def gradients(make, estimator, repeats=20_000, at=0.4):
    """Of (z - 1.5)^2 in t, by the estimator."""

    def model():
        z = numpyro.sample("z", make(jnp.asarray(at)))
        numpyro.factor("cost", (z - TARGET) ** 2)

    def guide():
        numpyro.sample("z", make(numpyro.param("t", at)))

    options = Options(guide=guide, estimators={"z": estimator}, num_particles=1, allow_bias=True)
    engine, inputs = prepare(model, None, options)
    own = engine.estimator_params()
    grad = jax.grad(lambda t, key: engine.estimate({"guide": {}, "param": {"t": t}}, own, inputs.traced(), key)[0])
    keys = jax.random.split(jax.random.key(7), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(lambda key: -grad(at, key), ks, batch_size=1000))(keys), float)


def mean_of_formula(make, temperature, at=0.4):
    """By the formula itself, on 400,000 draws of Gumbels."""
    values = jnp.arange(NUM_VALUES)

    def cost(t, g):
        p = jnp.exp(make(t).log_prob(values[:-1]))
        log_p = jnp.log(jnp.append(p, 1 - jnp.sum(p)))
        return (jax.nn.softmax((log_p + g) / temperature) @ values - TARGET) ** 2

    g = jax.random.gumbel(jax.random.key(8), (400_000, NUM_VALUES))
    own = jax.jit(jax.vmap(jax.grad(cost), (None, 0)))(at, g)
    return float(own.mean()), float(own.std()) / 400_000**0.5


@pytest.mark.parametrize("name", COUNTS)
def test_the_mean_is_that_of_the_formula(name):
    expected, error = mean_of_formula(COUNTS[name], 0.7)
    found = gradients(COUNTS[name], GumbelSoftmax(0.7, NUM_VALUES))
    se = np.hypot(found.std() / len(found) ** 0.5, error)
    assert se < 0.04 * abs(expected) and abs(found.mean() - expected) < 5 * se


def test_a_low_temperature_has_the_gradient_nearly():
    """E (z - b)^2 of a Poisson is r + (r - b)^2: its derivative in log r is r + 2 r (r - b)."""
    rate = np.exp(0.4)
    exact = rate + 2 * rate * (rate - TARGET)
    hot, cold = (gradients(COUNTS["Poisson"], GumbelSoftmax(t, 20), 40_000) for t in (1.0, 0.2))
    assert abs(cold.mean() - exact) < 0.1 * exact + 5 * cold.std() / 200 < abs(hot.mean() - exact)


def test_draws_are_counts_and_the_elbo_is_that_of_q():
    def model(y):
        with numpyro.plate("n", 3):
            z = numpyro.sample("z", dist.Poisson(3.0))
            numpyro.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)

    data = {"y": np.array([1.0, 3.0, 6.0])}
    asked = {"estimators": {"z": "gumbel_softmax"}, "allow_bias": True, "num_steps": 1000, "learning_rate": 0.1}
    fit = autovi.fit(model, data, progress_bar=False, **asked)
    z = fit.sample(1000, resample=False)["z"]
    np.testing.assert_array_equal(z, np.round(z))
    assert fit.plan.biased == {"z": "gumbel_softmax"}
    unbiased = autovi.fit(model, data, progress_bar=False, num_steps=1000, learning_rate=0.1)
    assert fit.elbo == pytest.approx(unbiased.elbo, abs=0.3)
    assert -fit.losses[-300:].mean() == pytest.approx(fit.elbo, abs=0.3)


def test_what_cannot_be_is_refused():
    def index(y):
        z = numpyro.sample("z", dist.Poisson(1.0))
        numpyro.sample("y", dist.Normal(jnp.arange(50.0)[z], 1.0), obs=y)

    def finite(y):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)

    with pytest.raises(ValueError, match="^site 'z': its estimator asks for the cost between the values"):
        autovi.plan(index, {"y": 1.0}, estimators={"z": "gumbel_softmax"}, allow_bias=True)
    with pytest.raises(ValueError, match="'gumbel_softmax' would be wrong, since it is for Poisson, "):
        autovi.plan(finite, {"y": 1.0}, estimators={"z": "gumbel_softmax"}, allow_bias=True)
    with pytest.raises(ValueError, match="^num_values: expected at least 2, got 1"):
        GumbelSoftmax(num_values=1)
