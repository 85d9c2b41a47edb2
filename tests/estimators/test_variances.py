"""Variances of the estimators of Bernoulli sites against the closed forms and the figures of their papers: a control
variate that lost its coupling, or a pair that does, is unbiased all the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.estimators import Arm, Arms, Disarm, DoubleCV, Estimator, MeasureValued, MuProp, Rebar, Relax, Rodeo, Score
from autovi.preparation import Options, prepare

THREE = jnp.array([0.3, 0.5, 0.8])
TARGET = jnp.linspace(0.2, 0.9, 3)


def engine_of(logit, cost, estimator: Estimator, particles: int):
    """cost(b) under b ~ Bernoulli(logit): prior and guide agree, so that nothing else is in the gradient."""

    def model():
        b = numpyro.sample("b", dist.Bernoulli(logits=logit).to_event(1))
        numpyro.factor("cost", cost(b))

    def guide():
        own = numpyro.param("logit", logit)
        numpyro.sample("b", dist.Bernoulli(logits=own).to_event(1))

    asked = {"b": estimator}
    options = Options(guide=guide, estimators=asked, num_particles=particles, allow_bias=estimator.biased)
    return prepare(model, None, options)


def gradients(logit, cost, estimator, particles=1, repeats=100_000, own=None):
    engine, inputs = engine_of(logit, cost, estimator, particles)
    own = engine.estimator_params() if own is None else own
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad({"guide": {}, "param": {"logit": logit}}, key)["param"]["logit"]  # noqa: E731
    keys = jax.random.split(jax.random.key(3), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=1000))(keys), float)


def total_variance(*args, **kwargs):
    return float(gradients(*args, **kwargs).var(0).sum())


def squared(target):
    return lambda b: jnp.sum((b - target) ** 2)


ONE = jnp.zeros(1)  # p = 1/2


@pytest.mark.parametrize(
    ("estimator", "particles", "expected"),
    [
        # f(1) = .251001 and f(0) = .249001, the score is 1/2 or -1/2: the variance is that of a product of two values.
        (Score("none"), 1, 0.0156250),
        (Score(), 2, 2.5e-7),
        (Arm(), 1, 8.35e-8),
        (Arms(3), 1, None),
    ],
)
def test_the_toy_of_the_literature(estimator, particles, expected):
    """E (t - b)^2, t = .499, theta = 1/2: the published variances, exact 5e-4."""
    found = gradients(ONE, squared(0.499), estimator, particles)
    assert found.mean() == pytest.approx(5e-4, abs=5 * found.std() / len(found) ** 0.5 + 1e-9)
    if expected is not None:
        assert found.var() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("estimator", [Disarm(), Arms(2)])
def test_without_noise_where_the_pair_always_differs(estimator):
    found = gradients(ONE, squared(0.499), estimator, repeats=2_000)
    np.testing.assert_allclose(found, 5e-4, rtol=1e-3)


EXACT = np.array([0.126, -0.025, -0.128])


@pytest.mark.parametrize(
    ("estimator", "particles", "expected", "within"),
    [
        (Score("none"), 1, 0.546, 0.02),
        (Score(), 2, 0.136, 0.03),
        (Arm(), 1, 0.1175, 0.03),
        (Disarm(), 1, 0.0983, 0.03),
        (Rebar(temperature=0.1), 1, 0.50, 0.05),
        (Rebar(temperature=0.5), 1, 0.23, 0.05),
        (Rebar(temperature=1.0), 1, 0.27, 0.05),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_three_bernoullis(estimator, particles, expected, within):
    """sum (b - linspace(.2, .9, 3))^2 at p = (.3, .5, .8): the table of the RELAX authors' tests."""
    logit = jnp.log(THREE) - jnp.log1p(-THREE)
    found = gradients(logit, squared(TARGET), estimator, particles)
    np.testing.assert_allclose(found.mean(0), EXACT, atol=5e-4 + 5 * found.std(0).max() / len(found) ** 0.5)
    assert found.var(0).sum() == pytest.approx(expected, rel=within)


