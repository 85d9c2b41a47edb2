"""The problems: a program with one site, the point at which its gradient is taken, and the exact gradient there.

Each is given as what is minimized. The exact values are sums over supports, closed forms and quadratures.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from autovi.objectives import Elbo, Expectation, Iwae, Objective
from benchmarks.estimators.counting import Mark


@dataclass(frozen=True, eq=False)
class Problem:
    """The gradient of an expectation in the parameters of one site's distribution.

    `model(mark)` is a loss as a function of the parameters, or a NumPyro model, `mark` around its cost; `exact(params)`
    the expectation itself; `marks` how many numbers are marked in one evaluation. `particles` is how many a step has
    at least; of an objective that is no mean over particles, exactly. `steps` is how long a training is drawn.
    """

    name: str
    says: str
    site: str
    model: Callable[[Mark], Any]
    params: Any
    exact: Callable[[Any], jax.Array]
    guide: Any = "auto"
    data: Any = None
    objective: Objective = field(default_factory=Expectation)
    particles: int = 1
    marks: int = 1
    group: str = ""  # problems of one figure, over `at`
    at: float = 0.0
    steps: int = 0

    @property
    def expected(self) -> bool:
        """Is it the expectation of a loss, and no bound?"""
        return isinstance(self.objective, Expectation)


# --- Bernoullis ---------------------------------------------------------------------------------------------------


def squares(name: str, says: str, logits: np.ndarray, targets: np.ndarray, scale: float, steps: int = 0) -> Problem:
    """scale sum (b - t)^2."""

    def model(mark: Mark) -> Callable:
        def loss(params: dict) -> jax.Array:
            b = numpyro.sample("b", dist.Bernoulli(logits=params["logits"]).to_event(1))
            return mark(scale * jnp.sum((b - jnp.asarray(targets)) ** 2))

        return loss

    def exact(params: dict) -> jax.Array:
        p = jax.nn.sigmoid(params["logits"])
        return scale * jnp.sum(p * (1 - targets) ** 2 + (1 - p) * targets**2)

    return Problem(name, says, "b", model, {"logits": logits}, exact, steps=steps)


def bernoullis() -> list[Problem]:
    """Those of the literature."""
    p = np.array([0.3, 0.5, 0.8])
    three = np.log(p) - np.log1p(-p)
    return [
        squares("toy", "E (b - .499)^2, one Bernoulli of 1/2", np.zeros(1), np.full(1, 0.499), 1.0, 5000),
        squares("three", "sum (b - (.2, .55, .9))^2 at (.3, .5, .8)", three, np.linspace(0.2, 0.9, 3), 1.0),
        squares("many", "mean (b - .499)^2, 200 Bernoullis of 1/2", np.zeros(200), np.full(200, 0.499), 1 / 200, 2000),
    ]


# --- other kinds of sites -----------------------------------------------------------------------------------------


def categorical() -> Problem:
    """One categorical site, its cost a table."""
    costs = np.array([1.0, -0.5, 0.3, 2.0, 0.0, 0.8, -1.2, 0.4])
    logits = np.array([0.5, 0.2, -0.4, -1.0, 1.1, 0.0, -0.3, -2.0])

    def model(mark: Mark) -> Callable:
        def loss(params: dict) -> jax.Array:
            return mark(jnp.asarray(costs)[numpyro.sample("z", dist.Categorical(logits=params["logits"]))])

        return loss

    exact = lambda params: jax.nn.softmax(params["logits"]) @ costs  # noqa: E731
    return Problem("categorical", "a table of 8 costs", "z", model, {"logits": logits}, exact)


def poisson() -> Problem:
    """A newsvendor's cost of a Poisson count. The support beyond 80 has a mass under 1e-40."""
    stock, support = 5.0, np.arange(80.0)
    cost = lambda z: 3.0 * jnp.maximum(z - stock, 0.0) + jnp.maximum(stock - z, 0.0)  # noqa: E731
    params = {"log_rate": np.log(np.array(4.0))}

    def model(mark: Mark) -> Callable:
        def loss(params: dict) -> jax.Array:
            z = numpyro.sample("z", dist.Poisson(jnp.exp(params["log_rate"])))
            return mark(cost(z.astype(float)))

        return loss

    def exact(params: dict) -> jax.Array:
        log_q = support * params["log_rate"] - jnp.exp(params["log_rate"]) - gammaln(support + 1)
        return jnp.exp(log_q) @ cost(support)

    return Problem("poisson", "a newsvendor's cost of a count of mean 4", "z", model, params, exact)


def gamma() -> Problem:
    """E (x - 2)^2 of a Gamma."""
    params = {"shape": np.array(3.0), "rate": np.array(2.0)}

    def model(mark: Mark) -> Callable:
        def loss(params: dict) -> jax.Array:
            return mark((numpyro.sample("x", dist.Gamma(params["shape"], params["rate"])) - 2.0) ** 2)

        return loss

    def exact(params: dict) -> jax.Array:
        mean = params["shape"] / params["rate"]
        return (mean - 2.0) ** 2 + mean / params["rate"]

    return Problem("gamma", "E (x - 2)^2 of Gamma(3, 2)", "x", model, params, exact)


def mixture(distance: float) -> Problem:
    """E x of two unit normals, in the logit of their weight."""
    params = {"logit": np.array(0.0)}
    locs = np.array([-distance, distance])

    def model(mark: Mark) -> Callable:
        def loss(params: dict) -> jax.Array:
            weights = dist.Categorical(logits=jnp.stack([jnp.zeros(()), params["logit"]]))
            parts = dist.Normal(jnp.asarray(locs), 1.0)
            return mark(numpyro.sample("x", dist.MixtureSameFamily(weights, parts)))

        return loss

    exact = lambda params: (2 * jax.nn.sigmoid(params["logit"]) - 1) * distance  # noqa: E731
    name, says = f"mixture at {distance:g}", f"E x of unit normals at {-distance:g} and {distance:g}"
    return Problem(name, says, "x", model, params, exact, group="mixture", at=distance)


