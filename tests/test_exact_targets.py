"""Normal posteriors, of any correlation, unit and dimension: `autovi.fit` without settings must be exact on them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import autovi

DRAWS = 4000
# Of d dimensions of a normal, means of 4,000 draws are off by z / sqrt(4000) and log sds by z / sqrt(8000) for a
# standard normal z; of at most 500 of each in a case |z| is above 6.5 with probability 8e-8.
Z = 6.5


def covariance(d: int, condition: float, orders: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A mean and a covariance: a correlation matrix of about this condition number, in units over so many orders of
    magnitude, away from zero by up to five sds."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0] * condition ** (-0.5 * np.linspace(0, 1, d))
    tril = turned @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    cov = tril @ tril.T
    units = 10.0 ** rng.uniform(-orders / 2, orders / 2, d)
    sd = np.sqrt(np.diag(cov))
    return rng.uniform(-5, 5, d) * units, cov / np.outer(sd, sd) * np.outer(units, units)


def by_factor(mean, cov):
    """A model whose log density is that of the normal, up to a constant that makes the evidence 3."""
    precision = np.linalg.inv(cov)
    constant = 3.0 - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]

    def model():
        x = numpyro.sample("x", dist.ImproperUniform(constraints.real_vector, (), (len(mean),)))
        r = x - jnp.asarray(mean)
        numpyro.factor("density", constant - 0.5 * r @ jnp.asarray(precision) @ r)

    return model, 3.0


def by_prior(mean, cov):
    """A model without data, whose posterior is its prior: evidence 0."""
    tril = np.linalg.cholesky(cov)

    def model():
        numpyro.sample("x", dist.MultivariateNormal(jnp.asarray(mean), scale_tril=jnp.asarray(tril)))

    return model, 0.0


def by_sites(mean, cov):
    """The normal as scalar sites, each given the former ones; evidence 0."""
    tril = np.linalg.cholesky(cov)

    def model():
        noise: list[Any] = []
        for i in range(len(mean)):
            loc = mean[i] + sum(tril[i, j] * e for j, e in enumerate(noise))
            x = numpyro.sample(f"x{i}", dist.Normal(loc, tril[i, i]))
            noise.append((x - loc) / tril[i, i])

    return model, 0.0


def check(fit, draws, mean, cov, evidence):
    """Means, standard deviations, correlations and ELBO, within the noise of the draws."""
    sd = np.sqrt(np.diag(cov))
    assert np.abs((draws.mean(0) - mean) / sd).max() < Z / DRAWS**0.5
    assert np.abs(np.log(draws.std(0, ddof=1) / sd)).max() < Z / (2 * DRAWS) ** 0.5
    # Whitened draws are standard normal in every direction, those of the least variance too.
    white = np.linalg.solve(np.linalg.cholesky(cov), (draws - mean).T)
    assert np.abs(white.mean(1)).max() < Z / DRAWS**0.5
    assert np.abs(np.log(white.std(1, ddof=1))).max() < Z / (2 * DRAWS) ** 0.5
    assert fit.elbo == pytest.approx(evidence, abs=0.01)
    assert fit.status == "converged"


CASES = {
    "two, correlated at 0.999": (2, 2000.0, 0.0),
    "three, in units over twelve orders": (3, 10.0, 12.0),
    "ten, of condition number 1e4": (10, 1e4, 0.0),
    "ten, of condition number 1e4, in units over six orders": (10, 1e4, 6.0),
    "fifty": (50, 100.0, 2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("written", [by_factor, by_prior])
def test_a_normal_posterior_is_exact(case, written):
    d, condition, orders = CASES[case]
    mean, cov = covariance(d, condition, orders, seed=1)
    model, evidence = written(mean, cov)
    fit = autovi.fit(model, progress_bar=False)
    check(fit, np.asarray(fit.sample(DRAWS)["x"], float), mean, cov, evidence)


@pytest.mark.slow
@pytest.mark.parametrize("d", [200, 500])
def test_a_normal_posterior_of_many_dimensions_is_exact(d):
    mean, cov = covariance(d, 100.0, 2.0, seed=2)
    model, evidence = by_prior(mean, cov)
    fit = autovi.fit(model, progress_bar=False)
    check(fit, np.asarray(fit.sample(DRAWS)["x"], float), mean, cov, evidence)


@pytest.mark.slow
def test_a_regression_of_more_dimensions_than_a_matrix_affords_is_exact(tmp_path):
    """700 coefficients in units over four orders, 25 rows: the posterior is the prior but in 25 directions."""
    rng = np.random.default_rng(5)
    units, rows = 10.0 ** rng.uniform(-2.0, 2.0, 700), 25
    X = rng.normal(size=(rows, 700)) / units
    y = (X @ (rng.normal(size=700) * units) * 0.3 + rng.normal(size=rows)).astype(np.float32)

    def model(X, y):
        b = numpyro.sample("b", dist.Normal(0.0, jnp.asarray(units, jnp.float32)).to_event(1))
        numpyro.sample("y", dist.Normal(X @ b, 1.0).to_event(1), obs=y)

    data = {"X": X.astype(np.float32), "y": y}
    fit = autovi.fit(model, data, progress_bar=False)
    marginal = np.eye(rows) + (X * units**2) @ X.T
    cov = np.diag(units**2) - (units[:, None] ** 2 * X.T) @ np.linalg.solve(marginal, X * units**2)
    mean, sd = cov @ X.T @ y, np.sqrt(np.diag(cov))
    evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2 * np.pi * marginal)[1])
    assert [r.name for r in fit.rungs] == ["mode", "curvature", "laplace"]
    assert abs(fit.elbo - evidence) < 0.05 and fit.verdict.word == "good"
    draws = np.asarray(fit.sample(DRAWS)["b"], float)
    assert np.abs((draws.mean(0) - mean) / sd).max() < 6 / DRAWS**0.5
    assert np.abs(np.log(draws.std(0) / sd)).max() < 6 / (2 * DRAWS) ** 0.5
    # What the file holds is the same q.
    fit.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", model)
    np.testing.assert_allclose(loaded.sample(10)["b"], fit.sample(10)["b"], rtol=1e-5)
    assert any(name.endswith("map.vectors") for name in fit.params)


@pytest.mark.slow
def test_a_normal_posterior_of_many_sites_is_exact():
    mean, cov = covariance(6, 1000.0, 4.0, seed=3)
    model, evidence = by_sites(mean, cov)
    fit = autovi.fit(model, progress_bar=False)
    values = fit.sample(DRAWS)
    draws = np.stack([np.asarray(values[f"x{i}"], float) for i in range(6)], axis=1)
    check(fit, draws, mean, cov, evidence)


@pytest.mark.slow
def test_linear_regression_with_known_noise_is_exact():
    """A posterior in closed form with data: raw years, an outcome in its own unit, a prior as wide as that."""
    year = np.arange(1950.0, 2020.0)
    X = np.stack([np.ones(70), year], axis=1)
    y = 300.0 + 2.0 * (year - 1985) + 20.0 * np.random.default_rng(4).normal(size=70)
    prior = np.array([1e5, 1e3])

    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0.0, jnp.asarray(prior)).to_event(1))
        numpyro.sample("y", dist.Normal(X @ beta, 20.0).to_event(1), obs=y)

    cov = np.linalg.inv(X.T @ X / 400.0 + np.diag(prior**-2.0))
    mean = cov @ X.T @ y / 400.0
    marginal = 400.0 * np.eye(70) + (X * prior**2) @ X.T
    solved = np.linalg.solve(marginal, y)
    evidence = -0.5 * (y @ solved + np.linalg.slogdet(2 * np.pi * marginal)[1])
    fit = autovi.fit(model, {"X": X, "y": y}, progress_bar=False)
    check(fit, np.asarray(fit.sample(DRAWS)["beta"], float), mean, cov, evidence)
