"""Linear Gaussian programs of which some normal sites leave the guide, and their densities as dense normals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

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
