"""Fits with default settings recover known posteriors."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import digamma

import autovi
from examples import coal_mining

DRAWS = 200_000  # the Monte Carlo error of a standard deviation is then 0.16 %


def normal_normal():
    y = np.random.default_rng(0).normal(1.5, 2.0, 25)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.5, 3.0))
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(mu, 2.0), obs=y)

    precision = 1 / 9 + 25 / 4
    mean = (0.5 / 9 + y.sum() / 4) / precision
    return model, {"y": y}, "mu", mean, precision**-0.5


def gamma_poisson():
    y = np.random.default_rng(1).poisson(4.0, 12)

    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    exact = stats.gamma(2.0 + y.sum(), scale=1 / 13)
    return model, {"y": y}, "rate", exact.mean(), exact.std()


def beta_binomial():
    def model(y):
        p = numpyro.sample("p", dist.Beta(2.0, 3.0))
        numpyro.sample("y", dist.Binomial(20, p), obs=y)

    exact = stats.beta(2 + 4, 3 + 16)
    return model, {"y": np.array(4)}, "p", exact.mean(), exact.std()


def dirichlet_categorical():
    y = np.repeat([0, 1, 2], [7, 2, 11])

    def model(y):
        p = numpyro.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Categorical(p), obs=y)

    exact = stats.dirichlet([8, 4, 14])
    return model, {"y": y}, "p", exact.mean(), exact.var() ** 0.5


@pytest.mark.parametrize("problem", [normal_normal, gamma_poisson, beta_binomial, dirichlet_categorical])
def test_conjugate_posterior(problem):
    model, data, site, mean, sd = problem()
    fit = autovi.fit(model, data, progress_bar=False)
    assert fit.status == "converged", fit.message
    draws = fit.sample(DRAWS)[site].astype(np.float64)
    np.testing.assert_allclose(draws.mean(0), mean, rtol=0.02)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.02)
    # The family holds the posterior, so the bound is tight and its weights are nearly constant.
    assert fit.khat < 0.5 or fit.efficiency > 0.99
    assert fit.elbo_se < 0.01


def switch_distance(fit, exact):
    """Total variation between the fit's draws of the switch year and a distribution over years."""
    switch = fit.sample(20_000, resample=False)["switch"]
    shares = {year: np.mean(switch == year) for year in exact}
    assert sum(shares.values()) == pytest.approx(1.0)
    return 0.5 * sum(abs(shares[year] - p) for year, p in exact.items())


@pytest.mark.slow
def test_coal_mining_switch_point():
    fit = autovi.fit(coal_mining.model, {"counts": coal_mining.COUNTS}, progress_bar=False)
    assert fit.plan["switch"].estimator == "marginalize"
    assert switch_distance(fit, coal_mining.exact_switch_posterior()) < 0.03


@pytest.mark.slow
def test_enumerated_switch_point_reaches_the_mean_field_optimum():
    """With q(switch) q(early) q(late) the best the family can do is the fixed point of coordinate ascent, in closed
    form: gammas for the rates given q(switch), and log q(switch) the expected log joint."""
    counts = coal_mining.COUNTS
    years = np.arange(coal_mining.FIRST, coal_mining.LAST)
    early = np.arange(counts.size)[None, :] <= np.arange(years.size)[:, None]
    q = np.full(years.size, 1 / years.size)
    for _ in range(500):
        share = q @ early
        a, b = 1 + share @ counts, 1 + share.sum()
        c, d = 1 + (1 - share) @ counts, 1 + (1 - share).sum()
        log_joint = early @ (counts * (digamma(a) - np.log(b)) - a / b)
        log_joint += ~early @ (counts * (digamma(c) - np.log(d)) - c / d)
        q = np.exp(log_joint - log_joint.max())
        q /= q.sum()
    data = {"counts": counts}
    own = {"early": "gamma", "late": "gamma"}
    fit = autovi.fit(coal_mining.model, data, families=own, estimators={"switch": "enumerate"}, progress_bar=False)
    assert switch_distance(fit, dict(zip(years.tolist(), q.tolist(), strict=True))) < 0.02
