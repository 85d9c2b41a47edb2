"""Normal sites summed out in closed form: evidence and gradients against dense normals, draws against exact moments."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi
from elimination.at_values import at_values
from elimination.linear_models import CASES, LONG, PAIRS, X, Y, autoregression, log_normal, normal


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c == "scan" else [pytest.mark.slow]) for c in CASES])
def test_evidence_and_gradient(case):
    """In float64 against a dense normal, of which these lose no more than 1e-10."""
    model, data, exact, theta, estimators = CASES[case]
    with jax.enable_x64(True):
        found = at_values(model, data, theta, estimators=estimators)
        value, gradient = jax.value_and_grad(exact)({n: jnp.asarray(x) for n, x in theta.items()})
    assert {c.estimator for c in found.plan.choices if c.site not in theta} == {"marginalize"}
    assert found.value == pytest.approx(float(value), abs=1e-8)
    for name in theta:
        assert found.gradient[name] == pytest.approx(float(gradient[name]), abs=1e-7)


def far_away(y):
    """Steps of .02 around 5,000, of which float32's next number is .0005 off."""

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x, 0.02))
        numpyro.sample("y", dist.Normal(x, 0.1), obs=y)
        return x, None

    scan(step, 5000.0, y)


@pytest.mark.slow
def test_digits_far_from_the_origin():
    """In float32, where steps themselves are 2.4e-4 off at worst, and .02 in all of 50 is what that may make."""
    noise = np.random.default_rng(1)
    y = (5000 + 0.02 * noise.normal(size=50).cumsum() + 0.1 * noise.normal(size=50)).astype(np.float32)
    steps = np.arange(50)
    with jax.enable_x64(True):
        covariance = 0.02**2 * (1.0 + np.minimum(steps[:, None], steps)) + 0.1**2 * np.eye(50)
        exact = float(log_normal(y.astype(float), jnp.full(50, 5000.0), covariance))
    found = at_values(far_away, {"y": y}, {}, estimators={"x": X})
    assert found.value == pytest.approx(exact, abs=0.02)


def smoothed(y):
    def step(x, y):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 0.5))
        numpyro.sample("y", dist.Normal(x, 0.8), obs=y)
        return x, None

    scan(step, 0.0, y)
    numpyro.deterministic("late", jnp.zeros(()))


@pytest.mark.slow
def test_draws():
    """Means and covariances of 20,000 draws of all steps together, each within seven standard errors; a fit without
    anything in its guide has the exact evidence."""
    fit = autovi.fit(smoothed, {"y": LONG}, estimators={"x": X}, progress_bar=False, num_draws=100)
    back = np.eye(70) - 0.9 * np.eye(70, k=-1)
    precision = back.T @ back / 0.25 + np.eye(70) / 0.64
    covariance = np.linalg.inv(precision)
    mean = covariance @ LONG / 0.64
    drawn = np.asarray(fit.sample(20_000, rng_key=5)["x"], float)
    spread = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(drawn.mean(0) - mean) < 7 * spread / np.sqrt(20_000))
    error = np.sqrt((covariance**2 + np.outer(spread, spread) ** 2) / 20_000)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 7 * error)
    into = np.linalg.inv(back)
    evidence = log_normal(LONG, np.zeros(70), 0.25 * into @ into.T + 0.64 * np.eye(70))
    assert fit.elbo == pytest.approx(float(evidence), abs=1e-3)
    np.testing.assert_allclose(np.asarray(fit.sample(2, discrete="map")["x"])[0], mean, atol=1e-4)


def rows(y, size=None):
    """Means of the rows of a plate, some of which a step sees, under a scale."""
    r = normal("r")
    with numpyro.plate("rows", len(y), subsample_size=size) as i:
        m = numpyro.sample("m", dist.Normal(jnp.zeros(3), 1.5).to_event(1))
        with numpyro.handlers.scale(scale=0.5):
            numpyro.sample("y", dist.Normal(m, jnp.exp(r)).to_event(1), obs=y[i])


