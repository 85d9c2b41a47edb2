"""RODEO, and the double control variates: exactly unbiased with any coefficients and network, of Bernoulli and of
categorical sites, and as good as its peers where the cost is quadratic."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from gradient_checks import ONCE
from test_variances import THREE, gradients, squared, trained

from autovi.estimators import Disarm, DoubleCV, Rodeo, Score
from autovi.estimators.base import Cost, Density, Draw
from autovi.families.base import Layout
from autovi.preparation import Options, prepare

# Two numbers: each a Bernoulli by its logit, or a categorical of three values by its own.
PARAMS = {"bernoulli": np.array([0.4, -0.9]), "categorical": np.array([[0.3, -0.5, 0.1], [0.0, 0.8, -1.0]])}
VALUES = {
    "bernoulli": np.array([[0.0, 1.5], [0.0, -0.7]]),
    "categorical": np.array([[0.5, -1.0, 1.5], [1.0, 0.3, -0.4]]),
}
LEARNED = {
    "rodeo": (Rodeo(), lambda p, known: p | {"moments": p["moments"] | known}, [-0.7, 0.4, 0.9, -1.2]),
    "double_cv": (DoubleCV(), lambda p, known: p | {k: known[k] for k in p}, [-0.7]),
}


def cost_of(kind, shared):
    """f of both numbers of an event `[particles]`, or each element's own `[particles, 2]`, of one-hot vectors."""
    read = lambda w: jnp.sum(w * VALUES[kind], -1)  # noqa: E731
    joint = lambda w: jnp.exp(jnp.sum(read(w), -1)) + 2.0 * jnp.prod(read(w), -1)  # noqa: E731
    return joint if shared else lambda w: jnp.exp(read(w)) - 3.0 * read(w) ** 2


def estimate(kind, estimator, w, shared, params):
    """The estimate of the gradient in q's parameters by one-hot draws `[particles, 2, K]`."""
    whole = (lambda w: w) if kind == "categorical" else (lambda b: jnp.stack([1 - b, b], -1))
    cost = lambda value: cost_of(kind, shared)(whole(value))  # noqa: E731
    total = cost if shared else lambda value: jnp.sum(cost(value), -1)
    value = w if kind == "categorical" else w[..., 1]

    def surrogate(logits):
        make = dist.Categorical if kind == "categorical" else dist.Bernoulli
        one = lambda own: make(logits=own).to_event(1 if shared else 0)  # noqa: E731
        q = jax.vmap(one)(jnp.broadcast_to(logits, (len(w), *logits.shape)))
        draw, costs = Draw(value, aux=w), Cost(cost(value), cost, total)
        return estimator.surrogate(Density(q, q.log_prob), draw, costs, params)[0]

    return jax.grad(surrogate)(jnp.asarray(PARAMS[kind]))


@pytest.mark.parametrize(("kind", "particles"), [("bernoulli", 2), ("bernoulli", 3), ("categorical", 2)])
@pytest.mark.parametrize("shared", [True, False], ids=["event", "plate"])
@pytest.mark.parametrize("name", LEARNED)
def test_the_mean_over_all_draws_is_exact(name, shared, kind, particles):
    estimator, replaced, products = LEARNED[name]
    with jax.enable_x64(True):
        params = estimator.init(jax.random.key(0), Layout(*(((), (2,)) if shared else ((2,), ()))))
        known = {"weight": jnp.ones(()), "mean": jnp.array(2.0), "variance": jnp.array(4.0)}
        known |= {"squares": jnp.eye(len(products)), "products": jnp.array(products)}
        of_params = lambda own: jnp.stack([jnp.zeros(2), own], -1) if kind == "bernoulli" else own  # noqa: E731
        size = VALUES[kind].shape[-1]

        def chances(own, w):
            """Of draws `[..., 2, K]`, a product over all that is in front of none."""
            return jnp.prod(jnp.sum(w * jax.nn.softmax(of_params(own)), -1), -1)

        w = jax.nn.one_hot(jnp.array(list(product(range(size), repeat=2 * particles))), size)
        w = w.reshape(-1, particles, 2, size)
        weights = jnp.prod(chances(jnp.asarray(PARAMS[kind]), w), -1)
        run = jax.jit(jax.vmap(lambda w, p: estimate(kind, estimator, w, shared, p), (0, None)), compiler_options=ONCE)
        found, plain = run(w, replaced(params, known)), run(w, params)

        def expected(own):
            pairs = jax.nn.one_hot(jnp.array(list(product(range(size), repeat=2))), size)
            f = cost_of(kind, shared)(pairs)
            return jnp.sum(chances(own, pairs) * (f if shared else jnp.sum(f, -1)))

        exact = jax.grad(expected)(jnp.asarray(PARAMS[kind]))
        assert jnp.abs(found - plain).max() > 0.1  # the control variates are there
        mean = jnp.tensordot(weights, found, 1)
        np.testing.assert_allclose(np.asarray(mean), np.asarray(exact), rtol=1e-10)


