"""RELAX for permutations: the law of the Gumbels given an order, and the estimate with a network that is not zero."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.distributions import PlackettLuce
from autovi.estimators import RelaxPermutation, Score
from autovi.estimators.relax_permutation import given
from autovi.preparation import Options, prepare

LOGITS = np.array([0.5, -0.4, 0.9])
ORDERS = np.array(list(itertools.permutations(range(3))))
TABLE = np.array([3.0, 2.0, -1.0, 0.5, -2.0, -3.0])  # the cost of each order


def cost(order):
    """Of any order of three items, by the places of the first two."""
    index = 2 * order[..., 0] + (order[..., 1] > order[..., 2])
    return jnp.asarray(TABLE)[index]


def exact():
    def expected(logits):
        chosen = logits[ORDERS]
        log_q = sum(chosen[:, i] - jax.nn.logsumexp(chosen[:, i:], -1) for i in range(3))
        return jnp.sum(jnp.exp(log_q) * cost(jnp.asarray(ORDERS)))

    return np.asarray(jax.grad(expected)(jnp.asarray(LOGITS)), float)


def engine_of(estimator, particles):
    """Prior and guide agree, so that nothing else is in the gradient."""

    def model():
        order = numpyro.sample("order", PlackettLuce(jnp.asarray(LOGITS)))
        numpyro.factor("cost", cost(order))

    def guide():
        numpyro.sample("order", PlackettLuce(numpyro.param("logits", jnp.asarray(LOGITS))))

    return prepare(model, None, Options(guide=guide, estimators={"order": estimator}, num_particles=particles))


RAW = {"guide": {}, "param": {"logits": jnp.asarray(LOGITS)}}


def gradients(estimator, particles, own=None, repeats=40_000):
    engine, inputs = engine_of(estimator, particles)
    own = engine.estimator_params() if own is None else own
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad(RAW, key)["param"]["logits"]  # noqa: E731
    keys = jax.random.split(jax.random.key(3), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def check_mean(found):
    error = found.std(0) / len(found) ** 0.5
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(exact())
    np.testing.assert_array_less(np.abs(found.mean(0) - exact()), 5 * error + 1e-6)


def test_gumbels_given_their_order_have_it_and_together_their_law():
    n = 40_000
    keys = jax.random.split(jax.random.key(0), 2)
    order = PlackettLuce(jnp.asarray(LOGITS)).sample(keys[0], (n,))
    z = given(jnp.broadcast_to(jnp.asarray(LOGITS), (n, 3)), order, jax.random.exponential(keys[1], (n, 3)))
    np.testing.assert_array_equal(jnp.argsort(-z, -1), order)
    # Each is Gumbel(l_i), and any two are independent: by the distribution functions, within the DKW bound.
    u = np.sort(np.exp(-np.exp(-(np.asarray(z) - LOGITS))), 0)
    assert np.abs(u - (np.arange(n) / n)[:, None]).max() < 1.95 / n**0.5  # 0.1 % for each of three
    uniform = np.exp(-np.exp(-(np.asarray(z) - LOGITS)))
    assert np.abs(np.corrcoef(uniform.T) - np.eye(3)).max() < 5 / n**0.5


@pytest.mark.parametrize("particles", [1, 3])
def test_unbiased_with_any_network(particles):
    estimator = RelaxPermutation(width=4)
    own = engine_of(estimator, particles)[0].estimator_params()["order"]
    own = {**own, "out": jnp.array([2.0, -1.5, 1.0, 3.0]), "bias": jnp.array([0.5, 0.0, -0.3, 0.1])}
    check_mean(gradients(estimator, particles, {"order": own}))


def test_it_starts_as_leave_one_out_and_training_lowers_the_variance():
    estimator = RelaxPermutation()
    plain = gradients(Score(), 2)
    start = gradients(estimator, 2)
    check_mean(start)
    assert start.var(0).sum() == pytest.approx(plain.var(0).sum(), rel=0.06)
    engine, inputs = engine_of(estimator, 2)
    loss = jax.grad(lambda own, key: engine.estimate(RAW, own, inputs.traced(), key)[0])

    def step(carry, key):
        own, memory = carry
        updates, memory = estimator.optimizer.update(loss({"order": own}, key)["order"], memory, own)
        return (jax.tree.map(jnp.add, own, updates), memory), None

    begin = engine.estimator_params()["order"]
    carry = (begin, estimator.optimizer.init(begin))
    (own, _), _ = jax.jit(lambda c, ks: jax.lax.scan(step, c, ks))(carry, jax.random.split(jax.random.key(0), 4_000))
    trained = gradients(estimator, 2, {"order": own})
    check_mean(trained)
    assert trained.var(0).sum() < 0.45 * plain.var(0).sum()


def test_score_is_unbiased():
    check_mean(gradients(Score(), 4))


def test_what_is_no_permutation_is_refused():
    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.factor("cost", 1.0 * z)

    with pytest.raises(ValueError, match="site 'z'.*it is for Plackett-Luce sites only"):
        prepare(model, None, Options(estimators={"z": RelaxPermutation()}))
    with pytest.raises(ValueError, match="width: expected a positive number, got 0"):
        RelaxPermutation(width=0)
