"""Values that q never has: they count nothing, though log q is minus infinity there."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from autovi.distributions.densities import log_density, relaxed_log_density
from autovi.estimators import Arm, Arms, Carms, Disarm, DisarmTree
from autovi.preparation import Options, prepare

NEVER = -np.inf
X = np.array([0.5, -0.4, 1.1])
MEANS = np.array([0.3, -1.0, 2.0, 0.7])
PRIOR = np.array([0.5, 0.0, 0.2, 0.3])  # the second value is impossible in the model too, where q says so
LOGITS = np.array([[0.3, NEVER, 0.5, 0.1], [0.4, NEVER, NEVER, -0.2], [NEVER, NEVER, 0.7, NEVER]])
BITS = np.array([NEVER, 0.4, np.inf])


def categories(x, onehot):
    with numpyro.plate("N", 3):
        z = numpyro.sample("z", dist.Categorical(jnp.asarray(PRIOR)))
        means = jnp.asarray(MEANS)
        numpyro.sample("x", dist.Normal(jax.nn.one_hot(z, 4) @ means if onehot else means[z], 1.0), obs=x)


def categories_guide(x, onehot):
    logits = numpyro.param("logits", jnp.asarray(LOGITS))
    with numpyro.plate("N", 3):
        numpyro.sample("z", dist.Categorical(logits=logits))


def bits(x):
    with numpyro.plate("N", 3):
        b = numpyro.sample("z", dist.Bernoulli(0.6))
        numpyro.sample("x", dist.Normal(1.3 * b - 0.2, 1.0), obs=x)


def bits_guide(x):
    logits = numpyro.param("logits", jnp.asarray(BITS))
    with numpyro.plate("N", 3):
        numpyro.sample("z", dist.Bernoulli(logits=logits))


def exact(logits, log_joint):
    """q (f - E f), f = log p - log q of the values that are possible."""
    log_q = logits - logsumexp(logits, -1, keepdims=True)
    q = np.exp(log_q)
    f = np.where(q > 0, log_joint - np.where(q > 0, log_q, 0), 0)
    return q * (f - np.sum(q * f, -1, keepdims=True))


def of_categories():
    with np.errstate(divide="ignore"):
        return exact(LOGITS, np.log(PRIOR) + norm.logpdf(X[:, None], MEANS))


def of_bits():
    joint = np.log([0.4, 0.6]) + norm.logpdf(X[:, None], [-0.2, 1.1])
    # Only the second has two values; of the others the derivative in the logit is zero.
    found = exact(np.array([[0.0, 0.4]]), joint[1:2])[0, 1]
    return np.array([0.0, found, 0.0])


def gradients(model, guide, data, params, estimator, repeats, particles=2):
    engine, inputs = prepare(model, data, Options(guide=guide, estimators={"z": estimator}, num_particles=particles))
    own = engine.estimator_params()

    def one(key):
        loss = lambda p: -engine.estimate({"guide": {}, "param": p}, own, inputs.traced(), key)[0]  # noqa: E731
        return jax.grad(loss)(params)

    return jax.jit(jax.vmap(one), compiler_options=ONCE)(jax.random.split(jax.random.key(5), repeats))


def check(found, right):
    found = np.asarray(found, float)
    assert np.all(np.isfinite(found))
    error = found.std(0) / len(found) ** 0.5 + 1e-5
    np.testing.assert_array_less(np.abs(found.mean(0) - right), 5.5 * error)
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(right)


@pytest.mark.parametrize("name", ["enumerate", "unordered_set", "carms", "disarm_tree", "rebar", "score"])
def test_categories_that_are_ruled_out(name):
    """Ragged sets of choices, written as logits of minus infinity."""
    onehot = name == "rebar"
    asked = {"estimator": name, "temperature": 3.0} if onehot else name
    found = gradients(
        lambda x: categories(x, onehot),
        lambda x: categories_guide(x, onehot),
        {"x": X},
        {"logits": jnp.asarray(LOGITS)},
        asked,
        30 if name in ("enumerate", "unordered_set") else 12_000,
    )["logits"]
    check(found, of_categories())


@pytest.mark.parametrize(
    "name", ["enumerate", "unordered_set", "measure_valued", "disarm", "muprop", "double_cv", "rebar", "rodeo"]
)
def test_bits_that_are_certain(name):
    repeats = 30 if name in ("enumerate", "unordered_set", "measure_valued") else 16_000
    found = gradients(bits, bits_guide, {"x": X}, {"logits": jnp.asarray(BITS)}, name, repeats, particles=4)
    check(found["logits"], of_bits())


SUPPORT = np.arange(60.0)


def counts(y):
    z = numpyro.sample("z", dist.NegativeBinomial2(3.0, 2.0))
    numpyro.sample("y", dist.Normal(z.astype(float), 1.5), obs=y)


@pytest.mark.parametrize(
    ("name", "make", "gate"),
    [
        ("enumerate_gate", dist.ZeroInflatedPoisson, -120.0),
        pytest.param("enumerate_gate", dist.HurdlePoisson, 20.0, marks=pytest.mark.slow),
        ("score", dist.ZeroInflatedPoisson, -120.0),
        ("score", dist.ZeroInflatedPoisson, 20.0),
    ],
)
def test_a_gate_that_is_rounded_to_its_end(name, make, gate):
    """sigmoid(20) is 1 in float32: fits come there."""

    def guide(y):
        logit, log_rate = numpyro.param("logit", gate), numpyro.param("log_rate", 1.0)
        numpyro.sample("z", make(jax.nn.sigmoid(logit), jnp.exp(log_rate)))

    params = {"logit": jnp.array(gate), "log_rate": jnp.array(1.0)}
    found = gradients(counts, guide, {"y": np.array(1.7)}, params, name, 4000 if gate < 0 else 20)
    assert np.all(np.asarray(found["logit"]) == 0)

    def elbo(log_rate):
        """Of an open gate."""
        log_q = SUPPORT * log_rate - np.exp(log_rate) - gammaln(SUPPORT + 1)
        log_p = gammaln(SUPPORT + 2) - gammaln(SUPPORT + 1) + 2 * np.log(0.4) + SUPPORT * np.log(0.6)
        log_p += norm.logpdf(1.7, SUPPORT, 1.5)
        return np.sum(np.exp(log_q) * (log_p - log_q))

    slope = (elbo(1.0 + 1e-5) - elbo(1.0 - 1e-5)) / 2e-5 if gate < 0 else 0.0
    rate = np.asarray(found["log_rate"], float)
    assert np.all(np.isfinite(rate))
    assert rate.mean() == pytest.approx(slope, abs=5.5 * rate.std() / len(rate) ** 0.5 + 1e-5)


# --- densities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_the_density_of_a_gate_at_its_end_has_a_derivative(gate):
    """log(g + (1 - g) exp(-r)) at zero; where the gate is surely closed a hurdle at zero is log g."""
    inflated = lambda g: log_density(dist.ZeroInflatedPoisson(g, 2.0), 0)  # noqa: E731
    value, slope = jax.value_and_grad(inflated)(gate)
    whole = gate + (1 - gate) * np.exp(-2.0)
    np.testing.assert_allclose((value, slope), (np.log(whole), (1 - np.exp(-2.0)) / whole), rtol=1e-5)
    other = 0 if gate == 1.0 else 2
    hurdle = lambda g: log_density(dist.HurdlePoisson(g, 2.0), other)  # noqa: E731
    assert jax.grad(hurdle)(gate) == pytest.approx(1.0 if gate == 1.0 else -1.0)


def test_a_relaxed_bit_that_is_certain():
    bernoulli = lambda b: relaxed_log_density(dist.Bernoulli(logits=jnp.array(NEVER), validate_args=False), b)  # noqa: E731
    assert (bernoulli(jnp.array(0.0)), bernoulli(jnp.array(1.0))) == (0.0, NEVER)
    assert jax.grad(bernoulli)(jnp.array(0.0)) == 0.0


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logit", [NEVER, np.inf])
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("estimator", [Arm(), Disarm(), Arms(3)])
def test_no_uniform_makes_an_impossible_bit(estimator, noise, logit):
    """One uniform number in 2^23 of float32's is 0."""
    q = dist.Bernoulli(logits=jnp.array([logit]), validate_args=False)
    drawn = estimator.draw(jnp.full((3, 1) if isinstance(estimator, Arms) else (1,), noise), q)
    twin = drawn.aux[0] if isinstance(estimator, Arm) else drawn.aux
    assert np.all(np.asarray(drawn.value) == (logit > 0)) and np.all(np.asarray(twin) == (logit > 0))


@pytest.mark.parametrize("estimator", [DisarmTree(), DisarmTree("stick_breaking"), Carms(2), Carms(3)])
def test_no_noise_makes_an_impossible_category(estimator, monkeypatch):
    for name in ("uniform", "exponential"):
        drawn_as_zero = lambda key, shape=(), dtype=float, **_: jnp.zeros(shape, dtype)  # noqa: E731
        monkeypatch.setattr(jax.random, name, drawn_as_zero)
    q = dist.Categorical(logits=jnp.asarray(LOGITS), validate_args=False)
    drawn = estimator.draw(jax.random.key(0), q)
    for values in (drawn.value, *np.asarray(drawn.aux).reshape(-1, 3)):
        assert np.all(np.isfinite(np.take_along_axis(LOGITS, np.asarray(values)[:, None], 1)))