@pytest.mark.parametrize("estimator", [Disarm(), Arm()])
def test_what_is_below_sees_both_of_a_pair(estimator):
    """At p = 1/2 the pair is b and 1 - b: the gradient of E w b in w, p, has no noise; in layers, a mean over all."""

    def model():
        w, v = numpyro.param("w", jnp.ones(3)), numpyro.param("v", jnp.ones(()))
        first = numpyro.sample("first", dist.Bernoulli(logits=jnp.zeros(3)).to_event(1))
        second = numpyro.sample("second", dist.Bernoulli(logits=jnp.zeros(())))
        numpyro.factor("cost", first @ w + v * second)

    def guide():
        numpyro.sample("first", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(3))).to_event(1))
        numpyro.sample("second", dist.Bernoulli(logits=jnp.zeros(())))

    def slopes(estimators):
        engine, inputs = prepare(model, None, Options(guide=guide, estimators=estimators, num_particles=2))
        raw = {"guide": {}, "param": {"w": jnp.ones(3), "v": jnp.ones(()), "logits": jnp.zeros(3)}}
        own = engine.estimator_params()
        grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
        found = jax.jit(jax.vmap(lambda key: grad(raw, key)["param"]))(jax.random.split(jax.random.key(0), 2000))
        return -np.asarray(found["w"]), -np.asarray(found["v"])

    alone, _ = slopes({"first": estimator, "second": "score"})
    np.testing.assert_allclose(alone, 0.5, rtol=1e-6)
    # (b + (1 - b) + b) / 3 = (1 + b) / 3 of two particles, where the second site has a pair too
    for found in slopes({"first": estimator, "second": estimator}):
        assert found.mean() == pytest.approx(0.5, abs=float(5 * found.std() / found.size**0.5))
        assert found.var() == pytest.approx(0.25 / 9 / 2, rel=0.1)


def test_more_evaluations_that_avoid_each_other_are_better_than_as_many_pairs():
    logit = jnp.log(THREE) - jnp.log1p(-THREE)
    variance = functools.partial(total_variance, logit, squared(TARGET), repeats=20_000)
    assert variance(Arms(2)) == pytest.approx(variance(Disarm()), rel=0.05)
    assert variance(Arms(4)) < 0.85 * variance(Score(), 4)
    assert variance(Arms(4)) < variance(Disarm(), 2) * 1.02


def test_a_linear_cost_leaves_muprop_without_noise():
    found = gradients(jnp.array([0.3, -0.5]), lambda b: b @ jnp.array([2.0, -1.0]), MuProp(), repeats=100)
    p = 1 / (1 + np.exp(-np.array([0.3, -0.5])))
    np.testing.assert_allclose(found, np.broadcast_to(np.array([2.0, -1.0]) * p * (1 - p), found.shape), atol=1e-6)


def test_a_linear_cost_leaves_double_cv_without_noise_at_one():
    own = {"b": {"weight": jnp.ones(()), "products": -jnp.ones(1), "squares": jnp.ones((1, 1))}}
    found = gradients(jnp.array([0.3, -0.5]), lambda b: b @ jnp.array([2.0, -1.0]), DoubleCV(), 2, 100, own)
    p = 1 / (1 + np.exp(-np.array([0.3, -0.5])))
    np.testing.assert_allclose(found, np.broadcast_to(np.array([2.0, -1.0]) * p * (1 - p), found.shape), atol=3e-6)


def trained(logit, cost, estimator, particles, steps):
    """The estimator's own parameters after so many steps of its own optimizer on its own loss."""
    engine, inputs = engine_of(logit, cost, estimator, particles)
    raw = {"guide": {}, "param": {"logit": logit}}
    loss = jax.grad(lambda own, key: engine.estimate(raw, own, inputs.traced(), key)[0])

    def step(carry, key):
        own, memory = carry
        updates, memory = estimator.optimizer.update(loss({"b": own}, key)["b"], memory, own)
        return (jax.tree.map(jnp.add, own, updates), memory), None

    start = engine.estimator_params()["b"]
    begin = (start, estimator.optimizer.init(start))
    (own, _), _ = jax.jit(lambda c, ks: jax.lax.scan(step, c, ks))(begin, jax.random.split(jax.random.key(0), steps))
    return {"b": own}


@pytest.mark.parametrize(
    ("estimator", "target", "bound"),
    [
        # f is the same at 0 and 1 but for 0.002, and far lower between: no eta of the cost helps there.
        (Rebar(temperature=0.1), -3.0, 1.4),  # of 39.1
        # A network trained by Adam alone was at 2e-6 to 1e-5 after 5,000 steps: its parameters keep jittering by a rate
        # that does not fall with the gradient. What is linear in them is found by regression.
        (Relax(), 0.499, 2e-7),  # of 1.6e-2
        (Relax(through_model=False), 0.499, 2e-7),
        (Relax(), -3.0, 1.0),
        (DoubleCV(), -3.0, 1.25),  # of 6.1: f is nearly linear
    ],
)
def test_training_the_control_variate_lowers_the_variance(estimator, target, bound):
    particles = estimator.min_particles
    own = trained(ONE, squared(target), estimator, particles, 2_000)
    found = gradients(ONE, squared(target), estimator, particles, 20_000, own)
    assert found.var() < bound
    assert found.mean() == pytest.approx((1 - 2 * target) / 4, abs=5 * found.std() / 20_000**0.5 + 1e-6)


