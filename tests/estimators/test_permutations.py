"""RELAX for permutations: the law of the Gumbels given an order, and the estimate with a network that is not zero; and
the biased relaxations, whose means are those of their formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.distributions import PlackettLuce, PlackettLuceMatrix
from autovi.estimators import Birkhoff, GumbelSinkhorn, RelaxPermutation, Score, UnorderedSet
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


def test_a_set_of_orders_has_less_noise_and_none_when_it_holds_all():
    found, plain = gradients(UnorderedSet(3), 1), gradients(Score(), 3)
    check_mean(found)
    assert found.var(0).sum() < 0.6 * plain.var(0).sum()  # 0.46
    every = gradients(UnorderedSet(6), 1, repeats=1000)
    np.testing.assert_allclose(every, np.broadcast_to(exact(), every.shape), atol=2e-5)


def test_score_is_unbiased():
    check_mean(gradients(Score(), 4))


# --- biased ones -----------------------------------------------------------------------------------------------------

PAIR = np.array([0.4, -0.3])
X, Y = np.array([1.0, -0.5]), np.array([0.2, 0.4])
U = (np.arange(200_000) + 0.5) / 200_000


def pair_gradients(estimator, repeats=40_000):
    """Of sum (P x - y)^3 over matrices of two items."""

    def model():
        p = numpyro.sample("p", PlackettLuceMatrix(jnp.asarray(PAIR)))
        numpyro.factor("cost", jnp.sum((p @ jnp.asarray(X) - jnp.asarray(Y)) ** 3))

    def guide():
        numpyro.sample("p", PlackettLuceMatrix(numpyro.param("logits", jnp.asarray(PAIR))))

    options = Options(guide=guide, estimators={"p": estimator}, num_particles=1, allow_bias=estimator.biased)
    engine, inputs = prepare(model, None, options)
    raw = {"guide": {}, "param": {"logits": jnp.asarray(PAIR)}}
    grad = jax.grad(lambda p, key: engine.estimate(p, engine.estimator_params(), inputs.traced(), key)[0])
    keys = jax.random.split(jax.random.key(3), repeats)
    one = lambda key: -grad(raw, key)["param"]["logits"]  # noqa: E731
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def of_share(s):
    """The cost's derivative in s, the share of item 0 in place 0."""
    step = X[0] - X[1]
    first, second = X[1] + s * step - Y[0], X[0] - s * step - Y[1]
    return 3 * step * (first**2 - second**2)


@pytest.mark.parametrize(
    ("estimator", "softness", "temperature"),
    [(GumbelSinkhorn(0.7), 1.0, 0.7), (Birkhoff(1.5, softness=0.4), 0.4, 1.5)],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_the_mean_of_biased_ones_is_that_of_their_formulas(estimator, softness, temperature):
    """With two items the matrix is that of a Bernoulli with logit l_0 - l_1: by the midpoint rule."""
    z = PAIR[0] - PAIR[1] + np.log(U) - np.log1p(-U)
    s = 1 / (1 + np.exp(-z / temperature))
    expected = (of_share(softness * s + (1 - softness) * (z > 0)) * softness * s * (1 - s) / temperature).mean()
    found = pair_gradients(estimator)
    error = found.std(0) / len(found) ** 0.5
    assert (error < 0.02 * abs(expected)).all()
    np.testing.assert_array_less(np.abs(found.mean(0) - [expected, -expected]), 5 * error + 1e-5)
    # And it is not the gradient.
    p = 1 / (1 + np.exp(PAIR[1] - PAIR[0]))
    cost = lambda s: (X[1] + s * (X[0] - X[1]) - Y[0]) ** 3 + (X[0] - s * (X[0] - X[1]) - Y[1]) ** 3  # noqa: E731
    assert abs(expected - p * (1 - p) * (cost(1) - cost(0))) > 0.05 * abs(expected)


def test_biased_ones_need_leave_and_matrices():
    def model():
        numpyro.sample("order", PlackettLuce(jnp.zeros(3)))
        p = numpyro.sample("p", PlackettLuceMatrix(jnp.zeros(3)))
        numpyro.factor("cost", p[0, 0])

    for estimator in (GumbelSinkhorn(), Birkhoff()):
        with pytest.raises(ValueError, match=f"site 'p'.*{estimator.name}.*allow_bias=True"):
            prepare(model, None, Options(estimators={"p": estimator}))
        with pytest.raises(ValueError, match="site 'order'.*it is for sites of permutation matrices only"):
            prepare(model, None, Options(estimators={"order": estimator}, allow_bias=True))
    with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
        GumbelSinkhorn(0.0)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        GumbelSinkhorn(iterations=0)
    with pytest.raises(ValueError, match="softness: expected a number over 0 and up to 1, got 1.5"):
        Birkhoff(softness=1.5)


def test_what_is_no_permutation_is_refused():
    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.factor("cost", 1.0 * z)

    with pytest.raises(ValueError, match="site 'z'.*it is for Plackett-Luce sites only"):
        prepare(model, None, Options(estimators={"z": RelaxPermutation()}))
    with pytest.raises(ValueError, match="width: expected a positive number, got 0"):
        RelaxPermutation(width=0)