# --- posteriors ---------------------------------------------------------------------------------------------------


def regression() -> Problem:
    """A logistic regression of 8 coefficients, its normal q near the optimum; the expected likelihood by quadrature of
    each row's predictor."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8))
    y = (rng.uniform(size=60) < 1 / (1 + np.exp(-X @ (0.7 * rng.normal(size=8))))).astype(float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def model(mark: Mark) -> Callable:
        def program(X: jax.Array, y: jax.Array) -> None:
            w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
            logits = X @ w
            numpyro.factor("rows", mark(jnp.sum(y * logits - jax.nn.softplus(logits))))

        return program

    def exact(params: dict) -> jax.Array:
        loc, scale = params["loc"], jnp.exp(params["log_scale"])
        at = (X @ loc)[:, None] + jnp.sqrt((X**2) @ scale**2)[:, None] * nodes
        likelihood = jnp.sum((y[:, None] * at - jax.nn.softplus(at)) @ weights)
        prior = jnp.sum(-0.5 * (loc**2 + scale**2) + params["log_scale"])
        return -(likelihood + prior)

    params = {"loc": np.zeros(8), "log_scale": np.full(8, -1.0)}
    for _ in range(60):  # down to near the optimum, and a little away again
        gradient = jax.grad(exact)(params)
        params = {n: params[n] - 0.05 * np.asarray(gradient[n]) for n in params}
    params = {n: np.asarray(v) + 0.1 * rng.normal(size=8) for n, v in params.items()}
    says = "8 coefficients of a logistic regression, q near its optimum"
    return Problem("regression", says, "w", model, params, exact, "mean_field", {"X": X, "y": y}, Elbo())


def importance_weighted() -> Problem:
    """The bound of two particles for a normal mean, by quadrature over both."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def model(mark: Mark) -> Callable:
        def program(y: jax.Array) -> None:
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
            numpyro.factor("y", mark(-0.5 * ((y - x) / 0.5) ** 2))

        return program

    def exact(params: dict) -> jax.Array:
        x = params["loc"] + jnp.exp(params["log_scale"]) * nodes
        log_q = -0.5 * nodes**2 - params["log_scale"] - 0.5 * np.log(2 * np.pi)
        log_p = -0.5 * x**2 - 0.5 * np.log(2 * np.pi) - 0.5 * ((1.2 - x) / 0.5) ** 2
        log_w = log_p - log_q
        return -(weights @ (jnp.logaddexp(log_w[:, None], log_w[None, :]) - np.log(2.0)) @ weights)

    params = {"loc": np.array([0.6]), "log_scale": np.array([-0.4])}
    says = "the importance-weighted bound of two particles, a normal mean"
    return Problem("iwae", says, "x", model, params, exact, "mean_field", {"y": np.array(1.2)}, Iwae(), 2)


def autoencoder() -> Problem:
    """A Bernoulli autoencoder of 8 codes and 20 images of 16 pixels at a fixed point; exact by all 256 codes."""
    rng = np.random.default_rng(1)
    codes, pixels, rows, hidden = 8, 16, 20, 12
    images = (rng.uniform(size=(rows, pixels)) < rng.uniform(0.1, 0.9, size=(1, pixels))).astype(float)
    encoder = {"W": rng.normal(size=(pixels, codes)) / np.sqrt(pixels), "b": 0.3 * rng.normal(size=codes)}
    first, second = rng.normal(size=(codes, hidden)) / np.sqrt(codes), 2 * rng.normal(size=(hidden, pixels))
    second = second / np.sqrt(hidden)

    def log_likelihood(code: jax.Array, x: jax.Array) -> jax.Array:
        logits = jax.nn.leaky_relu((2 * code - 1) @ jnp.asarray(first), 0.3) @ jnp.asarray(second)
        return jnp.sum(x * logits - jax.nn.softplus(logits), -1)

    def logits_of(params: dict, x: jax.Array) -> jax.Array:
        return (2 * x - 1) @ params["W"] + params["b"]

    def model(mark: Mark) -> Callable:
        def program(x: jax.Array) -> None:
            with numpyro.plate("image", rows):
                code = numpyro.sample("code", dist.Bernoulli(logits=jnp.zeros(codes)).to_event(1))
                numpyro.factor("pixels", mark(log_likelihood(code, x)))

        return program

    def guide(x: jax.Array) -> None:
        params = {name: numpyro.param(name, jnp.asarray(value)) for name, value in encoder.items()}
        with numpyro.plate("image", rows):
            numpyro.sample("code", dist.Bernoulli(logits=logits_of(params, x)).to_event(1))

    every = (np.arange(2**codes)[:, None] >> np.arange(codes)) & 1

    def exact(params: dict) -> jax.Array:
        logits = logits_of(params, images)
        log_q = every @ jax.nn.log_sigmoid(logits).T + (1 - every) @ jax.nn.log_sigmoid(-logits).T
        cost = log_likelihood(every[:, None], images) - codes * np.log(2.0) - log_q
        return -jnp.sum(jnp.exp(log_q) * cost)

    says = "a Bernoulli autoencoder at a fixed point: 8 codes of each of 20 images"
    return Problem("vae", says, "code", model, encoder, exact, guide, {"x": images}, Elbo(), marks=rows)


def problems() -> dict[str, Problem]:
    """By name."""
    found = [*bernoullis(), autoencoder(), categorical(), poisson(), gamma()]
    found += [mixture(d) for d in (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)]
    return {p.name: p for p in [*found, regression(), importance_weighted()]}
