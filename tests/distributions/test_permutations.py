"""Plackett-Luce distributions against the definition, item by item."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.optimize import minimize

import autovi
from autovi.distributions import PlackettLuce, PlackettLuceMatrix, permutation, permutation_matrix
from autovi.distributions.beams import distinct_orders
from autovi.distributions.permutations import soft_order
from autovi.distributions.registry import lookup

LOGITS = np.array([0.3, -1.0, 2.0, 0.5])
ORDERS = np.array(list(itertools.permutations(range(4))))


def chance(logits, order):
    """The product of the chances of the items, one after the other."""
    weights, out = np.exp(logits), 1.0
    for i, item in enumerate(order):
        out *= weights[item] / weights[list(order[i:])].sum()
    return out


def test_density_is_that_of_drawing_without_replacement():
    found = np.exp(PlackettLuce(jnp.asarray(LOGITS)).log_prob(jnp.asarray(ORDERS)))
    np.testing.assert_allclose(found, [chance(LOGITS, o) for o in ORDERS], rtol=2e-5)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    shifted = PlackettLuce(jnp.asarray(LOGITS) + 40.0).log_prob(jnp.asarray(ORDERS))
    np.testing.assert_allclose(np.exp(shifted), found, rtol=1e-4)


def test_draws_are_as_likely_as_the_density_says():
    draws = np.asarray(PlackettLuce(jnp.asarray(LOGITS)).sample(jax.random.key(0), (40_000,)))
    counts = np.array([(draws == o).all(-1).sum() for o in ORDERS])
    expected = 40_000 * np.array([chance(LOGITS, o) for o in ORDERS])
    assert counts.sum() == 40_000
    assert np.sum((counts - expected) ** 2 / expected) < 60  # chi squared with 23 degrees: 60 has probability 4e-5


def test_densities_of_hopeless_orders_are_finite():
    q = PlackettLuce(jnp.array([0.0, 300.0, -300.0]))
    value, slope = jax.value_and_grad(lambda logits: PlackettLuce(logits).log_prob(jnp.array([2, 0, 1])))(q.logits)
    assert value == pytest.approx(-900.0)
    np.testing.assert_allclose(slope, [1.0, -2.0, 1.0], atol=1e-5)


def test_shapes_and_batches():
    q = PlackettLuce(jnp.zeros((2, 1, 5))).expand((2, 3))
    draw = q.sample(jax.random.key(0), (4,))
    assert draw.shape == (4, 2, 3, 5) and q.log_prob(draw).shape == (4, 2, 3)
    np.testing.assert_allclose(q.log_prob(draw), -np.log(120.0), rtol=1e-5)
    assert jnp.issubdtype(draw.dtype, jnp.integer) and bool(permutation(draw).all())
    stacked = jax.vmap(PlackettLuce)(jnp.asarray(np.stack([LOGITS, -LOGITS])))
    assert jax.vmap(lambda q: q.log_prob(jnp.arange(4)))(stacked).shape == (2,)


def test_matrices_have_the_density_of_their_orders_and_one_between():
    q, logits = PlackettLuceMatrix(jnp.asarray(LOGITS)), jnp.asarray(LOGITS)
    matrices = jnp.eye(4, dtype=int)[jnp.asarray(ORDERS)]
    expected = PlackettLuce(logits).log_prob(jnp.asarray(ORDERS))
    np.testing.assert_allclose(q.log_prob(matrices), expected, atol=1e-5)
    np.testing.assert_array_equal(matrices @ jnp.arange(4), ORDERS)
    middle = PlackettLuceMatrix(logits, validate_args=False).log_prob(jnp.full((4, 4), 0.25))
    np.testing.assert_allclose(middle, LOGITS.sum() - _uniform_middle(), rtol=1e-5)
    draws = PlackettLuceMatrix(jnp.zeros((2, 1, 3))).expand((2, 4)).sample(jax.random.key(0), (5,))
    assert draws.shape == (5, 2, 4, 3, 3) and bool(permutation_matrix(draws).all())
    assert jnp.issubdtype(draws.dtype, jnp.integer)
    assert not bool(permutation_matrix(jnp.array([[1, 0], [1, 0]])))


def _uniform_middle():
    """sum_i log (share of what is left at place i times the sum of the weights) where all shares are equal."""
    return sum(np.log((4 - i) / 4 * np.exp(LOGITS).sum()) for i in range(4))


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_scaled_matrices_are_doubly_stochastic_and_end_at_the_order(temperature):
    z = jnp.array([0.3, -1.0, 2.0, 0.9])
    p = soft_order(z, temperature, 20)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(p.sum(-2), 1, atol=1e-3)
    # The limit does not depend on where the scaling starts.
    plain = jnp.exp(jnp.array([3.0, 1.0, -1.0, -3.0])[:, None] * z[None])
    for _ in range(300 if temperature == 1.0 else 0):
        plain = plain / plain.sum(0)
        plain = plain / plain.sum(1, keepdims=True)
    if temperature == 1.0:
        np.testing.assert_allclose(p, plain, atol=2e-3)
    else:
        np.testing.assert_allclose(p, np.eye(4)[[2, 3, 0, 1]], atol=1e-3)


def test_what_is_no_permutation_is_outside():
    assert permutation(jnp.array([[2, 0, 1], [0, 0, 1], [1, 2, 3]])).tolist() == [True, False, False]
    assert permutation(permutation.feasible_like(jnp.zeros((2, 4), int))).all()
    with pytest.warns(UserWarning, match="Out-of-support"):
        PlackettLuce(jnp.zeros(3), validate_args=True).log_prob(jnp.array([0, 0, 1]))
    with pytest.raises(ValueError, match="logits: expected at least one dimension"):
        PlackettLuce(jnp.zeros(()))


@pytest.mark.parametrize("number", [2, 6])
def test_orders_without_replacement_are_drawn_one_after_the_other(number):
    logits, repeats = np.array([0.5, -0.4, 0.9]), 40_000
    orders = np.array(list(itertools.permutations(range(3))))
    p = np.array([chance(logits, o) for o in orders])
    keys = jax.random.split(jax.random.key(0), repeats)
    found, out = jax.jit(jax.vmap(lambda key: distinct_orders(key, jnp.asarray(logits), number)))(keys)
    index = (found[:, :, None] == orders).all(-1).argmax(-1)
    assert (np.sort(index, -1)[:, 1:] > np.sort(index, -1)[:, :-1]).all()  # all are different
    np.testing.assert_allclose(np.exp(out), 1 - p[index].sum(-1), atol=1e-5)
    pairs = np.zeros((6, 6))
    np.add.at(pairs, (index[:, 0], index[:, 1]), 1)
    expected = repeats * p[:, None] * p / (1 - p[:, None]) * (1 - np.eye(6))
    away = expected > 0
    assert ((pairs - expected)[away] ** 2 / expected[away]).sum() < 75  # 29 degrees: 75 has probability 7e-6


def test_what_is_known_of_it():
    row = lookup(PlackettLuce(jnp.zeros(3)).expand((2,)))
    assert row.discrete and not row.enumerable and row.pathwise is None and row.moving_support == ()


def test_a_fit_finds_the_posterior_of_an_order():
    """Six permutations: the posterior by Bayes' rule, the evidence as the sum."""
    x, y = np.array([0.0, 0.6, 1.1]), np.array([0.4, 0.9, 0.2])
    orders = np.array(list(itertools.permutations(range(3))))

    def model(y):
        order = numpyro.sample("order", PlackettLuce(jnp.zeros(3)))
        numpyro.sample("y", dist.Normal(jnp.asarray(x)[order], 0.5).to_event(1), obs=y)

    fit = autovi.fit(model, {"y": y}, num_steps=1500, num_particles=16, progress_bar=False)
    choice = fit.plan["order"]
    assert (choice.family, choice.estimator, choice.support) == ("plackett_luce", "score", "permutation")
    log_joint = (-0.5 * ((y - x[orders]) / 0.5) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)).sum(-1) - np.log(6)
    evidence = np.logaddexp.reduce(log_joint)

    def elbo(logits):
        log_q = np.log([chance(logits, o) for o in orders])
        return np.exp(log_q) @ (log_joint - log_q)

    best = -minimize(lambda logits: -elbo(logits), np.zeros(3), method="Nelder-Mead", tol=1e-8).fun
    assert elbo(fit.params["order.logits"]) > best - 0.01
    assert fit.elbo == pytest.approx(best, abs=0.02 + 5 * fit.elbo_se)
    draws = fit.sample(20_000, rng_key=1, resample=True)["order"]
    found = np.array([(draws == o).all(-1).mean() for o in orders])
    np.testing.assert_allclose(found, np.exp(log_joint - evidence), atol=0.03)
