"""Gradients of expectations against closed forms, exact enumeration, and the formulas they are made of."""

from math import factorial, log

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from jax.scipy.stats import norm

import autovi
from autovi.estimators import Score
from autovi.model.execution import site_key

NONE = Score(baseline="none")


def assert_right(fn, args, exact, **options):
    """The gradient of `fn` in all its arguments is that of the function `exact`, which is computed without noise."""
    argnums = tuple(range(len(args)))
    grad = autovi.stochastic_grad(fn, argnums=argnums, **options)
    args = jax.tree.map(jnp.asarray, args)
    assert_unbiased(batched(lambda *a: grad(*a[:-1], rng_key=a[-1])), args, flat(jax.grad(exact, argnums)(*args)))


# --- formulas, to rounding --------------------------------------------------------------------------------------------


def smooth(x):
    return jnp.sin(2 * x) + x**2


def of_normal(mu, sigma):
    return smooth(numpyro.sample("x", dist.Normal(mu, sigma)))


@pytest.mark.parametrize("num_samples", [1, 7])
def test_of_a_normal_it_is_the_mean_slope_and_the_mean_slope_times_the_noise(num_samples):
    """For given noise z: x = mu + sigma z, and mean L'(x), mean L'(x) z."""
    mu, sigma, key = 0.7, 1.3, jax.random.key(3)
    own = site_key(key, "x")
    keys = own[None] if num_samples == 1 else jax.random.split(own, num_samples)
    z = jax.vmap(jax.random.normal)(keys)
    slope = jax.vmap(jax.grad(smooth))(mu + sigma * z)
    grad = autovi.stochastic_value_and_grad(of_normal, argnums=(0, 1), num_samples=num_samples)
    value, got = grad(mu, sigma, rng_key=key)
    np.testing.assert_allclose(got, (slope.mean(), (slope * z).mean()), rtol=2e-6)
    np.testing.assert_allclose(value, smooth(mu + sigma * z).mean(), rtol=2e-6)


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_a_score_is_the_mean_of_cost_less_baseline_times_score(baseline):
    theta, key, k = 0.4, jax.random.key(1), 5

    def loss(theta):
        return numpyro.sample("n", dist.Poisson(jnp.exp(theta))) ** 2.0

    draw = lambda one: dist.Poisson(jnp.exp(theta)).sample(one).astype(float)  # noqa: E731
    n = jax.vmap(draw)(jax.random.split(site_key(key, "n"), k))
    others = (jnp.sum(n**2) - n**2) / (k - 1) if baseline == "leave_one_out" else 0.0
    expected = jnp.mean((n**2 - others) * (n - jnp.exp(theta)))
    grad = autovi.stochastic_grad(loss, num_samples=k, estimators={"n": {"baseline": baseline}})
    np.testing.assert_allclose(grad(theta, rng_key=key), expected, rtol=1e-5)


def test_a_finite_site_is_summed_over_without_noise():
    def loss(logits):
        return jnp.array([1.0, -2.0, 0.5])[numpyro.sample("z", dist.Categorical(logits=logits))]

    logits = jnp.array([0.3, -0.1, 0.8])
    value, grad = autovi.stochastic_value_and_grad(loss)(logits, rng_key=0)
    exact, exact_grad = jax.value_and_grad(lambda t: jax.nn.softmax(t) @ jnp.array([1.0, -2.0, 0.5]))(logits)
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(grad, exact_grad, rtol=1e-5)


def test_without_a_site_it_is_the_gradient_of_jax():
    loss = lambda x: jnp.sum(jnp.sin(x["a"]) * x["b"])  # noqa: E731
    x = {"a": jnp.array([0.2, 0.4]), "b": jnp.array(2.0)}
    got = autovi.stochastic_value_and_grad(loss)(x, rng_key=0)
    jax.tree.map(np.testing.assert_allclose, got, jax.value_and_grad(loss)(x))


