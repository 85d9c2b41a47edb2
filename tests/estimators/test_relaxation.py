"""The relaxed draws of REBAR and RELAX, and those given the draw, at logits where a uniform number has no digits."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.estimators import Concrete, Rebar, Relax
from autovi.estimators.control import coefficients
from autovi.estimators.onehot import given, gumbels
from autovi.preparation import Options, prepare

precision = pytest.mark.parametrize("x64", [False, True], ids=["single", "double"])


@precision
@pytest.mark.parametrize("logit", [-20.0, -3.0, 0.0, 1.0, 20.0])
def test_the_draw_given_the_value_has_the_right_law(x64, logit):
    """Of two values: P(z1 - z0 > y) / P(z1 - z0 > 0) is uniform, 1 / (1 + e0 / e1) of the two exponentials."""
    ratio = np.geomspace(1e-3, 1e6, 40)
    with jax.enable_x64(x64):
        logits = jax.nn.log_softmax(jnp.array([0.0, logit]))
        e = jnp.stack([jnp.asarray(ratio), jnp.ones(40)], -1)
        z = np.asarray(given(logits, jnp.array([0.0, 1.0]), e), float)
    y = z[:, 1] - z[:, 0]
    log_sigmoid = lambda x: -np.logaddexp(0, -x)  # noqa: E731
    log_tail = log_sigmoid(logit - y) - log_sigmoid(logit)
    assert (y >= 0).all()
    np.testing.assert_allclose(log_tail, -np.log1p(ratio), rtol=1e-6 if x64 else 1e-3, atol=1e-9 if x64 else 1e-5)


@precision
def test_gumbels_have_digits_far_in_the_upper_tail(x64):
    with jax.enable_x64(x64):
        g = np.asarray(gumbels(jax.random.key(0), jnp.zeros(1_000_000)), float)
    assert g.mean() == pytest.approx(np.euler_gamma, abs=6e-3)
    steps = np.exp(-g[g > 9]) * 2**23
    assert len(steps) > 60 and np.mean(np.abs(steps - np.round(steps)) > 0.02) > 0.9


@precision
@pytest.mark.parametrize("estimator", [Rebar(), Relax()], ids=["rebar", "relax"])
def test_estimates_at_extreme_logits(x64, estimator):
    """The exact gradient is 2e-9 or less there: without the rare draw the estimates must be as small."""
    with jax.enable_x64(True) if x64 else contextlib.nullcontext():
        logit = jnp.array([20.0, -20.0])

        def model():
            b = numpyro.sample("b", dist.Bernoulli(logits=logit).to_event(1))
            numpyro.factor("cost", jnp.sum((b - 0.2) ** 2))

        def guide():
            numpyro.sample("b", dist.Bernoulli(logits=numpyro.param("logit", logit)).to_event(1))

        engine, inputs = prepare(model, None, Options(guide=guide, estimators={"b": estimator}, num_particles=1))
        raw, own = {"guide": {}, "param": {"logit": logit}}, engine.estimator_params()
        grad = jax.grad(lambda raw, key: engine.estimate(raw, own, inputs.traced(), key)[0])
        one = lambda key: grad(raw, key)["param"]["logit"]  # noqa: E731
        found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 5000)))
    assert np.isfinite(found).all()
    assert np.abs(np.mean(found, 0)).max() < 1e-6


@precision
def test_an_exponential_of_zero_has_a_finite_draw(x64):
    """One in 2^24 of float32's is: an infinite z is NaN in a softmax, and a step that draws many meets it."""
    with jax.enable_x64(x64):
        e = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
        z = given(jnp.log(jnp.array([0.3, 0.7])), jnp.array([0.0, 1.0]), e)
    assert np.isfinite(z).all() and (z[:, 1] >= z[:, 0]).all()


@pytest.mark.parametrize("rounding", [-1e-6, 0.0, 1e-6])
def test_control_variates_that_are_one_to_rounding_share_its_coefficient(rounding):
    """As of RELAX's constant and a cost that the temperature has made one: moments of 1 and 1 + 1e-6."""
    squares = jnp.array([[1.0, 1.0 + rounding, 0.0], [1.0 + rounding, 1.0, 0.0], [0.0, 0.0, 4.0]])
    known = {"weight": jnp.ones(()), "products": jnp.array([1.0, 1.0, 2.0]), "squares": squares}
    np.testing.assert_allclose(coefficients(known, [0.0] * 3), [-0.5, -0.5, -0.5], rtol=0.02)


def test_the_slope_of_a_relaxed_draw_counts_what_goes_through_a_scored_one():
    """Of E f(z, w), w ~ Bernoulli(logits = 1.1 z - .4) scored: `concrete` has the derivative of the relaxed
    expectation, that over w exact, by the trapezoidal rule over the noise. (q is the prior: f is all there is.)"""
    temperature = 0.7

    def model():
        z = numpyro.sample("z", dist.Bernoulli(logits=0.3))
        w = numpyro.sample("w", dist.Bernoulli(logits=1.1 * z - 0.4))
        numpyro.factor("cost", 1.5 * w + 0.5 * z + z * w)

    def guide():
        z = numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logit", jnp.array(0.3))))
        numpyro.sample("w", dist.Bernoulli(logits=1.1 * z - 0.4))

    asked = {"z": Concrete(temperature), "w": "score"}
    options = Options(guide=guide, estimators=asked, num_particles=2, allow_bias=True)
    engine, inputs = prepare(model, None, options)
    own = engine.estimator_params()
    loss = lambda x, key: engine.estimate({"guide": {}, "param": {"logit": x}}, own, inputs.traced(), key)[0]  # noqa: E731
    grads = jax.jit(jax.vmap(lambda key: -jax.grad(loss)(0.3, key)))(jax.random.split(jax.random.key(0), 40_000))
    noise = np.linspace(-30.0, 30.0, 20_001)
    weights = np.exp(-noise) / (1 + np.exp(-noise)) ** 2 * 0.003

    def relaxed(logit):
        z = jax.nn.sigmoid((logit + noise) / temperature)
        p = jax.nn.sigmoid(1.1 * z - 0.4)
        return jnp.sum(weights * (0.5 * z + (1.5 + z) * p))

    exact = float(jax.grad(relaxed)(0.3))
    found = np.asarray(grads, float)
    assert abs(found.mean() - exact) < 5 * found.std() / len(found) ** 0.5 < 0.05 * abs(exact)
