"""Relaxed and straight-through estimators of categorical sites: means and variances."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from test_variances import EXACT, TARGET, THREE

from autovi.estimators import Concrete, Rebar, ReinMax, Relax, Score, StraightThrough
from autovi.estimators.categories import log_probs
from autovi.estimators.onehot import given
from autovi.preparation import Options, prepare

LOGITS = jnp.array([[0.3, -0.5, 0.1], [0.0, 0.8, -1.0]])
P = np.asarray(jax.nn.softmax(LOGITS), float)
VALUES = np.array([[0.5, -1.0, 1.5], [2.0, 0.3, -0.4]])
JACOBIAN = P[:, :, None] * np.eye(3) - P[:, :, None] * P[:, None, :]


def gradients(estimator, power=2, logits=LOGITS, values=VALUES, target=0.3, repeats=30_000):
    """Of sum_i (v_i[z_i] - t)^power under z_i ~ Categorical(logits_i), by the estimator, particle by particle."""

    def model():
        with numpyro.plate("n", len(values)):
            z = numpyro.sample("z", dist.Categorical(logits=logits))
            picked = jnp.take_along_axis(jnp.asarray(values), z[:, None], 1)[:, 0]
            numpyro.factor("cost", (picked - target) ** power)

    def guide():
        own = numpyro.param("logits", logits)
        with numpyro.plate("n", len(values)):
            numpyro.sample("z", dist.Categorical(logits=own))

    options = Options(guide=guide, estimators={"z": estimator}, num_particles=1, allow_bias=estimator.biased)
    engine, inputs = prepare(model, None, options)
    own = engine.estimator_params()
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad({"guide": {}, "param": {"logits": logits}}, key)["param"]["logits"]  # noqa: E731
    keys = jax.random.split(jax.random.key(5), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def costs(power):
    return (VALUES - 0.3) ** power


def exact(power):
    return np.einsum("nij,nj->ni", JACOBIAN, costs(power))


def slopes(power):
    """f'(w) at each value: what multiplies w_j at value k."""
    return power * (VALUES - 0.3)[:, :, None] ** (power - 1) * VALUES[:, None, :]


def straight_mean(power):
    return np.einsum("nk,nij,nkj->ni", P, JACOBIAN, slopes(power))


def reinmax_jacobians():
    middle = 0.5 * (P[:, None, :] + np.eye(3))
    first = middle[..., None] * np.eye(3) - middle[..., None] * middle[..., None, :]
    return 2 * first - 0.5 * JACOBIAN[:, None]


def reinmax_mean(power):
    return np.einsum("nk,nkij,nkj->ni", P, reinmax_jacobians(), slopes(power))


def concrete_mean(temperature):
    def cost(logits, g):
        w = jax.nn.softmax((logits + g) / temperature)
        return jnp.sum((jnp.sum(w * VALUES, -1) - 0.3) ** 2)

    g = jax.random.gumbel(jax.random.key(9), (400_000, 2, 3))
    return np.asarray(jax.jit(jax.grad(lambda x: jnp.mean(jax.vmap(cost, (None, 0))(x, g))))(LOGITS), float)


CASES = {
    "straight_through": (StraightThrough(), 2, straight_mean(2)),
    "reinmax": (ReinMax(), 3, reinmax_mean(3)),
    "concrete": (Concrete(0.7), 2, concrete_mean(0.7)),
}