@pytest.mark.slow
def test_elements_of_a_subsampled_plate_and_scales():
    """The square root of a normal density of variance s is one of variance 2 s times (4 pi s)^1/2 / (2 pi s)^1/4."""
    with jax.enable_x64(True):
        found = at_values(rows, {"y": PAIRS, "size": 2}, {"r": 0.2}, {"rows": jnp.array([5, 0])}, estimators={"m": X})
    s = np.exp(0.4)
    seen = PAIRS[[5, 0]]
    wider = -0.5 * seen**2 / (2.25 + 2 * s) - 0.5 * np.log(2 * np.pi * (2.25 + 2 * s))
    expected = wider + 0.5 * np.log(4 * np.pi * s) - 0.25 * np.log(2 * np.pi * s)
    assert found.value == pytest.approx(7 / 2 * np.sum(expected), abs=1e-6)


def switching(y):
    """The noise of each step is one of two, by a discrete site that stays in the guide."""
    r = normal("r")

    def step(x, y):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        x = numpyro.sample("x", dist.Normal(x, jnp.where(z == 1, 2.0, 0.5)))
        numpyro.sample("y", dist.Normal(x, jnp.exp(r)), obs=y)
        return x, None

    scan(step, 0.0, y)


@pytest.mark.slow
def test_given_discrete_sites_outside():
    z = np.array([0, 1, 0, 0, 1, 1, 0])
    with jax.enable_x64(True):
        found = at_values(switching, {"y": Y}, {"r": 0.3, "z": z}, estimators={"x": X})
        sd = np.where(z == 1, 2.0, 0.5)
        sums = np.tril(np.ones((7, 7)))
        covariance = sums @ np.diag(sd**2) @ sums.T + np.exp(0.6) * np.eye(7)
        exact = float(log_normal(Y, np.zeros(7), covariance))
    assert found.plan["z"].estimator != "marginalize"
    assert "'x', which is summed out in closed form" in found.plan["z"].why
    assert found.value == pytest.approx(exact, abs=1e-8)


def curved(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x**2, 1.0), obs=y)


def bent(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(jnp.where(x > 0, x, 0.0), 1.0), obs=y)


def spread(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(0, jnp.exp(x)), obs=y)


def heavy(y):
    x = numpyro.sample("x", dist.StudentT(3.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def pulled(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.factor("pull", x**2)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def masked(y):
    x = numpyro.sample("x", dist.Normal(0, 1).mask(False))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def above_a_batch(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    with numpyro.plate("rows", len(y), subsample_size=2) as i:
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y[i])


def multiplied(y):
    x, w = normal("x"), normal("w")
    numpyro.sample("y", dist.Normal(x * w, 1.0), obs=y)


REFUSED = {
    curved: "the term 'p:y' (Normal) is of degree 4 in it",
    bent: "the term 'p:y' (Normal) is no quadratic in it",
    spread: "the term 'p:y' (Normal) is no quadratic in it",
    heavy: "its values are continuous",
    pulled: "the term 'p:pull' (Unit) is quadratic in it, and no normal density",
    masked: "its prior is masked",
    above_a_batch: "the term 'p:y' is in the subsampled plate 'rows'",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda m: m.__name__)
def test_refused(model):
    with pytest.raises(ValueError, match="site 'x'.*'marginalize' would be wrong") as error:
        autovi.plan(model, {"y": Y}, estimators={"x": "marginalize"})
    assert REFUSED[model] in str(error.value)


def test_a_product_of_two_sites_is_linear_in_each():
    assert autovi.plan(multiplied, {"y": Y}, estimators={"x": X})["x"].estimator == "marginalize"
    with pytest.raises(ValueError, match="of degree 4 in|of degree 2"):
        autovi.plan(multiplied, {"y": Y}, estimators={"x": X, "w": X})


def test_the_plan_says_how():
    plan = autovi.plan(autoregression, {"y": Y}, estimators={"x": X})
    assert "summed out in closed form: all that depends on it is linear in it and normal, step by step" in plan["x"].why
    assert autovi.plan(autoregression, {"y": Y})["x"].estimator != "marginalize"
