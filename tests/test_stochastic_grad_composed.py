"""Gradients of expectations inside of what JAX makes of functions, with states."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from gradient_checks import assert_unbiased, batched, flat
from jax.scipy.stats import norm

import autovi
from autovi.model.execution import site_key

CALLS: list[int] = []


def loss(params, target, power=2):
    """A discrete site and a continuous one below it; `power` is a constant of the program."""
    CALLS.append(1)
    b = numpyro.sample("b", dist.Bernoulli(logits=params["a"]))
    x = numpyro.sample("x", dist.Normal(params["m"] + b, 1.0))
    return jnp.sum((x - target) ** power) + 3.0 * b


PARAMS = {"a": jnp.array(0.3), "m": jnp.array(-0.2)}
TARGET = jnp.array([0.1, 1.2])
KEY = jax.random.key(7)


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


@pytest.fixture(scope="module")
def step():
    return autovi.stochastic_value_and_grad(loss, num_samples=2)


def test_compiled_and_vectorized_it_is_the_same(step):
    once = step(PARAMS, TARGET, rng_key=KEY)
    same(jax.jit(lambda p, t, k: step(p, t, rng_key=k))(PARAMS, TARGET, KEY), once)
    keys = jax.random.split(KEY, 3)
    over_keys = jax.vmap(lambda k: step(PARAMS, TARGET, rng_key=k))(keys)
    same(jax.tree.map(lambda x: x[1], over_keys), step(PARAMS, TARGET, rng_key=keys[1]))
    many = jax.tree.map(lambda x: x + jnp.arange(3.0) / 3, PARAMS)
    over_params = jax.jit(jax.vmap(lambda p: step(p, TARGET, rng_key=KEY)))(many)
    same(jax.tree.map(lambda x: x[2], over_params), step(jax.tree.map(lambda x: x[2], many), TARGET, rng_key=KEY))


def test_it_is_traced_once_for_arguments_of_one_kind(step):
    step(PARAMS, TARGET, rng_key=0)
    CALLS.clear()
    for seed in range(3):
        step(jax.tree.map(lambda x: x + 1, PARAMS), TARGET + seed, rng_key=seed)
    jax.jit(lambda p: step(p, TARGET, rng_key=KEY))(PARAMS)
    jax.jit(lambda p: step(p, TARGET, rng_key=KEY))({"a": 0.3, "m": -0.2})
    step({"a": 0.3, "m": -0.2}, TARGET, rng_key=KEY)
    assert not CALLS
    step(PARAMS, TARGET[:1], rng_key=0)  # another shape
    assert CALLS


def test_integers_are_constants_and_keywords_are_arguments(step):
    fourth = step(PARAMS, TARGET, power=4, rng_key=KEY)[0]
    assert fourth != step(PARAMS, TARGET, rng_key=KEY)[0]
    same(step(PARAMS, target=TARGET, power=2, rng_key=KEY), step(PARAMS, TARGET, rng_key=KEY))


def test_several_arguments_counted_from_the_end_too():
    both = autovi.stochastic_grad(loss, argnums=(0, -1))(PARAMS, TARGET, rng_key=KEY)
    same(both[0], autovi.stochastic_grad(loss)(PARAMS, TARGET, rng_key=KEY))
    same(both[1], autovi.stochastic_grad(loss, argnums=1)(PARAMS, TARGET, rng_key=KEY))


def test_keys_of_every_kind_are_the_same():
    grad = autovi.stochastic_grad(loss)
    same(grad(PARAMS, TARGET, rng_key=3), grad(PARAMS, TARGET, rng_key=jax.random.key(3)))
    same(grad(PARAMS, TARGET, rng_key=3), grad(PARAMS, TARGET, rng_key=jax.random.PRNGKey(3)))
    same(grad(PARAMS, TARGET, rng_key=3), jax.jit(lambda k: grad(PARAMS, TARGET, rng_key=k))(3))


def test_in_double_precision():
    with jax.enable_x64(True):
        params = {"a": np.float64(0.3), "m": np.float64(-0.2)}
        grads = autovi.stochastic_grad(loss)(params, np.array([0.1, 1.2]), rng_key=0)
        assert all(g.dtype == np.float64 for g in jax.tree.leaves(grads))


def test_an_optax_loop_in_a_scan_finds_the_optimum():
    """E (x - 3)^2 + (s - 1/2)^2 of x ~ N(m, s), log s beside m: m = 3, and s^2 + (s - 1/2)^2 is least at s = 1/4."""

    def cost(p):
        s = jnp.exp(p["log_s"])
        return (numpyro.sample("x", dist.Normal(p["m"], s)) - 3.0) ** 2 + (s - 0.5) ** 2

    step = autovi.stochastic_value_and_grad(cost, num_samples=4)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1500))

    @jax.jit
    def train(params, key):
        def one(carry, key):
            params, state = carry
            value, grads = step(params, rng_key=key)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(one, (params, optimizer.init(params)), jax.random.split(key, 1500))

    (params, _), values = train({"m": 0.0, "log_s": 0.0}, KEY)
    assert abs(params["m"] - 3.0) < 0.02 and abs(jnp.exp(params["log_s"]) - 0.25) < 0.01
    assert values[-100:].mean() == pytest.approx(0.125, abs=0.03)


# --- derivatives of estimates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "derive",
    [
        lambda f: jax.hessian(lambda m: f(m)[0]),
        lambda f: jax.grad(lambda m: f(m)[0]),
        lambda f: jax.grad(lambda m: jax.jit(f)(m)[1]),
        lambda f: jax.jacfwd(f),
        lambda f: jax.vmap(jax.grad(lambda m: f(m)[1])),
    ],
)
def test_second_derivatives_are_an_error_and_never_wrong(derive):
    f = lambda m: autovi.stochastic_value_and_grad(plain)(m, rng_key=0)  # noqa: E731
    argument = jnp.zeros(2) if "vmap" in derive.__code__.co_names else 0.3
    with pytest.raises(TypeError, match="stochastic_grad: its results cannot be differentiated"):
        derive(f)(argument)


def plain(m):
    return numpyro.sample("x", dist.Normal(m, 1.0)) ** 2


def test_what_is_constant_in_an_outer_derivative_may_be_used():
    f = lambda m: autovi.stochastic_value_and_grad(plain)(m, rng_key=0)[0]  # noqa: E731
    outer = lambda m: m**2 * f(jax.lax.stop_gradient(m)) + m * f(0.1)  # noqa: E731
    assert jax.grad(outer)(0.4) == pytest.approx(0.8 * f(0.4) + f(0.1))


def test_a_gradient_inside_of_a_function_that_draws():
    """The sites of the one are none of the other's, and of no handler around it."""

    def outer(m):
        inner = autovi.stochastic_value_and_grad(plain)(jax.lax.stop_gradient(m), rng_key=1)[0]
        return inner * numpyro.sample("x", dist.Normal(m, 1.0))

    with numpyro.handlers.trace() as seen, numpyro.handlers.seed(rng_seed=0):
        got = autovi.stochastic_grad(outer)(0.4, rng_key=0)
    assert got == pytest.approx(float(autovi.stochastic_value_and_grad(plain)(0.4, rng_key=1)[0]), rel=1e-5)
    assert not seen