@pytest.mark.slow
def test_a_quadratic_cost():
    logit = jnp.log(THREE) - jnp.log1p(-THREE)
    cost = lambda b: squared(0.2)(b) + jnp.sum(b) ** 2  # noqa: E731
    variance = {}
    for estimator in (Score(), DoubleCV(), Rodeo()):
        own = trained(logit, cost, estimator, 2, 2_000) if not isinstance(estimator, Score) else None
        found = gradients(logit, cost, estimator, 2, 30_000, own)
        variance[estimator.name] = found.var(0).sum()
    variance["disarm"] = gradients(logit, cost, Disarm(), 1, 30_000).var(0).sum()
    # Found: 0.50, 1.20, 4.8 and 6.5.
    assert variance["rodeo"] < 0.7 * variance["double_cv"] < 0.4 * variance["disarm"] < variance["score"]


@pytest.mark.slow
def test_a_quadratic_cost_of_categoricals():
    """(sum of v_i[z_i] - .3)^2 of four sites of three values: means exact, variance beside leave-one-out."""
    logits = jnp.array([[0.3, -0.5, 0.1], [0.0, 0.8, -1.0], [0.2, 0.1, 0.4], [-0.6, 0.0, 0.5]])
    values = np.array([[0.5, -1.0, 1.5], [2.0, 0.3, -0.4], [-0.8, 0.9, 0.2], [1.2, -0.5, 0.7]])

    def model():
        with numpyro.plate("n", 4):
            z = numpyro.sample("z", dist.Categorical(logits=logits))
        picked = jnp.take_along_axis(jnp.asarray(values), z[:, None], 1)
        numpyro.factor("cost", (jnp.sum(picked) - 0.3) ** 2)

    def guide():
        own = numpyro.param("logits", logits)
        with numpyro.plate("n", 4):
            numpyro.sample("z", dist.Categorical(logits=own))

    def found(estimator, steps):
        options = Options(guide=guide, estimators={"z": estimator}, num_particles=2)
        engine, inputs = prepare(model, None, options)
        loss = lambda p, own, key: engine.estimate(  # noqa: E731
            {"guide": {}, "param": {"logits": p}}, {"z": own}, inputs.traced(), key
        )[0]
        own = engine.estimator_params().get("z", ())

        def step(carry, key):
            own, state = carry
            updates, state = estimator.optimizer.update(jax.grad(loss, 1)(logits, own, key), state, own)
            return (optax.apply_updates(own, updates), state), None

        @jax.jit
        def all_of_it(own):
            keys = jax.random.split(jax.random.key(1), steps)
            (own, _), _ = jax.lax.scan(step, (own, estimator.optimizer.init(own)), keys)
            keys = jax.random.split(jax.random.key(2), 20_000)
            return jax.lax.map(lambda key: -jax.grad(loss)(logits, own, key), keys, batch_size=1000)

        return np.asarray(all_of_it.lower(own).compile(compiler_options=ONCE)(own), float)

    means = lambda p: jnp.sum(p * values, -1)  # noqa: E731
    spread = lambda p: jnp.sum(p * values**2, -1) - means(p) ** 2  # noqa: E731
    exact = jax.grad(lambda x: (means(jax.nn.softmax(x)).sum() - 0.3) ** 2 + spread(jax.nn.softmax(x)).sum())(logits)
    variance = {}
    for estimator, steps in ((Score(), 0), (DoubleCV(), 1_000), (Rodeo(), 1_000)):
        estimates = found(estimator, steps)
        error = estimates.std(0) / len(estimates) ** 0.5
        assert np.abs((estimates.mean(0) - exact) / error).max() < 5.5
        variance[estimator.name] = estimates.var(0).sum()
    # Found: 40, 62 and 72.
    assert variance["rodeo"] < 0.75 * variance["double_cv"] and variance["double_cv"] < 0.93 * variance["score"]
