"""Continuous sites with conjugate algebra: normal, gamma, beta, Dirichlet, and a Student t guide."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln

from .base import (
    Oracle,
    declare,
    dirichlet_mean_log,
    expected_dirichlet,
    expected_gamma,
    expected_normal,
    gamma_moments,
    normal_entropy,
)


def _normal_normal() -> Oracle:
    """mu ~ N(0, 2), x_i ~ N(mu, 1), guide N(loc, exp(log_scale))."""
    data = np.array([0.9, 2.1, 1.4])
    params = {"loc": np.array(0.4), "log_scale": np.array(0.2)}

    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("N", 3):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        numpyro.sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))

    def exact_elbo(p):
        scale = jnp.exp(p["log_scale"])
        prior = expected_normal(p["loc"], 0.0, 2.0, scale**2)
        return prior + expected_normal(data, p["loc"], 1.0, scale**2).sum() + normal_entropy(scale)

    return Oracle(
        "normal_normal",
        model,
        guide,
        {"x": data},
        params,
        exact_elbo,
        {"mu": ("explicit", "score", "dreg", "taylor_cv", "lax")},
    )


def _regression() -> Oracle:
    """w ~ N(0, 2) in two dimensions, y ~ N(X w, 0.8), guide independent normals."""
    x = np.array([[1.0, 0.3], [-0.5, 1.2], [0.0, 0.0], [1.5, -0.7]])
    data = {"x": x, "y": np.array([0.7, -1.1, 0.2, 1.9])}
    params = {"loc": np.array([-0.4, -0.6]), "log_scale": np.array([-0.5, -0.8])}

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with numpyro.plate("N", 4):
            numpyro.sample("y", dist.Normal(jnp.asarray(x) @ w, 0.8), obs=jnp.asarray(y))

    def guide(x, y):
        p = declare(params)
        numpyro.sample("w", dist.Normal(p["loc"], jnp.exp(p["log_scale"])).to_event(1))

    def exact_elbo(p):
        scale = jnp.exp(p["log_scale"])
        rows = expected_normal(data["y"], x @ p["loc"], 0.8, x**2 @ scale**2)
        return expected_normal(p["loc"], 0.0, 2.0, scale**2).sum() + rows.sum() + normal_entropy(scale).sum()

    estimators = {"w": ("explicit", "local", "r2g2", "taylor_cv")}
    return Oracle("regression", model, guide, data, params, exact_elbo, estimators)


def _student_t() -> Oracle:
    """mu ~ N(0, 2), x_i ~ N(mu, 1) as above; guide StudentT(exp(log_df), loc, exp(log_scale)).

    The log density is quadratic, so only the variance s^2 df / (df - 2) and the entropy of the t enter. At
    the test point df is 9, so that the cost, of order mu^2, has a fourth moment and its z-tests a normal
    limit.
    """
    data = np.array([0.9, 2.1, 1.4])
    params = {"log_df": np.log(np.array(9.0)), "loc": np.array(0.4), "log_scale": np.array(0.2)}

    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("N", 3):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        numpyro.sample("mu", dist.StudentT(jnp.exp(p["log_df"]), p["loc"], jnp.exp(p["log_scale"])))

    def exact_elbo(p):
        df, scale = jnp.exp(p["log_df"]), jnp.exp(p["log_scale"])
        var = scale**2 * df / (df - 2)
        log_beta = gammaln(df / 2) + 0.5 * np.log(np.pi) - gammaln((df + 1) / 2)
        digammas = digamma((df + 1) / 2) - digamma(df / 2)
        entropy = (df + 1) / 2 * digammas + 0.5 * jnp.log(df) + log_beta + jnp.log(scale)
        prior = expected_normal(p["loc"], 0.0, 2.0, var)
        return prior + expected_normal(data, p["loc"], 1.0, var).sum() + entropy

    return Oracle(
        "student_t", model, guide, {"x": data}, params, exact_elbo, {"mu": ("implicit", "score", "dreg", "lax")}
    )


def _gamma_poisson() -> Oracle:
    """rate ~ Gamma(2, 1), y_i ~ Poisson(rate), guide Gamma(exp(log_a), exp(log_b))."""
    data = np.array([3, 5, 2, 4])
    params = {"log_a": np.log(np.array(5.0)), "log_b": np.log(np.array(2.2))}

    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("N", 4):
            numpyro.sample("y", dist.Poisson(rate), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        numpyro.sample("rate", dist.Gamma(jnp.exp(p["log_a"]), jnp.exp(p["log_b"])))

    def exact_elbo(p):
        a, b = jnp.exp(p["log_a"]), jnp.exp(p["log_b"])
        mean_log, mean = gamma_moments(a, b)
        log_lik = data.sum() * mean_log - len(data) * mean - gammaln(data + 1.0).sum()
        return expected_gamma(2.0, 1.0, mean_log, mean) - expected_gamma(a, b, mean_log, mean) + log_lik

    sites = {"rate": ("implicit", "score", "rsvi", "g_rep", "measure_valued", "lax")}
    return Oracle("gamma_poisson", model, guide, {"y": data}, params, exact_elbo, sites)


def _beta_binomial() -> Oracle:
    """p ~ Beta(2, 2), k ~ Binomial(10, p), guide Beta(exp(log_a), exp(log_b))."""
    data = np.array(7)
    params = {"log_a": np.log(np.array(2.5)), "log_b": np.log(np.array(3.5))}
    log_choose = np.log(120.0)

    def model(k):
        p = numpyro.sample("p", dist.Beta(2.0, 2.0))
        numpyro.sample("k", dist.Binomial(10, p), obs=jnp.asarray(k))

    def guide(k):
        p = declare(params)
        numpyro.sample("p", dist.Beta(jnp.exp(p["log_a"]), jnp.exp(p["log_b"])))

    def exact_elbo(p):
        alpha = jnp.exp(jnp.stack([p["log_a"], p["log_b"]]))
        mean_log = dirichlet_mean_log(alpha)
        log_lik = log_choose + 7 * mean_log[0] + 3 * mean_log[1]
        return expected_dirichlet(jnp.full(2, 2.0), mean_log) - expected_dirichlet(alpha, mean_log) + log_lik

    return Oracle(
        "beta_binomial",
        model,
        guide,
        {"k": data},
        params,
        exact_elbo,
        {"p": ("implicit", "score", "rsvi", "g_rep", "lax")},
    )


def _dirichlet_categorical() -> Oracle:
    """p ~ Dirichlet(1.5, 1, 0.8), y_i ~ Categorical(p), guide Dirichlet(exp(log_alpha))."""
    data = np.array([0, 2, 2, 1, 2, 0])
    counts = np.bincount(data, minlength=3)
    prior = np.array([1.5, 1.0, 0.8])
    params = {"log_alpha": np.log(np.array([1.5, 3.0, 2.0]))}

    def model(y):
        p = numpyro.sample("p", dist.Dirichlet(jnp.asarray(prior)))
        with numpyro.plate("N", len(data)):
            numpyro.sample("y", dist.Categorical(p), obs=jnp.asarray(y))

    def guide(y):
        numpyro.sample("p", dist.Dirichlet(jnp.exp(declare(params)["log_alpha"])))

    def exact_elbo(p):
        alpha = jnp.exp(p["log_alpha"])
        mean_log = dirichlet_mean_log(alpha)
        prior_term = expected_dirichlet(jnp.asarray(prior), mean_log)
        return prior_term - expected_dirichlet(alpha, mean_log) + (counts * mean_log).sum()

    sites = {"p": ("implicit", "score", "rsvi", "g_rep", "lax")}
    return Oracle("dirichlet_categorical", model, guide, {"y": data}, params, exact_elbo, sites)


ORACLES: tuple[Oracle, ...] = (
    _normal_normal(),
    _regression(),
    _student_t(),
    _gamma_poisson(),
    _beta_binomial(),
    _dirichlet_categorical(),
)
