"""Estimators of categorical sites with several coupled evaluations: their means by enumeration of what they draw, and
their variances, since a coupling that is lost, or a weight that is wrong for pairs that are rare, is seen there."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.estimators import Carms, DisarmTree, Score, UnorderedSet
from autovi.estimators.base import Cost, Density, Draw
from autovi.estimators.carms import Carms as Coupled
from autovi.estimators.categories import ascending
from autovi.preparation import Options, prepare

FOUR = np.log([0.1, 0.4, 0.2, 0.3])
COSTS = np.array([1.0, -0.5, 2.0, 0.3])


def exact(logits, costs):
    p = np.exp(logits - np.logaddexp.reduce(logits))
    return p * (costs - p @ costs)


def by_draw(estimator, logits, values, aux):
    """The gradient in the logits of each draw in `values` `[draws]` with its own `aux` `[draws, ...]`, alone."""
    table = jnp.asarray(COSTS)

    def one(value, aux):
        def surrogate(logits):
            q = jax.vmap(dist.CategoricalLogits)(logits[None])
            density = Density(q, lambda v: jax.vmap(lambda q, v: q.log_prob(v))(q, v))
            at = lambda v: table[v]  # noqa: E731
            cost = Cost(at(value[None]), at, at)
            return estimator.surrogate(density, Draw(value[None], jax.tree.map(lambda a: a[None], aux)), cost, ())[0]

        return jax.grad(surrogate)(jnp.asarray(logits))

    return np.asarray(jax.vmap(one)(jnp.asarray(values), jax.tree.map(jnp.asarray, aux)), float)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_set_without_replacement_is_unbiased_over_all_sequences(k):
    p = np.exp(FOUR)
    sequences = list(itertools.permutations(range(4), k))
    chance = [np.prod([p[s] / (1 - p[list(seq[:i])].sum()) for i, s in enumerate(seq)]) for seq in sequences]
    out = np.log(np.maximum([1 - p[list(seq)].sum() for seq in sequences], 1e-12))
    found = by_draw(UnorderedSet(k), FOUR, [s[0] for s in sequences], (np.array(sequences), out))
    assert np.sum(chance) == pytest.approx(1)
    np.testing.assert_allclose(np.array(chance) @ found, exact(FOUR, COSTS), atol=2e-6)
    # The order of a set says nothing of it.
    for a, b in itertools.combinations(range(len(sequences)), 2):
        if set(sequences[a]) == set(sequences[b]):
            np.testing.assert_allclose(found[a], found[b], atol=2e-6)
    if k == 4:
        np.testing.assert_allclose(found, np.broadcast_to(exact(FOUR, COSTS), found.shape), atol=2e-6)


def antithetic(p):
    """(b, b') -> probability, b = 1[u > 1 - p] and b' = 1[u < p]."""
    small = min(p, 1 - p)
    return {(1, 0): small, (0, 1): small, (int(p > 0.5),) * 2: 1 - 2 * small}


@pytest.mark.parametrize("ordering", ["tree", "stick_breaking"])
def test_pairs_of_decisions_are_unbiased_over_all_decisions(ordering):
    """p of each decision by hand: of the tree ((0, 1), (2, 3)), or of the sticks 0, 2, 3, 1."""
    p = np.exp(FOUR)
    if ordering == "tree":
        probabilities = [p[:2].sum(), p[0] / p[:2].sum(), p[2] / p[2:].sum()]
        category = lambda b: (0 if b[1] else 1) if b[0] else (2 if b[2] else 3)  # noqa: E731
    else:
        probabilities = [p[0], p[2] / (1 - p[0]), p[3] / (p[3] + p[1])]
        category = lambda b: next((c for b, c in zip(b, (0, 2, 3), strict=True) if b), 1)  # noqa: E731
    tables = [antithetic(x).items() for x in probabilities]
    rows = list(itertools.product(*tables))
    chance = np.array([np.prod([w for _, w in row]) for row in rows])
    first, second = ([category([pair[i] for pair, _ in row]) for row in rows] for i in (0, 1))
    found = by_draw(DisarmTree(ordering), FOUR, np.array(first), np.array(second))
    assert chance.sum() == pytest.approx(1)
    np.testing.assert_allclose(chance @ found, exact(FOUR, COSTS), atol=2e-6)
    # What is drawn is what was enumerated.
    q = dist.CategoricalLogits(jnp.asarray(FOUR))
    draws = jax.vmap(lambda key: DisarmTree(ordering).draw(key, q))(jax.random.split(jax.random.key(1), 40_000))
    drawn = np.histogram2d(draws.value, draws.aux, bins=(range(5), range(5)))[0] / 40_000
    expected = np.zeros((4, 4))
    np.add.at(expected, (first, second), chance)
    assert np.abs(drawn - expected).max() < 5 * 0.5 / 200


@pytest.mark.parametrize("n", [2, 3, 5])
def test_coupled_sticks_are_drawn_as_often_as_their_weights_say(n):
    """r(a, b) = q(a) q(b) / P(a, b) of every pair of places among the draws, and each draw alone is from q."""
    p, repeats = np.exp(FOUR), 60_000
    q, estimator = dist.CategoricalLogits(jnp.asarray(FOUR)), Coupled(n)
    draws = jax.vmap(lambda key: estimator.draw(key, q))(jax.random.split(jax.random.key(2), repeats))
    values = np.concatenate([np.asarray(draws.value)[:, None], np.asarray(draws.aux)], 1)
    for k in range(n):
        np.testing.assert_allclose(np.bincount(values[:, k], minlength=4) / repeats, p, atol=5 * 0.5 / repeats**0.5)
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(4), jnp.arange(4), indexing="ij"), -1)
    r = np.asarray(estimator._weights(jnp.broadcast_to(jnp.asarray(FOUR), (4, 4, 4)), pairs))[..., 0, 1]
    apart = ~np.eye(4, dtype=bool)
    joint = np.where(apart, p[:, None] * p / np.where(apart, r, 1), 0)
    found = np.histogram2d(values[:, 0], values[:, -1], bins=(range(5), range(5)))[0] / repeats
    np.testing.assert_allclose(found[apart], joint[apart], atol=5 * (joint.max() / repeats) ** 0.5)
    if n == 2:  # so the pairs can be summed over: what is left of the probability falls on equal values
        first, second = np.nonzero(apart)
        gradients = by_draw(estimator, FOUR, first, second[:, None])
        np.testing.assert_allclose(joint[apart] @ gradients, exact(FOUR, COSTS), atol=2e-6)


def test_pairs_of_equal_probabilities_are_never_equal():
    p = jnp.zeros(5)
    draws = jax.vmap(lambda key: Carms(2).draw(key, dist.CategoricalLogits(p)))(
        jax.random.split(jax.random.key(0), 500)
    )
    assert (draws.value != draws.aux[:, 0]).all()
    r = Carms(2)._weights(jax.nn.log_softmax(p), jnp.array([1, 3]))
    np.testing.assert_allclose(r, 0.8 * (1 - np.eye(2)), rtol=1e-5)


def test_categories_are_tried_from_the_least_likely_on():
    assert ascending(jnp.asarray(FOUR)).tolist() == [0, 2, 3, 1]


# --- in the engine ----------------------------------------------------------------------------------------------------

LOGITS = np.array([[0.4, -0.2, 0.1, 1.5], [-0.6, 0.3, 0.9, 0.0], [2.0, 0.0, -1.0, 0.5]])


def gradients(cost, estimator, particles=1, repeats=20_000, logits=LOGITS):
    """Three categorical elements of a plate; prior and guide agree, so that nothing else is in the gradient."""
    number = len(logits)

    def model():
        with numpyro.plate("N", number):
            z = numpyro.sample("z", dist.Categorical(logits=jnp.asarray(logits)))
            cost(z)

    def guide():
        own = numpyro.param("logits", jnp.asarray(logits))
        with numpyro.plate("N", number):
            numpyro.sample("z", dist.Categorical(logits=own))

    options = Options(guide=guide, estimators={"z": estimator}, num_particles=particles)
    engine, inputs = prepare(model, None, options)
    own = engine.estimator_params()
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad({"guide": {}, "param": {"logits": jnp.asarray(logits)}}, key)["param"]["logits"]  # noqa: E731
    keys = jax.random.split(jax.random.key(3), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def apart(z):
    """Each element has its own cost."""
    numpyro.factor("cost", jnp.asarray(COSTS)[z] ** 2 + jnp.asarray(COSTS)[z])


def shared(z):
    """One cost of all elements, which the plate has once for each of them."""
    numpyro.factor("cost", jnp.sum(jnp.asarray(COSTS)[z]) ** 2 / len(LOGITS))


def exact_of(cost):
    p = np.exp(LOGITS - np.logaddexp.reduce(LOGITS, -1, keepdims=True))
    if cost is apart:
        return np.stack([exact(row, COSTS**2 + COSTS) for row in LOGITS])
    # E of the square of a sum: of each element its own square, and twice its own times the mean of the others.
    means = p @ COSTS
    return np.stack(
        [exact(row, COSTS**2 + 2 * COSTS * (means.sum() - m)) for row, m in zip(LOGITS, means, strict=True)]
    )


@pytest.mark.parametrize(
    ("estimator", "cost", "evaluations", "part"),
    [
        (Carms(4), apart, 4, 0.65),  # 0.55 of leave-one-out's variance with as many evaluations
        (Carms(4), shared, 4, 0.9),  # 0.82
        (DisarmTree(), apart, 2, 0.8),  # 0.70
        (DisarmTree("stick_breaking"), shared, 2, 1.0),  # 0.93
        (UnorderedSet(3), apart, 3, 0.3),  # 0.22
    ],
    ids=lambda v: getattr(v, "name", getattr(v, "__name__", str(v))),
)
def test_better_than_as_many_independent_draws(estimator, cost, evaluations, part):
    found, plain = gradients(cost, estimator), gradients(cost, Score(), evaluations)
    error = found.std(0) / len(found) ** 0.5
    np.testing.assert_array_less(np.abs(found.mean(0) - exact_of(cost)), 5 * error + 1e-5)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(exact_of(cost))
    assert found.var(0).sum() < part * plain.var(0).sum()


def test_what_each_is_not_for():
    def model():
        with numpyro.plate("N", 2):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(3) / 3))
            numpyro.factor("cost", 1.0 * jnp.sum(z))
        numpyro.sample("b", dist.Bernoulli(0.5))

    for estimator in (Carms(), DisarmTree()):
        with pytest.raises(ValueError, match="site 'b'.*it is for categorical sites only"):
            prepare(model, None, Options(estimators={"b": estimator}))
    with pytest.raises(ValueError, match="site 'z'.*mixes its elements"):
        prepare(model, None, Options(estimators={"z": UnorderedSet()}))
    with pytest.raises(ValueError, match="evaluations: expected at least 2, got 1"):
        Carms(1)
    with pytest.raises(ValueError, match="evaluations: expected 2 to 10, got 11"):
        UnorderedSet(11)
    with pytest.raises(ValueError, match="ordering: expected 'tree' or 'stick_breaking', got 'balanced'"):
        DisarmTree("balanced")
