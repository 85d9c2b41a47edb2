"""Normal sites summed out in closed form: evidence and gradients against dense normals, draws against exact moments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi
from elimination.at_values import at_values

RNG = np.random.default_rng(0)
Y = RNG.normal(size=7).cumsum()
ON = np.array([True, True, False, True, True, False, True])
LONG = np.random.default_rng(2).normal(size=70).cumsum()  # 8 blocks of 8 steps after the first 6
PAIRS = RNG.normal(size=(7, 3)).cumsum(0)
X = "marginalize"


def normal(name):
    return numpyro.sample(name, dist.Normal(0.0, 1.0))


def log_normal(y, mean, covariance):
    """A dense multivariate normal density."""
    scaled = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(covariance), y - mean, lower=True)
    return -0.5 * jnp.sum(scaled**2) - 0.5 * jnp.linalg.slogdet(2 * jnp.pi * covariance)[1]


def autoregression(y, on=True):
    a, q, r = normal("a"), normal("q"), normal("r")

    def step(x, now):
        t, y = now
        x = numpyro.sample("x", dist.Normal(a * x + 0.1 * t, jnp.exp(q)))
        with numpyro.handlers.mask(mask=jnp.asarray(on)[t] if np.ndim(on) else True):
            numpyro.sample("y", dist.Normal(2.0 * x + 1.0, jnp.exp(r)), obs=y)
        return x, None

    scan(step, 0.5, (jnp.arange(len(y)), y))


def exact_autoregression(theta, y=Y, on=ON):
    """The states are 0.5, a x + 0.1 t and so on: a linear map of the noise."""
    a, q, r = theta["a"], jnp.exp(theta["q"]), jnp.exp(theta["r"])
    steps = np.arange(len(y))
    powers = jnp.tril(a ** jnp.abs(steps[:, None] - steps))
    mean = powers @ (0.1 * steps) + 0.5 * a ** (steps + 1)
    covariance = 4 * q**2 * powers @ powers.T + r**2 * jnp.eye(len(y))
    kept = np.flatnonzero(on)
    return log_normal(y[kept], (2 * mean + 1)[kept], covariance[kept[:, None], kept])


def trend(y):
    """Level and slope; of the slope nothing is seen but by the level."""
    q, r = normal("q"), normal("r")

    def step(x, y):
        into = jnp.array([[1.0, 1.0], [0.0, 1.0]])
        x = numpyro.sample("x", dist.MultivariateNormal(into @ x, jnp.exp(q) * jnp.array([[1.0, 0.3], [0.3, 0.5]])))
        numpyro.sample("y", dist.Normal(x[0], jnp.exp(r)), obs=y)
        return x, None

    scan(step, jnp.zeros(2), y)


def exact_trend(theta, y=Y):
    noise = jnp.exp(theta["q"]) * np.array([[1.0, 0.3], [0.3, 0.5]])
    into = np.array([[1.0, 1.0], [0.0, 1.0]])
    n = len(y)
    blocks = [
        [np.linalg.matrix_power(into, i - j)[:1] if j <= i else np.zeros((1, 2)) for j in range(n)] for i in range(n)
    ]
    seen = np.block(blocks)
    covariance = seen @ jnp.kron(jnp.eye(n), noise) @ seen.T + jnp.exp(2 * theta["r"]) * jnp.eye(n)
    return log_normal(y, jnp.zeros(n), covariance)


def two_back(y):
    """Each value depends on the last two; three sequences side by side."""
    a, r = normal("a"), normal("r")

    def step(carry, y):
        before, last = carry
        with numpyro.plate("sequences", 3):
            x = numpyro.sample("x", dist.Normal(0.5 * last - a * before, 1.0))
            numpyro.sample("y", dist.Normal(x, jnp.exp(r)), obs=y)
        return (last, x), None

    scan(step, (jnp.zeros(3), jnp.ones(3)), y)


def exact_two_back(theta, y=PAIRS):
    n = len(y)
    back = jnp.eye(n) - 0.5 * np.eye(n, k=-1) + theta["a"] * np.eye(n, k=-2)
    start = jnp.zeros(n).at[0].set(0.5).at[1].set(-theta["a"])
    into = jnp.linalg.inv(back)
    covariance = into @ into.T + jnp.exp(2 * theta["r"]) * jnp.eye(n)
    return sum(log_normal(column, into @ start, covariance) for column in y.T)


def drifting(y):
    """A drift that all steps have in common, and an unknown start."""
    q, r = normal("q"), normal("r")
    drift = numpyro.sample("x_drift", dist.Normal(0.5, 2.0))
    start = numpyro.sample("x_start", dist.Normal(1.0, 3.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x + drift, jnp.exp(q)))
        numpyro.sample("y", dist.Normal(x, jnp.exp(r)), obs=y)
        return x, None

    scan(step, start, y)


def exact_drifting(theta, y=LONG):
    steps = 1.0 + np.arange(len(y))
    walk = jnp.exp(2 * theta["q"]) * np.minimum(steps[:, None], steps)
    covariance = walk + 4.0 * np.outer(steps, steps) + 9.0 + jnp.exp(2 * theta["r"]) * jnp.eye(len(y))
    return log_normal(y, 1.0 + 0.5 * steps, covariance)


def steps_added_up(y):
    """The states are sums of the sites: each step depends on the sites at all steps before, so these are one vector."""
    s = normal("s")

    def step(total, y):
        total = total + numpyro.sample("x", dist.Normal(0.0, jnp.exp(s)))
        numpyro.sample("y", dist.Normal(total, 0.5), obs=y)
        return total, None

    scan(step, 0.0, y)


def backward(y):
    s = normal("s")

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x, jnp.exp(s)))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
        return x, None

    scan(step, 0.0, y, reverse=True)


def walk(y):
    x = numpyro.sample("x", dist.GaussianRandomWalk(jnp.exp(normal("s")), len(y)))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def exact_walk(theta, y=Y):
    steps = 1.0 + np.arange(len(y))
    covariance = jnp.exp(2 * theta["s"]) * np.minimum(steps[:, None], steps) + 0.25 * jnp.eye(len(y))
    return log_normal(y, jnp.zeros(len(y)), covariance)


def crossed(y):
    """Effects of rows and of columns: no element of one is apart from the others."""
    s = normal("s")
    with numpyro.plate("rows", 7, dim=-2):
        of_row = numpyro.sample("x_row", dist.Normal(0.0, jnp.exp(s)))
    with numpyro.plate("columns", 3):
        of_column = numpyro.sample("x_column", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 7, dim=-2), numpyro.plate("columns", 3):
        numpyro.sample("y", dist.Normal(of_row + of_column, 0.5), obs=y)


def exact_crossed(theta, y=PAIRS):
    of_row = jnp.exp(2 * theta["s"]) * jnp.kron(jnp.eye(7), jnp.ones((3, 3)))
    covariance = of_row + jnp.kron(jnp.ones((7, 7)), jnp.eye(3)) + 0.25 * jnp.eye(21)
    return log_normal(y.ravel(), jnp.zeros(21), covariance)


def hierarchy(y):
    """A mean, means of rows around it, and observations of these: all means summed out."""
    t, r = normal("t"), normal("r")
    mu = numpyro.sample("mu", dist.Normal(1.0, 2.0))
    with numpyro.plate("rows", 7, dim=-2):
        m = numpyro.sample("m", dist.Normal(mu, jnp.exp(t)))
        with numpyro.plate("columns", 3):
            numpyro.sample("y", dist.Normal(m, jnp.exp(r)), obs=y)


def exact_hierarchy(theta, y=PAIRS):
    of_row = jnp.exp(2 * theta["t"]) * jnp.kron(jnp.eye(7), jnp.ones((3, 3)))
    covariance = 4.0 * jnp.ones((21, 21)) + of_row + jnp.exp(2 * theta["r"]) * jnp.eye(21)
    return log_normal(y.ravel(), jnp.ones(21), covariance)


def regression(x, y):
    """Weights, all of which each observation sees, written without an event; a random walk written as a loop."""
    t, r = normal("t"), normal("r")
    w = numpyro.sample("w", dist.Normal(jnp.zeros(3), jnp.exp(t)))
    walk = 0.0
    for i in range(len(y)):
        walk = numpyro.sample(f"walk{i}", dist.Normal(walk, 0.3))
        numpyro.sample(f"y{i}", dist.Normal(x[i] @ w + walk, jnp.exp(r)), obs=y[i])


def exact_regression(theta, x=PAIRS, y=Y):
    steps = np.arange(7)
    walk = 0.09 * (1.0 + np.minimum(steps[:, None], steps))
    covariance = jnp.exp(2 * theta["t"]) * x @ x.T + walk + jnp.exp(2 * theta["r"]) * jnp.eye(7)
    return log_normal(y, jnp.zeros(7), covariance)


CASES = {
    "scan": (autoregression, {"y": Y, "on": ON}, exact_autoregression, {"a": 0.8, "q": -0.4, "r": 0.2}, {"x": X}),
    "blocks": (
        autoregression,
        {"y": LONG, "on": np.arange(70) % 5 > 0},
        partial(exact_autoregression, y=LONG, on=np.arange(70) % 5 > 0),
        {"a": 0.8, "q": -0.4, "r": 0.2},
        {"x": X},
    ),
    "vector_states": (trend, {"y": Y}, exact_trend, {"q": -0.5, "r": 0.3}, {"x": X}),
    "two_steps_back": (two_back, {"y": PAIRS}, exact_two_back, {"a": 0.2, "r": 0.1}, {"x": X}),
    "outside_of_a_scan": (drifting, {"y": LONG}, exact_drifting, {"q": -0.5, "r": 0.3}, {"x*": X}),
    "steps_added_up": (steps_added_up, {"y": Y}, exact_walk, {"s": 0.2}, {"x": X}),
    "backward": (backward, {"y": Y}, partial(exact_walk, y=Y[::-1]), {"s": 0.2}, {"x": X}),
    "random_walk": (walk, {"y": Y}, exact_walk, {"s": 0.2}, {"x": X}),
    "crossed": (crossed, {"y": PAIRS}, exact_crossed, {"s": 0.2}, {"x*": X}),
    "plates": (hierarchy, {"y": PAIRS}, exact_hierarchy, {"t": 0.3, "r": -0.2}, {"m*": X}),
    "loop_and_weights": (
        regression,
        {"x": PAIRS, "y": Y},
        exact_regression,
        {"t": 0.3, "r": -0.2},
        {"w*": X},
    ),
}


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