# --- values that are not known when the function is traced ------------------------------------------------------------


def over(m, threshold):
    return jnp.where(numpyro.sample("x", dist.Normal(m, 1.0)) > threshold, 1.0, 0.0)


def test_a_jump_is_found_from_shapes_alone():
    """Traced arguments have no values; the gradient is the score's all the same."""
    grad = jax.jit(lambda m, t, k: autovi.stochastic_grad(over, num_samples=8)(m, t, rng_key=k))
    assert_unbiased(batched(grad), (0.2, 0.7), flat(norm.pdf(0.5)))


def test_a_function_may_close_over_traced_values():
    """Whether it jumps there is not known: the score. What cannot jump stays pathwise."""
    plans = {}

    @jax.jit
    def both(m, t, key):
        smooth = autovi.stochastic_grad(lambda m: (numpyro.sample("x", dist.Normal(m, 1.0)) - t) ** 2)
        jumping = autovi.stochastic_grad(lambda m: over(m, t), num_samples=2)
        plans.update(smooth=smooth.plan(m)["x"].estimator, jumping=jumping.plan(m)["x"])
        return smooth(m, rng_key=key), jumping(m, rng_key=key)

    got = both(0.2, 0.7, KEY)
    explicit = autovi.stochastic_grad(lambda m, t: (numpyro.sample("x", dist.Normal(m, 1.0)) - t) ** 2)
    same(got[0], explicit(0.2, 0.7, rng_key=KEY))
    assert plans["smooth"] == "explicit" and plans["jumping"].estimator == "score"
    assert "closes over values" in plans["jumping"].why
    assert_unbiased(batched(lambda m, t, k: both(m, t, k)[1]), (0.2, 0.7), flat(norm.pdf(0.5)))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_derivative_in_what_a_function_closes_over_is_an_error_too(compiled):
    def value(t):
        centred = lambda m: (numpyro.sample("x", dist.Normal(m, 1.0)) - t) ** 2  # noqa: E731
        return autovi.stochastic_value_and_grad(centred)(0.3, rng_key=0)[0]

    with pytest.raises(TypeError, match="stochastic_grad: its results cannot be differentiated"):
        jax.grad(jax.jit(value) if compiled else value)(1.0)
    over = jax.vmap(value)(jnp.array([0.5, 1.0]))
    same(over, [value(0.5), value(1.0)])