def z_of(found, expected):
    error = found.std(0) / len(found) ** 0.5
    assert np.linalg.norm(error) < 0.04 * np.linalg.norm(expected)
    return np.abs(found.mean(0) - expected) / (error + 2e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_biased_ones_is_that_of_the_formula(name):
    estimator, power, expected = CASES[name]
    found = gradients(estimator, power)
    assert z_of(found, expected).max() < 5
    assert np.linalg.norm(expected - exact(power)) > 0.03 * np.linalg.norm(exact(power))


@pytest.mark.parametrize(
    ("estimator", "jacobians"),
    [(StraightThrough(), np.stack([JACOBIAN] * 3, 1)), (ReinMax(), reinmax_jacobians())],
    ids=["straight_through", "reinmax"],
)
def test_each_draw_has_the_gradient_of_the_formula(estimator, jacobians):
    """Without Monte Carlo: the estimate of each element is that of one of its three values, and all three occur."""
    found = gradients(estimator, 3, repeats=1_000)
    expected = np.einsum("nkij,nkj->nki", jacobians, slopes(3))
    apart = np.abs(found[:, :, None] - expected).max(-1)  # by estimate, element and value
    assert (apart.min(2) < 1e-4).all() and (apart.min(0) < 1e-4).all()


def test_right_to_first_and_to_second_order():
    np.testing.assert_allclose(straight_mean(1), exact(1), atol=1e-6)
    np.testing.assert_allclose(reinmax_mean(2), exact(2), atol=1e-6)
    assert z_of(gradients(StraightThrough(), 1), exact(1)).max() < 5
    assert z_of(gradients(ReinMax()), exact(2)).max() < 5


@pytest.mark.parametrize("estimator", [Rebar(), Relax(through_model=False)], ids=["rebar", "relax"])
def test_unbiased_ones(estimator):
    assert z_of(gradients(estimator), exact(2)).max() < 5


def bernoullis(logit, repeats):
    """As `gradients` with REBAR, of sum_i (b_i - t_i)^2 under Bernoullis in a plate."""

    def model():
        with numpyro.plate("n", 3):
            b = numpyro.sample("b", dist.Bernoulli(logits=logit))
            numpyro.factor("cost", (b - TARGET) ** 2)

    def guide():
        own = numpyro.param("logit", logit)
        with numpyro.plate("n", 3):
            numpyro.sample("b", dist.Bernoulli(logits=own))

    engine, inputs = prepare(model, None, Options(guide=guide, estimators={"b": Rebar()}, num_particles=1))
    own = engine.estimator_params()
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad({"guide": {}, "param": {"logit": logit}}, key)["param"]["logit"]  # noqa: E731
    keys = jax.random.split(jax.random.key(6), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def test_a_categorical_of_two_values_is_a_bernoulli():
    """The RELAX authors' three Bernoullis as categoricals: the same mean and variance in the logit of 1."""
    logits = jnp.stack([jnp.zeros(3), jnp.log(THREE) - jnp.log1p(-THREE)], -1)
    values = np.stack([-np.asarray(TARGET), 1 - np.asarray(TARGET)], -1)
    found = gradients(Rebar(), 2, logits, values, 0.0, 40_000)
    np.testing.assert_allclose(found[..., 0], -found[..., 1], atol=1e-5)
    like = bernoullis(logits[:, 1], 40_000)
    np.testing.assert_allclose(found[..., 1].var(0), like.var(0), rtol=0.1)
    assert np.abs(found[..., 1].mean(0) - EXACT).max() < 5 * like.std(0).max() / 200


@pytest.mark.parametrize("make", [lambda x: dist.Bernoulli(logits=x), lambda x: dist.Bernoulli(jax.nn.sigmoid(x))])
def test_log_probabilities_have_their_slope_where_both_values_are_as_likely(make):
    """Where fits start; the derivative of NumPyro's own density is off there."""
    np.testing.assert_allclose(jax.jacobian(lambda x: log_probs(make(x)))(0.0), [-0.5, 0.5], atol=1e-6)


def test_the_relaxation_given_the_draw_has_the_draw_at_its_top():
    """Else the control variate is unbiased, and good for nothing."""
    log_p = jnp.log(jnp.array([0.7, 0.05, 0.25]))
    for k in range(3):
        e = jax.random.exponential(jax.random.key(k), (1000, 3))
        assert (jnp.argmax(given(log_p, jax.nn.one_hot(k, 3), e), -1) == k).all()
    far = {"target": -3.0, "repeats": 10_000}
    assert gradients(Rebar(), **far).var(0).sum() < 0.2 * gradients(Score("none"), **far).var(0).sum()


def test_relaxations_given_draws_are_those_without():
    """Averaged over draws their law is that of log p + Gumbels: each is a Gumbel around its log p (DKW, 1e-6)."""
    p = np.array([0.7, 0.05, 0.25])
    drawn = jax.nn.one_hot(jax.random.categorical(jax.random.key(0), jnp.log(p), shape=(50_000,)), 3)
    z = np.asarray(given(jnp.log(p), drawn, jax.random.exponential(jax.random.key(1), (50_000, 3))), float)
    for k in range(3):
        ordered = np.sort(z[:, k])
        law = np.exp(-p[k] * np.exp(-ordered))
        assert np.abs(law - (np.arange(50_000) + 0.5) / 50_000).max() < (np.log(2 / 1e-6) / 100_000) ** 0.5
