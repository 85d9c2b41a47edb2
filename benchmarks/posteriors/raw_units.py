"""Regressions on columns as they come: years, dollars, columns that nearly repeat one another."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from benchmarks.posteriors.base import Data, Posterior

WIDE = 1e7  # standard deviation of a prior that says nothing, whatever the unit


def _coefficients(X):
    return numpyro.sample("beta", dist.Normal(0.0, WIDE).expand([X.shape[1]]).to_event(1))


def _coefficients_by_qr(X, unit=1.0):
    """The same prior, in coordinates in which the columns are orthonormal and the outcome has unit scale
    (a linear map: its Jacobian is constant)."""
    R = jnp.linalg.qr(jnp.asarray(X) / len(X) ** 0.5)[1]
    gamma = numpyro.sample("gamma", dist.ImproperUniform(constraints.real_vector, (), (X.shape[1],)))
    beta = numpyro.deterministic("beta", jnp.linalg.solve(R, unit * gamma))
    numpyro.factor("prior", dist.Normal(0.0, WIDE).log_prob(beta).sum())
    return beta


def _linear(coefficients, unit):
    def linear(X, y):
        """Normal errors whose standard deviation has a prior as wide as the outcome's."""
        beta = coefficients(X)
        sigma = numpyro.sample("sigma", dist.HalfNormal(unit))
        numpyro.sample("y", dist.Normal(X @ beta, sigma).to_event(1), obs=y)

    return linear


def _linear_by_qr(unit):
    def linear(X, y):
        """The same with the standard deviation in its own unit."""
        beta = _coefficients_by_qr(X, unit)
        log_sigma = numpyro.sample("log_sigma", dist.ImproperUniform(constraints.real, (), ()))
        sigma = numpyro.deterministic("sigma", unit * jnp.exp(log_sigma))
        numpyro.factor("sigma_prior", dist.HalfNormal(unit).log_prob(sigma) + log_sigma)
        numpyro.sample("y", dist.Normal(X @ beta, sigma).to_event(1), obs=y)

    return linear


def _logistic(coefficients):
    def logistic(X, y):
        """A logistic regression."""
        numpyro.sample("y", dist.Bernoulli(logits=X @ coefficients(X)).to_event(1), obs=y)

    return logistic


def _poisson(coefficients):
    def poisson(X, y):
        """A Poisson regression."""
        numpyro.sample("y", dist.Poisson(jnp.exp(X @ coefficients(X))).to_event(1), obs=y)

    return poisson


def _design(*columns):
    return np.stack([np.ones(len(columns[0])), *columns], axis=1)


def years_data() -> Data:
    """A temperature by calendar year, 1901 to 2020."""
    year = np.arange(1901.0, 2021.0)
    return {"X": _design(year), "y": 8.0 + 0.012 * (year - 1960) + np.random.default_rng(51).normal(0, 0.6, 120)}


def incomes_data() -> Data:
    """Income in dollars by years of school, age and its square."""
    rng = np.random.default_rng(52)
    school, age = rng.integers(8, 21, 300).astype(float), rng.uniform(20, 65, 300)
    mean = -30_000 + 3_000 * school + 1_800 * age - 18 * age**2
    return {"X": _design(school, age, age**2), "y": mean + rng.normal(0, 15_000, 300)}


def collinear_data() -> Data:
    """Length and width in millimetres, correlated at 0.9995, and their sum in inches with an error of measurement."""
    rng = np.random.default_rng(53)
    length = rng.normal(150.0, 12.0, 90)
    width = 0.6 * length + rng.normal(0, 0.25, 90)
    around = (length + width) / 25.4 + rng.normal(0, 0.02, 90)
    return {"X": _design(length, width, around), "y": 5.0 + 0.3 * length + rng.normal(0, 3.0, 90)}


def loans_data() -> Data:
    """Repaid or not, by income in dollars and the year of the loan."""
    rng = np.random.default_rng(54)
    income, year = np.exp(rng.normal(10.8, 0.5, 400)), rng.integers(1995, 2021, 400).astype(float)
    logits = -0.5 + 2.5e-5 * (income - 50_000) - 0.08 * (year - 2008)
    return {"X": _design(income, year), "y": (rng.random(400) < 1 / (1 + np.exp(-logits))).astype(int)}


def accidents_data() -> Data:
    """Accidents a year, 1960 to 2020, falling."""
    year = np.arange(1960.0, 2021.0)
    rate = np.exp(2.5 - 0.025 * (year - 1990))
    return {"X": _design(year), "y": np.random.default_rng(55).poisson(rate)}


def _of(make, data, *settings):
    return Posterior(make(_coefficients, *settings), data, ("beta",), make(_coefficients_by_qr, *settings))


def _of_linear(data, unit):
    return Posterior(_linear(_coefficients, unit), data, ("beta", "sigma"), _linear_by_qr(unit))


POSTERIORS = {
    "raw_years": _of_linear(years_data, 10.0),
    "raw_incomes": _of_linear(incomes_data, 50_000.0),
    "raw_collinear": _of_linear(collinear_data, 10.0),
    "raw_loans": _of(_logistic, loans_data),
    "raw_accidents": _of(_poisson, accidents_data),
}
