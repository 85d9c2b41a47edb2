"""Simultaneous perturbation: means and variances against closed forms, its bias included."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from scipy import stats

from autovi.estimators import SPSA
from autovi.preparation import Options, prepare

STEP = 0.5  # so large that the bias shows


def gradients(make, params, cost, repeats=40_000):
    """Gradients of E cost(z), z ~ make(params): prior and guide agree, so that nothing else is in them."""

    def model():
        numpyro.factor("cost", cost(numpyro.sample("z", make(params))))

    def guide():
        numpyro.sample("z", make({n: numpyro.param(n, v) for n, v in params.items()}))

    options = Options(guide=guide, estimators={"z": SPSA(STEP)}, num_particles=1, allow_bias=True)
    engine, inputs = prepare(model, None, options)
    grad = jax.grad(lambda p, key: engine.estimate(p, {}, inputs.traced(), key)[0])
    one = lambda key: jax.tree.map(jnp.negative, grad({"guide": {}, "param": params}, key)["param"])  # noqa: E731
    run = jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000), compiler_options=ONCE)
    found = run(jax.random.split(jax.random.key(3), repeats))
    return {n: np.asarray(g, float) for n, g in found.items()}


def near(found, expected):
    se = found.std(0) / len(found) ** 0.5
    np.testing.assert_array_less(np.abs(found.mean(0) - expected), 5 * se + 1e-6)


def test_the_mean_and_the_variance_of_a_logit():
    """Draws differ with probability p(l + c) - p(l - c): mean and variance of two values."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    found = gradients(lambda p: dist.Bernoulli(logits=p["l"]), {"l": jnp.array(0.4)}, lambda z: 3.0 * z)["l"]
    differ = sigmoid(0.4 + STEP) - sigmoid(0.4 - STEP)
    near(found, 3 * differ / (2 * STEP))
    assert found.var() == pytest.approx((3 / (2 * STEP)) ** 2 * differ * (1 - differ), rel=0.03)


def test_parameters_are_moved_together_and_a_scale_stays_positive():
    """E z^2 = m^2 + s^2, s moved by factors exp(c) and exp(-c), m at the same time: both signs of both enumerated."""
    params = {"m": jnp.array(0.6), "s": jnp.array(0.1)}
    found = gradients(lambda p: dist.Normal(p["m"], p["s"]), params, lambda z: z**2)
    mean = lambda d, e: (0.6 + STEP * d) ** 2 + (0.1 * np.exp(STEP * e)) ** 2  # noqa: E731
    signs = list(product((1, -1), repeat=2))
    near(found["m"], np.mean([d * (mean(d, e) - mean(-d, -e)) / (2 * STEP) for d, e in signs]))
    near(found["s"], np.mean([e * (mean(d, e) - mean(-d, -e)) / (2 * STEP) for d, e in signs]) / 0.1)


def test_counts_of_a_plate():
    """Of r = e^u, E 1[z = 0] = exp(-r): elements that share a cost have each their own slope."""
    params = {"r": jnp.array([0.5, 2.0])}

    def make(p):
        return dist.Poisson(p["r"]).to_event(1)

    found = gradients(make, params, lambda z: jnp.sum(jnp.where(z == 0, 1.0, 0.0)))["r"]
    rate = np.asarray(params["r"], float)
    none = lambda move: stats.poisson(rate * np.exp(move)).pmf(0)  # noqa: E731
    near(found, (none(STEP) - none(-STEP)) / (2 * STEP) / rate)


def test_it_is_biased_and_refuses_supports_that_move():
    def model():
        numpyro.factor("cost", numpyro.sample("z", dist.Uniform(0.0, 1.0)))

    guide = lambda: numpyro.sample("z", dist.Uniform(0.0, numpyro.param("h", 0.5)))  # noqa: E731
    with pytest.raises(ValueError, match="its support depends on its parameter low, high"):
        prepare(model, None, Options(guide=guide, estimators={"z": "spsa"}, allow_bias=True))
    with pytest.raises(ValueError, match="allow_bias"):
        prepare(model, None, Options(guide=lambda: numpyro.sample("z", dist.Beta(1.0, 2.0)), estimators={"z": "spsa"}))
    with pytest.raises(ValueError, match="step: expected a positive number"):
        SPSA(0.0)