def test_the_toy_of_double_control_variates():
    """f = mean (b_i - .499)^2 over 200 Bernoullis, maximized by RMSprop at .01 with two particles: the variance, a mean
    over coordinates, is that of leave-one-out at first, and nothing by step 1,000 (Titsias and Shi 2022, section 5)."""

    def model():
        b = numpyro.sample(
            "b", dist.Bernoulli(logits=jax.lax.stop_gradient(numpyro.param("logit", jnp.zeros(200)))).to_event(1)
        )
        numpyro.factor("cost", jnp.mean((b - 0.499) ** 2))

    def guide():
        numpyro.sample("b", dist.Bernoulli(logits=numpyro.param("logit", jnp.zeros(200))).to_event(1))

    def variances(estimator):
        """Before the first step, and after 1,000."""
        engine, inputs = prepare(model, None, Options(guide=guide, estimators={"b": estimator}, num_particles=2))
        own = engine.estimator_params()
        outer, inner = optax.rmsprop(0.01, eps=1e-7, eps_in_sqrt=False), estimator.optimizer
        loss = lambda raw, own, key: engine.estimate({"guide": {}, "param": raw}, own, inputs.traced(), key)[0]  # noqa: E731

        def step(carry, key):
            raw, own, memory, memories = carry
            slope, slopes = jax.grad(loss, (0, 1))(raw, own, key)
            change, memory = outer.update(slope, memory, raw)
            changes, memories = inner.update(slopes["b"], memories, own["b"])
            own = {"b": optax.apply_updates(own["b"], changes)}
            return (optax.apply_updates(raw, change), own, memory, memories), None

        @jax.jit
        def variance(raw, own):
            grads = jax.lax.map(lambda key: jax.grad(loss)(raw, own, key)["logit"], keys[:1000], batch_size=250)
            return jnp.var(grads, 0).mean()

        keys = jax.random.split(jax.random.key(1), 1_000)
        begin = (start, own, outer.init(start), inner.init(own["b"]))
        end, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(begin)
        return float(variance(start, own)), float(variance(end[0], end[1]))

    with jax.enable_x64(True):
        start = {"logit": jnp.zeros(200)}
        plain, double = variances(Score()), variances(DoubleCV())
    assert plain[0] == pytest.approx(1.25e-9, rel=0.1) and double[0] == pytest.approx(1.25e-9, rel=0.1)
    assert plain[1] > 0.5 * plain[0]
    assert double[1] < 0.01 * plain[1]


def test_the_optimal_constant_is_better_than_leave_one_out():
    """Of b ~ Bernoulli(p) with p far from 1/2 the best constant is E f s^2 / E s^2, not E f."""
    logit = jnp.array([-2.0])
    cost = lambda b: 3.0 * jnp.sum(b) + 2.0  # noqa: E731
    plain = gradients(logit, cost, Score(), 16, 20_000)
    best = gradients(logit, cost, Score("optimal"), 16, 20_000)
    p = float(jax.nn.sigmoid(-2.0))
    for found in (plain, best):
        assert found.mean() == pytest.approx(3 * p * (1 - p), abs=6 * found.std() / 20_000**0.5)
    assert best.var() < 0.6 * plain.var()


def test_what_is_no_bernoulli_is_refused():
    def model():
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        n = numpyro.sample("n", dist.Poisson(2.0))
        numpyro.factor("cost", 1.0 * z + n)

    for estimator in (Arm(), Disarm(), Arms(), MuProp()):
        with pytest.raises(ValueError, match="site 'z'.*it is for Bernoulli sites only"):
            prepare(model, None, Options(estimators={"z": estimator}))
    for estimator in (DoubleCV(), Rodeo()):
        with pytest.raises(ValueError, match="site 'n'.*it is for Bernoulli and categorical sites only"):
            prepare(model, None, Options(estimators={"n": estimator}))
    with pytest.raises(ValueError, match="evaluations: expected at least 2, got 1"):
        Arms(1)
    with pytest.raises(ValueError, match="temperature: expected a positive number"):
        Rebar(temperature=0.0)


def test_numbers_that_share_a_cost_have_no_measure_valued_gradient():
    engine, inputs = engine_of(jnp.zeros(3), squared(TARGET), MeasureValued(), 3)
    with pytest.raises(ValueError, match="site 'b': .*the numbers of an event share one: got events of shape"):
        engine.estimate({"guide": {}, "param": {"logit": jnp.zeros(3)}}, {}, inputs.traced(), jax.random.key(0))


def test_a_normal_of_the_engines_own_family_has_one():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    options = {"guide": "mean_field", "estimators": {"x": "measure_valued"}, "num_steps": 2000, "num_particles": 8}
    fit = autovi.fit(model, {"y": 1.2}, progress_bar=False, **options)
    draws = fit.sample(4000, resample=False)["x"]
    assert draws.mean() == pytest.approx(0.6, abs=0.06) and draws.std() == pytest.approx(0.5**0.5, rel=0.06)
