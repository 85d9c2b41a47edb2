"""Targets whose log evidence is known: the funnel, two hierarchies and two logistic regressions, simulated.

`ELBO = log evidence - KL(q, posterior)`: what is missing to the evidence is how far the posterior is missed, in nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from benchmarks.accuracy import integrals
from benchmarks.accuracy.measuring import sampled


class Evidence(NamedTuple):
    """A log evidence in nats and its standard error."""

    value: float
    se: float


@dataclass(frozen=True)
class Target:
    """A model, its data, how its log evidence is found (in double precision), and how close the ELBO is to come."""

    model: Callable[..., None]
    data: Callable[[], dict[str, Any]]
    evidence: Callable[..., Evidence]
    aim: float
    guides: tuple[str, ...] = ("auto",)


def funnel():
    """Neal's funnel in ten dimensions, without data: v ~ Normal(0, 3), and nine x ~ Normal(0, exp(v / 2))."""
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    with numpyro.plate("x_plate", 9):
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(0.5 * v)))


def trials(estimate, error):
    """Effects of ten trials around a mean, with a scale of which little is known: log tau ~ Normal(0, 5)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 5.0))
    with numpyro.plate("trials", len(estimate)):
        effect = numpyro.sample("effect", dist.Normal(mean, tau))
        numpyro.sample("estimate", dist.Normal(effect, error), obs=estimate)


def trials_data() -> dict[str, Any]:
    """Ten estimates with standard errors of 6 to 15, of effects of standard deviation 4 around 5."""
    rng = np.random.default_rng(61)
    error = np.round(rng.uniform(6, 15, 10))
    return {"estimate": np.round(5 + 4 * rng.normal(size=10) + error * rng.normal(size=10), 1), "error": error}


def trials_evidence(estimate, error) -> Evidence:
    """Given tau the effects and their mean integrate out: a normal of covariance error^2 + tau^2 + 25 between all. What
    is left, over log tau, has a normal prior: the trapezoid rule is exact to rounding."""

    def given(log_tau):
        cov = jnp.diag(error**2 + jnp.exp(2 * log_tau)) + 25.0
        return dist.MultivariateNormal(jnp.zeros(len(estimate)), cov).log_prob(estimate)

    grid = jnp.linspace(-50.0, 50.0, 801)
    terms = dist.Normal(0.0, 5.0).log_prob(grid) + jax.vmap(given)(grid)
    return Evidence(float(logsumexp(terms) + jnp.log(grid[1] - grid[0])), 0.0)


def dishes(X, total, grown):
    """Random-effects logistic regression in 26 dimensions, with the vague prior on a precision that BUGS made usual."""
    precision = numpyro.sample("precision", dist.Gamma(0.01, 0.01))
    a = numpyro.sample("a", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("dishes", len(total)):
        b = numpyro.sample("b", dist.Normal(0.0, precision**-0.5))
        numpyro.sample("grown", dist.Binomial(total, logits=X @ a + b), obs=grown)


def dishes_data() -> dict[str, Any]:
    """21 dishes of 5 to 80 seeds, two treatments and their product; effects of standard deviation 0.35."""
    rng = np.random.default_rng(62)
    one, two = (np.arange(21) % 2).astype(float), (np.arange(21) % 3 == 0).astype(float)
    X = np.stack([np.ones(21), one, two, one * two], axis=1)
    total = rng.integers(5, 81, 21)
    logits = X @ np.array([-0.4, 0.2, 1.0, -0.6]) + 0.35 * rng.normal(size=21)
    return {"X": X, "total": total, "grown": rng.binomial(total, 1 / (1 + np.exp(-logits)))}


def dishes_evidence(X, total, grown, nodes: int = 128, draws: int = 2000) -> Evidence:
    """Effects by the trapezoid rule, coefficients by importance sampling at each point of a grid over log precision."""
    z = jnp.linspace(-6.5, 6.5, nodes)
    weights = dist.Normal(0.0, 1.0).log_prob(z) + jnp.log(z[1] - z[0])

    def given(a, log_precision):
        """log p(grown | a, precision), the effects integrated out."""
        logits = (X @ a)[:, None] + jnp.exp(-0.5 * log_precision) * z
        likelihood = dist.Binomial(total[:, None], logits=logits).log_prob(grown[:, None])
        return logsumexp(likelihood + weights, axis=1).sum()

    def joint(a, log_precision):
        return given(a, log_precision) + dist.Normal(0.0, 10.0).log_prob(a).sum()

    def at(log_precision, key):
        """log p(grown, log precision), and the variance of its estimate."""
        found = integrals.by_laplace(lambda a: joint(a, log_precision), jnp.zeros(X.shape[1]), key, draws)
        prior = dist.Gamma(0.01, 0.01).log_prob(jnp.exp(log_precision)) + log_precision
        return found[0] + prior, found[1] ** 2

    # Both ends weigh nothing: effects of standard deviation 2.1, and a prior of exp(-0.01 exp(8)).
    grid = jnp.linspace(-1.5, 8.0, 65)
    keys = jax.random.split(jax.random.key(0), len(grid))
    values, variances = jax.lax.map(lambda pair: at(*pair), (grid, keys))
    shares = jax.nn.softmax(values)
    total_value = logsumexp(values) + jnp.log(grid[1] - grid[0])
    return Evidence(float(total_value), float(jnp.sqrt(jnp.sum(shares**2 * variances))))


def logistic(X, y):
    """Logistic regression with standard normal priors."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=X @ beta).to_event(1), obs=y)


def logistic_data(rows: int, columns: int, size: float, seed: int) -> dict[str, Any]:
    """Five rows or less for each of the columns, which are correlated: the posterior is skewed."""
    rng = np.random.default_rng(seed)
    X = 0.8 * rng.normal(size=(rows, columns)) + 0.6 * rng.normal(size=(rows, 1))
    X[:, 0] = 1.0
    logits = X @ rng.normal(size=columns) * size / columns**0.5
    return {"X": X, "y": (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)}


def logistic_evidence(X, y) -> Evidence:
    """Importance sampling from a Student-t with mean and covariance as NUTS finds them (4 chains of 1,000 + 2,000)."""

    def joint(beta):
        prior = dist.Normal(0.0, 1.0).log_prob(beta).sum()
        return prior + dist.Bernoulli(logits=X @ beta).log_prob(y).sum()

    beta = sampled(logistic, {"X": X, "y": y}, seed=0, samples=2000)[1]["beta"]
    return Evidence(*integrals.by_moments(joint, beta.mean(axis=0), np.cov(beta.T), jax.random.key(0)))


TARGETS = {
    "funnel": Target(funnel, dict, lambda: Evidence(0.0, 0.0), 0.1),
    "trials": Target(trials, trials_data, trials_evidence, 0.1),
    "dishes": Target(dishes, dishes_data, dishes_evidence, 0.2),
    "logistic_35": Target(
        logistic, lambda: logistic_data(150, 35, 2.5, 63), logistic_evidence, 0.3, ("auto", "full_rank", "flow")
    ),
    "logistic_60": Target(
        logistic, lambda: logistic_data(300, 60, 2.0, 63), logistic_evidence, 0.3, ("auto", "full_rank", "flow")
    ),
}