# --- against closed forms and sums ------------------------------------------------------------------------------------


def test_a_gamma_has_an_implicit_gradient():
    loss = lambda a, b: numpyro.sample("g", dist.Gamma(a, b)) ** 2  # noqa: E731
    plan = autovi.stochastic_grad(loss, argnums=(0, 1)).plan(2.0, 1.5)
    assert plan["g"].estimator == "implicit"
    assert_right(loss, (2.0, 1.5), lambda a, b: a * (a + 1) / b**2)


def test_a_uniform_whose_edge_moves():
    loss = lambda x: numpyro.sample("u", dist.Uniform(0.0, x)) ** 2  # noqa: E731
    assert_right(loss, (1.7,), lambda x: x**2 / 3)
    with pytest.raises(ValueError, match="its support depends on its parameter"):
        autovi.stochastic_grad(loss, estimators={"u": "score"})(1.7, rng_key=0)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_a_loss_that_jumps_takes_the_score(num_samples):
    """d/dmu P(mu + sigma z > c) is a normal density; a pathwise gradient would be 0."""
    loss = lambda mu, sigma: jnp.where(numpyro.sample("x", dist.Normal(mu, sigma)) > 0.5, 1.0, 0.0)  # noqa: E731
    grad = autovi.stochastic_grad(loss, argnums=(0, 1), num_samples=num_samples)
    choice = grad.plan(0.2, 0.9)["x"]
    assert (choice.estimator, choice.baseline) == ("score", "none" if num_samples == 1 else "leave_one_out")
    assert "jumps" in choice.why and ("without a baseline" in choice.why) == (num_samples == 1)
    assert_right(loss, (0.2, 0.9), lambda m, s: norm.cdf((m - 0.5) / s), num_samples=num_samples)


def test_a_jump_that_shows_only_beside_other_parameters_is_found():
    """Weights start at zero, where the loss is flat: it is tried at others too."""
    loss = lambda mu, w: w * jnp.where(numpyro.sample("x", dist.Normal(mu, 1.0)) > 0.3, 1.0, 0.0)  # noqa: E731
    assert autovi.stochastic_grad(loss, argnums=(0, 1)).plan(0.0, 0.0)["x"].estimator == "score"


def test_a_loss_that_holds_a_part_of_itself_fixed_takes_the_score():
    """E x sg(x) = mu^2 + sigma^2; of a path the derivative would be half of that."""
    loss = lambda mu, sigma: (x := numpyro.sample("x", dist.Normal(mu, sigma))) * jax.lax.stop_gradient(x)  # noqa: E731
    choice = autovi.stochastic_grad(loss, num_samples=4).plan(0.4, 0.8)["x"]
    assert (choice.estimator, choice.baseline) == ("score", "leave_one_out")
    assert "by stop_gradient" in choice.why and "has the slope" in choice.why
    assert_right(loss, (0.4, 0.8), lambda m, s: m**2 + s**2, num_samples=4)
    asked = autovi.stochastic_grad(loss, estimators={"x": "explicit"})
    with pytest.raises(ValueError, match="site 'x'.*'explicit' would be wrong.*its derivative is.*by stop_gradient"):
        asked(0.4, 0.8, rng_key=0)


def test_an_argument_that_is_held_fixed_is_a_constant():
    """What fn says of its own arguments is the user's wish, as in jax.grad: d/dmu E sg(mu) x = mu, not 2 mu."""
    loss = lambda mu: jax.lax.stop_gradient(mu) * numpyro.sample("x", dist.Normal(mu, 1.0))  # noqa: E731
    grad = autovi.stochastic_grad(loss)
    assert grad.plan(0.4)["x"].estimator == "explicit"
    assert grad(0.4, rng_key=0) == np.float32(0.4)


