"""Discrete and continuous sites together: side by side, one above the other, and a change point."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from .base import (
    CATEGORICAL,
    LINEAR,
    Oracle,
    bernoulli_log_pmf,
    declare,
    expected_gamma,
    expected_normal,
    gamma_moments,
    log_gamma_nodes,
    logit,
    normal_entropy,
    standard_normal_nodes,
)


def _categorical_normal() -> Oracle:
    """z ~ Categorical, mu ~ N(0, 1), x ~ N(loc_z + mu, 0.8); the guide has them independent."""
    data = np.array(1.2)
    locs, probs = np.array([-2.0, 0.0, 1.5]), np.array([0.2, 0.5, 0.3])
    params = {"logits": np.array([0.3, -0.5, 0.1]), "loc": np.array(-0.3), "log_scale": np.array(-0.1)}

    def model(x):
        z = numpyro.sample("z", dist.Categorical(jnp.asarray(probs)))
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(jnp.asarray(locs)[z] + mu, 0.8), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        numpyro.sample("z", dist.Categorical(logits=p["logits"]))
        numpyro.sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))

    def mu_terms(p):
        scale = jnp.exp(p["log_scale"])
        return expected_normal(p["loc"], 0.0, 1.0, scale**2) + normal_entropy(scale)

    def exact_elbo(p):
        log_q = jax.nn.log_softmax(p["logits"])
        log_lik = expected_normal(data, locs + p["loc"], 0.8, jnp.exp(2 * p["log_scale"]))
        return mu_terms(p) + (jnp.exp(log_q) * (np.log(probs) - log_q + log_lik)).sum()

    def exact_marginal(p):
        nodes, weights = standard_normal_nodes()
        mu = p["loc"] + jnp.exp(p["log_scale"]) * nodes
        log_joint = np.log(probs)[None, :] + expected_normal(data, locs[None, :] + mu[:, None], 0.8)
        return mu_terms(p) + weights @ jax.nn.logsumexp(log_joint, axis=-1)

    sites = {
        "z": ("score", "enumerate", "marginalize", *CATEGORICAL, *LINEAR),
        "mu": ("explicit", "score", "dreg", "taylor_cv"),
    }
    return Oracle("categorical_normal", model, guide, {"x": data}, params, exact_elbo, sites, exact_marginal)


def _discrete_above_normal() -> Oracle:
    """z ~ Bern, x ~ N(2 z - 1, 1), y ~ N(x, 0.8).

    In the guide x ~ N(m_z, s), so log q(x | z) belongs to what z costs.
    """
    data = np.array(0.9)
    centres = np.array([-1.0, 1.0])
    params = {"logit": np.array(-0.4), "m": np.array([-0.5, 0.3]), "log_s": np.array(-0.2)}

    def model(y):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        x = numpyro.sample("x", dist.Normal(jnp.asarray(centres)[z], 1.0))
        numpyro.sample("y", dist.Normal(x, 0.8), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        z = numpyro.sample("z", dist.Bernoulli(logits=p["logit"]))
        numpyro.sample("x", dist.Normal(p["m"][z], jnp.exp(p["log_s"])))

    def exact_elbo(p):
        scale = jnp.exp(p["log_s"])
        log_q = bernoulli_log_pmf(p["logit"])
        x_terms = expected_normal(p["m"], centres, 1.0, scale**2) + normal_entropy(scale)
        log_lik = expected_normal(data, p["m"], 0.8, scale**2)
        return (jnp.exp(log_q) * (bernoulli_log_pmf(logit(0.4)) - log_q + x_terms + log_lik)).sum()

    sites = {"z": ("score", "enumerate"), "x": ("explicit", "score", "taylor_cv", "lax")}
    return Oracle("discrete_above_normal", model, guide, {"y": data}, params, exact_elbo, sites)


def _normal_above_discrete() -> Oracle:
    """x ~ N(0, 1), z ~ Bern(logits = 0.8 x - 0.3), y ~ N(x + 1.5 z, 0.9).

    In the guide z ~ Bern(logits = a + b x).
    """
    data = np.array(1.7)
    params = {"m": np.array(-0.2), "log_s": np.array(-0.3), "a": np.array(-0.6), "b": np.array(1.1)}

    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Bernoulli(logits=0.8 * x - 0.3))
        numpyro.sample("y", dist.Normal(x + 1.5 * z, 0.9), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        x = numpyro.sample("x", dist.Normal(p["m"], jnp.exp(p["log_s"])))
        numpyro.sample("z", dist.Bernoulli(logits=p["a"] + p["b"] * x))

    def x_terms(p):
        scale = jnp.exp(p["log_s"])
        return expected_normal(p["m"], 0.0, 1.0, scale**2) + normal_entropy(scale)

    def at_nodes(p):
        """x at the nodes, log p(z, y | x) with shape (nodes, 2), and the weights."""
        nodes, weights = standard_normal_nodes()
        x = p["m"] + jnp.exp(p["log_s"]) * nodes
        log_lik = expected_normal(data, x[:, None] + np.array([[0.0, 1.5]]), 0.9)
        return x, bernoulli_log_pmf(0.8 * x - 0.3) + log_lik, weights

    def exact_elbo(p):
        x, log_joint, weights = at_nodes(p)
        log_q = bernoulli_log_pmf(p["a"] + p["b"] * x)
        return x_terms(p) + weights @ (jnp.exp(log_q) * (log_joint - log_q)).sum(-1)

    def exact_marginal(p):
        _, log_joint, weights = at_nodes(p)
        return x_terms(p) + weights @ jax.nn.logsumexp(log_joint, axis=-1)

    sites = {"x": ("explicit", "score"), "z": ("score", "enumerate", "marginalize")}
    return Oracle("normal_above_discrete", model, guide, {"y": data}, params, exact_elbo, sites, exact_marginal)


def _change_point() -> Oracle:
    """Counts y_t ~ Poisson(early if t <= s else late), t = 0..6, s uniform on 0..5, rates Gamma(2, 0.5).

    Given q the rates enter through E[rate] and E[log rate] only. With s summed out they are integrated on a
    grid.
    """
    data = np.array([6, 4, 5, 3, 1, 2, 1])
    num_switches, a0, b0 = 6, 2.0, 0.5
    params = {
        "logits": np.array([1.8, 0.4, -0.6, -1.9, -0.1, 1.3]),
        "log_a": np.log(np.array([9.0, 8.0])),  # early, late
        "log_b": np.log(np.array([2.1, 3.0])),
    }
    is_early = (np.arange(len(data))[None, :] <= np.arange(num_switches)[:, None]).astype(float)
    # By switch point: the sum and the number of the early and of the late counts, shape (6, 2).
    totals = np.stack([is_early @ data, (1 - is_early) @ data], -1)
    lengths = np.stack([is_early.sum(-1), (1 - is_early).sum(-1)], -1)

    def model(y):
        s = numpyro.sample("s", dist.DiscreteUniform(0, num_switches - 1))
        early = numpyro.sample("early", dist.Gamma(a0, b0))
        late = numpyro.sample("late", dist.Gamma(a0, b0))
        with numpyro.plate("time", len(data)) as t:
            numpyro.sample("y", dist.Poisson(jnp.where(t <= s, early, late)), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        a, b = jnp.exp(p["log_a"]), jnp.exp(p["log_b"])
        numpyro.sample("s", dist.Categorical(logits=p["logits"]))
        numpyro.sample("early", dist.Gamma(a[0], b[0]))
        numpyro.sample("late", dist.Gamma(a[1], b[1]))

    def rate_terms(p):
        """E[log p(rates) - log q(rates)], less log y! and the log 6 of the prior of s."""
        a, b = jnp.exp(p["log_a"]), jnp.exp(p["log_b"])
        moments = gamma_moments(a, b)
        constant = gammaln(data + 1.0).sum() + np.log(num_switches)
        return (expected_gamma(a0, b0, *moments) - expected_gamma(a, b, *moments)).sum() - constant

    def exact_elbo(p):
        mean_log, mean = gamma_moments(jnp.exp(p["log_a"]), jnp.exp(p["log_b"]))
        log_q = jax.nn.log_softmax(p["logits"])
        return rate_terms(p) + (jnp.exp(log_q) * (totals @ mean_log - lengths @ mean - log_q)).sum()

    u, step = log_gamma_nodes()
    # log p(y | early, late) on the grid, s summed out, less the constants of `rate_terms`.
    early, late = (totals[:, k, None] * u[None, :] - lengths[:, k, None] * np.exp(u)[None, :] for k in (0, 1))
    log_lik = np.logaddexp.reduce(early[:, :, None] + late[:, None, :], axis=0)

    def exact_marginal(p):
        a, b = jnp.exp(p["log_a"])[:, None], jnp.exp(p["log_b"])[:, None]
        # The density of u = log rate; shape (2, nodes).
        weights = step * jnp.exp(a * jnp.log(b) - gammaln(a) + a * u[None, :] - b * np.exp(u)[None, :])
        return rate_terms(p) + weights[0] @ log_lik @ weights[1]

    sites = {
        "s": ("score", "enumerate", "marginalize", *CATEGORICAL, *LINEAR),
        "early": ("implicit", "score", "rsvi", "g_rep"),
        "late": ("implicit", "score"),
    }
    return Oracle("change_point", model, guide, {"y": data}, params, exact_elbo, sites, exact_marginal)


ORACLES: tuple[Oracle, ...] = (
    _categorical_normal(),
    _discrete_above_normal(),
    _normal_above_discrete(),
    _change_point(),
)