def undefined(m, t):
    return over(m, 0.3) * jnp.sqrt(t - 5.0)


def test_a_loss_that_is_no_number_where_it_is_tried_counts_as_one_that_jumps():
    plans = []
    jax.jit(lambda m, t: plans.append(autovi.stochastic_grad(undefined).plan(m, t)["x"]))(0.2, 6.0)
    assert plans[0].estimator == "score" and "NaN or infinite at nearly all values tried" in plans[0].why
    known = autovi.stochastic_grad(undefined).plan(0.2, 6.0)["x"]
    assert known.estimator == "score" and "jumps by" in known.why


# --- estimators that learn --------------------------------------------------------------------------------------------


def toy(theta):
    return (numpyro.sample("b", dist.Bernoulli(logits=theta)) - 0.499) ** 2


def test_a_moving_average_is_what_the_formula_says():
    """The estimate is (cost - b) times the score, and then b <- b - 0.05 * 2 (b - cost)."""
    costs = []
    grad = autovi.stochastic_value_and_grad(toy, estimators={"b": {"baseline": "moving_average"}})
    state, b, theta = grad.init(0.4), 0.0, 0.4
    for seed in range(4):
        key = jax.random.key(seed)
        z = float(dist.Bernoulli(logits=theta).sample(site_key(key, "b")))
        value, g, state = grad(theta, rng_key=key, estimator_state=state)
        cost = (z - 0.499) ** 2
        assert value == pytest.approx(cost, rel=1e-5)
        assert g == pytest.approx((cost - b) * (z - 1 / (1 + np.exp(-theta))), rel=1e-4, abs=1e-7)
        b -= 0.1 * (b - cost)
        costs.append(cost)
        assert -float(state.params["b"].array) == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("what", ["relax", {"baseline": "moving_average"}])
def test_what_learns_needs_a_state(what):
    with pytest.raises(ValueError, match="estimator_state: site 'b' has estimator .* make a state by .init"):
        autovi.stochastic_grad(toy, estimators={"b": what})(0.1, rng_key=0)


def test_relax_learns_in_a_compiled_loop():
    """The variance of RELAX after training is far below that before it, and its mean is the exact gradient."""
    grad = autovi.stochastic_grad(toy, estimators={"b": "relax"})

    @jax.jit
    def variance(state):
        draws = jax.vmap(lambda k: grad(0.0, rng_key=k, estimator_state=state)[0])(jax.random.split(KEY, 2000))
        return jnp.var(draws), jnp.mean(draws)

    @jax.jit
    def train(state):
        keys = jax.random.split(jax.random.key(1), 3000)
        return jax.lax.scan(lambda s, k: (grad(0.0, rng_key=k, estimator_state=s)[1], None), state, keys)[0]

    before = grad.init(0.0)
    after = train(before)
    (first, _), (last, mean) = variance(before), variance(after)
    assert last < 0.1 * first
    assert float(mean) == pytest.approx(0.25 * (0.501**2 - 0.499**2), abs=4 * float(last / 2000) ** 0.5)


def test_a_network_learns_a_baseline_from_what_comes_before_a_site():
    """An actor and its critic: the cost is 10 times the state, which the network reads, and then nothing is left."""

    def act(theta):
        with numpyro.plate("episodes", 8):
            state = numpyro.deterministic("state", numpyro.sample("start", dist.Normal(0.0, 1.0)))
            action = numpyro.sample("action", dist.Bernoulli(logits=theta * state))
        return 10.0 * state + action

    critic = {"action": {"estimator": "score", "baseline": "network", "inputs": "state", "learning_rate": 0.02}}
    grad = autovi.stochastic_grad(act, estimators=critic)

    @jax.jit
    def train(state):
        step = lambda s, k: (grad(0.5, rng_key=k, estimator_state=s)[1], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(KEY, 800))[0]

    @jax.jit
    def draws(state):
        return jax.vmap(lambda k: grad(0.5, rng_key=k, estimator_state=state)[0])(jax.random.split(KEY, 2000))

    before = grad.init(0.5)
    first, last = draws(before), draws(train(before))
    assert jnp.var(last) < 0.1 * jnp.var(first)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    rate = 1 / (1 + np.exp(-0.5 * nodes))
    exact = 8 * np.sum(weights / np.sqrt(2 * np.pi) * rate * (1 - rate) * nodes)
    assert float(last.mean()) == pytest.approx(exact, abs=4 * float(last.std()) / 2000**0.5)