def test_a_kink_is_no_jump():
    """E max(x, 0) of a normal: pathwise, though a comparison is on the way."""
    loss = lambda mu: jnp.where((x := numpyro.sample("x", dist.Normal(mu, 1.0))) > 0, x, 0.0)  # noqa: E731
    assert autovi.stochastic_grad(loss).plan(0.4)["x"].estimator == "explicit"
    assert_right(loss, (0.4,), lambda m: m * norm.cdf(m) + norm.pdf(m))


def chain(p):
    """b, then x given b, then c given x, then a count given both; the parameters are in several places."""
    b = numpyro.sample("b", dist.Bernoulli(logits=p["a"]))
    x = numpyro.sample("x", dist.Normal(p["m"] + b, jnp.exp(p["s"])))
    c = numpyro.sample("c", dist.Bernoulli(logits=p["a"] * x))
    n = numpyro.sample("n", dist.Poisson(jnp.exp(p["m"] + 0.5 * c)))
    return (x - c) ** 2 + 0.1 * n * (1 + b) + p["a"] * p["m"] * c


def exact_chain(p):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    total = 0.0
    for b in (0.0, 1.0):
        pb = jax.nn.sigmoid(p["a"] if b else -p["a"])
        x = p["m"] + b + jnp.exp(p["s"]) * nodes
        for c in (0.0, 1.0):
            pc = jax.nn.sigmoid((1 if c else -1) * p["a"] * x)
            cost = (x - c) ** 2 + 0.1 * jnp.exp(p["m"] + 0.5 * c) * (1 + b) + p["a"] * p["m"] * c
            total += pb * jnp.sum(weights / np.sqrt(2 * np.pi) * pc * cost)
    return total


CHAIN = {"a": 0.6, "m": -0.3, "s": -0.4}


@pytest.mark.parametrize(
    "estimators",
    [None, {"*": "score"}, {"b": "disarm", "c": "arm"}],
    ids=str,
)
def test_nested_discrete_and_continuous_sites(estimators):
    assert_right(chain, (CHAIN,), exact_chain, num_samples=2, estimators=estimators)


def test_one_sample_of_dependent_sites():
    assert_right(chain, (CHAIN,), exact_chain)


def test_an_infinite_site_against_its_sum():
    loss = lambda rate: jnp.sqrt(numpyro.sample("n", dist.Poisson(rate)) + 1.0)  # noqa: E731
    k = np.arange(30.0)
    logs = np.array([log(factorial(int(i))) for i in k], np.float32)
    exact = lambda rate: jnp.sum(jnp.exp(k * jnp.log(rate) - rate - logs) * np.sqrt(k + 1))  # noqa: E731
    assert_right(loss, (2.5,), exact, num_samples=4)


# --- local costs ------------------------------------------------------------------------------------------------------

LOGITS = jnp.array([0.4, -0.7, 0.1, 1.2])
COSTS = jnp.array([1.0, 30.0, -4.0, 2.0])


def per_element(logits):
    with numpyro.plate("i", 4):
        return COSTS * numpyro.sample("z", dist.Bernoulli(logits=logits))


def test_each_element_of_a_plate_is_charged_with_its_own_loss():
    """For given draws, (cost_i z_i) times its own score, and nothing of the others."""
    key = jax.random.key(7)
    z = dist.Bernoulli(logits=LOGITS).sample(site_key(key, "z")).astype(float)
    value, grad = autovi.stochastic_value_and_grad(per_element, estimators={"z": NONE})(LOGITS, rng_key=key)
    np.testing.assert_allclose(grad, COSTS * z * (z - jax.nn.sigmoid(LOGITS)), rtol=1e-5)
    np.testing.assert_allclose(value, jnp.sum(COSTS * z))


def test_a_sum_of_the_same_elements_is_shared_by_all():
    """The mean is the same and the variance is not: a scalar loss does not say whose it is."""
    total = lambda logits: jnp.sum(per_element(logits))  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 4000)
    spread, others = {}, np.array([0, 2, 3])
    for name, fn in {"own": per_element, "shared": total}.items():
        grad = autovi.stochastic_grad(fn, estimators={"z": NONE})
        spread[name] = np.var(jax.vmap(lambda k, g=grad: g(LOGITS, rng_key=k))(keys), axis=0)
    assert (spread["own"][others] < 0.2 * spread["shared"][others]).all()
    exact = lambda logits: jax.nn.sigmoid(logits) @ COSTS  # noqa: E731
    assert_right(per_element, (LOGITS,), exact, estimators={"z": NONE})
    assert_right(total, (LOGITS,), exact, estimators={"z": "score"}, num_samples=8)


def test_the_leaves_of_a_tree_are_terms_of_their_own():
    """What was paid before a site is drawn is none of its costs: the reward to go, without a word from the user."""

    def loss(t):
        first = numpyro.sample("first", dist.Bernoulli(logits=t))
        second = numpyro.sample("second", dist.Bernoulli(logits=t * (1 + first)))
        return {"now": 100.0 * first, "later": second + 0.0}

    key, t = jax.random.key(1), 0.3
    first = dist.Bernoulli(logits=t).sample(site_key(key, "first"))
    second = dist.Bernoulli(logits=t * (1 + first)).sample(site_key(key, "second"))
    scores = first - jax.nn.sigmoid(t), (1 + first) * (second - jax.nn.sigmoid(t * (1 + first)))
    expected = scores[0] * (100.0 * first + second) + scores[1] * second
    grad = autovi.stochastic_grad(loss, estimators={"*": NONE})
    np.testing.assert_allclose(grad(t, rng_key=key), expected, rtol=1e-5)


def test_a_global_site_above_a_plate():
    """m ~ N(mu, 1), then x_i ~ N(m, s_i) and b_i ~ Bernoulli(s(m)), a loss per element and one of m alone."""
    y = jnp.array([0.3, -1.0, 2.0])

    def loss(mu, log_s):
        m = numpyro.sample("m", dist.Normal(mu, 1.0))
        with numpyro.plate("i", 3):
            x = numpyro.sample("x", dist.Normal(m, jnp.exp(log_s)))
            b = numpyro.sample("b", dist.Bernoulli(logits=m))
        return {"each": (x - y) ** 2 + b * y, "prior": m**2}

    def exact(mu, log_s):
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        rate = jnp.sum(weights / np.sqrt(2 * np.pi) * jax.nn.sigmoid(mu + nodes))
        return jnp.sum((mu - y) ** 2 + 1 + jnp.exp(2 * log_s)) + rate * jnp.sum(y) + mu**2 + 1

    args = (0.5, jnp.array([-0.2, 0.1, 0.0]))
    assert_right(loss, args, exact, estimators={"b": "score"}, num_samples=2)


def test_a_subsampled_plate_is_drawn_anew_by_every_key():
    """The loss is taken as it is returned, so that the user scales; the expectation is over batches too."""
    y = jnp.arange(6.0)

    def loss(mu):
        with numpyro.plate("i", 6, subsample_size=2) as i:
            x = numpyro.sample("x", dist.Normal(mu, 1.0))
        return 3.0 * (x - y[i]) ** 2

    assert_right(loss, (0.4,), lambda mu: jnp.sum((mu - y) ** 2 + 1), num_samples=2)
    batches = {float(autovi.stochastic_value_and_grad(loss)(0.4, rng_key=k)[0]) for k in range(4)}
    assert len(batches) == 4


# --- what fit refuses, in the same words ------------------------------------------------------------------------------


def coin(p):
    return numpyro.sample("b", dist.Bernoulli(p)) * 2.0


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ({"b": "explicit"}, "site 'b'.*would be wrong, since its values are discrete"),
        ({"b": "marginalize"}, "no posterior to sum it out of; 'enumerate' sums over it"),
        ({"b": "disarmed"}, "site 'b': unknown estimator 'disarmed'"),
        ({"c": "score"}, "estimators: no latent site matches 'c'"),
        ({"b": {"baseline": "leave_one_out"}}, "num_samples: 1 is too few for site 'b'"),
    ],
)
def test_wrong_estimators_are_refused_before_any_draw(estimators, message):
    with pytest.raises(ValueError, match=message):
        autovi.stochastic_grad(coin, estimators=estimators).plan(0.3)


def test_fit_and_the_gradient_refuse_a_count_in_the_same_words():
    def model():
        n = numpyro.sample("n", dist.Poisson(2.0))
        numpyro.sample("y", dist.Normal(n, 1.0), obs=1.0)

    with pytest.raises(ValueError) as of_fit:
        autovi.plan(model, estimators={"n": "enumerate"})
    loss = lambda rate: numpyro.sample("n", dist.Poisson(rate)) * 1.0  # noqa: E731
    with pytest.raises(ValueError) as of_gradient:
        autovi.stochastic_grad(loss, estimators={"n": "enumerate"})(2.0, rng_key=0)
    reason = "site 'n' (Poisson): estimator 'enumerate' would be wrong, since its support is not a finite list"
    assert reason in str(of_fit.value) and reason in str(of_gradient.value)


def observed(mu):
    return numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.0) + mu


def with_param(mu):
    return numpyro.param("w", 1.0) * numpyro.sample("x", dist.Normal(mu, 1.0))


def with_factor(mu):
    numpyro.factor("f", -(mu**2))
    return numpyro.sample("x", dist.Normal(mu, 1.0))


def nothing(mu):
    numpyro.sample("x", dist.Normal(mu, 1.0))


def text(mu):
    return str(mu)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (observed, "site 'y': it is observed .*-distribution.log_prob"),
        (with_param, "parameter 'w': numpyro.param is no argument of fn"),
        (with_factor, "site 'f': it is observed"),
        (nothing, "loss: fn returned None"),
        (text, "loss: expected fn to return a number or an array, got str"),
        (lambda mu: jax.lax.complex(mu, mu), "loss: expected real numbers, got complex64"),
        (lambda mu: numpyro.sample("x", dist.Normal(mu, 1.0)) @ mu, "^fn: it cannot be run"),
    ],
)
def test_what_is_no_expected_loss_is_refused(fn, message):
    with pytest.raises(ValueError, match=message):
        autovi.stochastic_grad(fn)(0.3, rng_key=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: autovi.stochastic_grad(coin, num_samples=0), ValueError, "num_samples: expected an integer of at"),
        (lambda: autovi.stochastic_grad(coin, num_samples=2.0), ValueError, "num_samples: expected an integer"),
        (lambda: autovi.stochastic_grad(coin, argnums="p"), TypeError, "argnums: expected an integer or a tuple"),
        (lambda: autovi.stochastic_grad(coin, argnums=1)(0.3, rng_key=0), ValueError, "argnums: argument 1 is to be"),
        (lambda: autovi.stochastic_grad(coin)(p=0.3, rng_key=0), ValueError, "argnums: argument 0 is to be"),
        (lambda: autovi.stochastic_grad(coin)(3, rng_key=0), TypeError, "p: it is differentiated .* of type int"),
        (lambda: autovi.stochastic_grad(3.0), TypeError, "fn: expected a NumPyro function, got float"),
        (lambda: autovi.stochastic_grad(jax.jit(coin)), TypeError, "fn: expected a plain NumPyro function"),
        (lambda: autovi.stochastic_grad(lambda p, rng_key: p), ValueError, "fn: its argument 'rng_key'"),
        (lambda: autovi.stochastic_grad(coin, estimators="score"), TypeError, "estimators: expected a dict"),
        (lambda: autovi.stochastic_grad(coin)(0.3, rng_key="a"), ValueError, "rng_key: expected"),
        (lambda: autovi.stochastic_grad(coin)(0.3), TypeError, "rng_key"),
    ],
)
def test_wrong_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
