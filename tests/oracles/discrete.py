"""Discrete sites outside plates: a dependent pair, and a count of infinite support."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from .base import BINARY, CATEGORICAL, LINEAR, Oracle, bernoulli_log_pmf, declare, expected_normal, logit


def _dependent_pair() -> Oracle:
    """z1 ~ Bern, z2 ~ Bern(p[z1]), both above one likelihood; the guide keeps the dependence."""
    data = np.array(0.9)
    conditional = np.array([0.3, 0.8])
    params = {"logit1": np.array(-0.5), "logit2": np.array([-0.4, 0.9])}
    means = np.array([[0.0, 2.0], [-1.0, 1.0]])

    def model(x):
        z1 = numpyro.sample("z1", dist.Bernoulli(0.6))
        z2 = numpyro.sample("z2", dist.Bernoulli(jnp.asarray(conditional)[z1]))
        numpyro.sample("x", dist.Normal(2.0 * z2 - z1, 0.7), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        z1 = numpyro.sample("z1", dist.Bernoulli(logits=p["logit1"]))
        numpyro.sample("z2", dist.Bernoulli(logits=p["logit2"][z1]))

    def joint():
        """log p(z2 | z1) + log p(x | z1, z2): axes z1, z2."""
        return bernoulli_log_pmf(logit(conditional)) + expected_normal(data, means, 0.7)

    def outer(p, value):
        log_q = bernoulli_log_pmf(p["logit1"])
        return (jnp.exp(log_q) * (bernoulli_log_pmf(logit(0.6)) - log_q + value)).sum()

    def exact_elbo(p):
        log_q = bernoulli_log_pmf(p["logit2"])
        return outer(p, (jnp.exp(log_q) * (joint() - log_q)).sum(-1))

    def exact_marginal(p):
        return outer(p, jax.nn.logsumexp(joint(), axis=-1))

    sites = {"z1": ("score", "enumerate"), "z2": ("score", "enumerate", "marginalize", "unordered_set", *BINARY)}
    return Oracle("dependent_pair", model, guide, {"x": data}, params, exact_elbo, sites, exact_marginal)


def _layers() -> Oracle:
    """z ~ Bern(0.6), w ~ Bern(logits = 1.5 z - 0.4), both above one likelihood; the guide with logits a and b + c z."""
    data = np.array(0.9)
    params = {"a": np.array(-0.5), "b": np.array(0.3), "c": np.array(-1.1)}
    values = np.array([[0.0, 1.0]])

    def model(x):
        z = numpyro.sample("z", dist.Bernoulli(0.6))
        w = numpyro.sample("w", dist.Bernoulli(logits=1.5 * z - 0.4))
        numpyro.sample("x", dist.Normal(2.0 * w - z, 0.7), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        z = numpyro.sample("z", dist.Bernoulli(logits=p["a"]))
        numpyro.sample("w", dist.Bernoulli(logits=p["b"] + p["c"] * z))

    def exact_elbo(p):
        log_q = bernoulli_log_pmf(p["b"] + p["c"] * values[0])  # axes z, w
        likelihood = expected_normal(data, 2.0 * values - values.T, 0.7)
        inner = (jnp.exp(log_q) * (bernoulli_log_pmf(1.5 * values[0] - 0.4) + likelihood - log_q)).sum(-1)
        first = bernoulli_log_pmf(p["a"])
        return (jnp.exp(first) * (bernoulli_log_pmf(logit(0.6)) - first + inner)).sum()

    sites = {"z": ("score", *LINEAR), "w": ("score",)}
    return Oracle("layers", model, guide, {"x": data}, params, exact_elbo, sites)


def _poisson() -> Oracle:
    """z ~ Poisson(3), x ~ N(z, 1.5), guide Poisson(exp(log_rate)).

    The sum stops at 60: the guide's mass beyond is below 1e-40 for rates up to 6.
    """
    data = np.array([5.2, 4.1])
    params = {"log_rate": np.array(0.9)}
    support = np.arange(60.0)

    def model(x):
        z = numpyro.sample("z", dist.Poisson(3.0))
        with numpyro.plate("N", 2):
            numpyro.sample("x", dist.Normal(z.astype(float), 1.5), obs=jnp.asarray(x))

    def guide(x):
        numpyro.sample("z", dist.Poisson(jnp.exp(declare(params)["log_rate"])))

    def exact_elbo(p):
        log_q = support * p["log_rate"] - jnp.exp(p["log_rate"]) - gammaln(support + 1)
        # log p - log q leaves no factorials, which float32 would have to cancel.
        prior_ratio = support * (np.log(3.0) - p["log_rate"]) - 3.0 + jnp.exp(p["log_rate"])
        log_lik = expected_normal(data[:, None], support[None, :], 1.5).sum(0)
        return (jnp.exp(log_q) * (prior_ratio + log_lik)).sum()

    return Oracle("poisson", model, guide, {"x": data}, params, exact_elbo, {"z": ("score", "measure_valued")})


def _two_layers() -> Oracle:
    """z_i ~ Cat of three, w_i ~ Cat(rows[z_i]), x_i ~ N(means[z_i, w_i], 0.8), in a plate of four, two at a time.

    In the guide the logits of w_i are a row of their own for each value of z_i.
    """
    data = np.array([1.2, -0.4, 2.1, 0.3])
    outer, rows = np.array([0.5, 0.2, 0.3]), np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]])
    means = np.array([[-1.0, 0.5, 1.5], [0.0, 2.0, -0.5], [1.0, 0.3, 2.5]])
    params = {
        "a": np.array([[-0.3, -0.4, -0.6], [0.3, 0.7, 0.5], [-0.4, -0.1, -0.4], [-0.3, -0.1, 1.0]]),
        "b": np.array([[-0.8, -0.2, 0.8], [0.2, -0.3, 0.5], [1.0, 0.5, 0.8]]),
    }

    def model(x):
        with numpyro.plate("N", 4, subsample_size=2) as idx:
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(outer)))
            w = numpyro.sample("w", dist.Categorical(jnp.asarray(rows)[z]))
            numpyro.sample("x", dist.Normal(jnp.asarray(means)[z, w], 0.8), obs=jnp.asarray(x)[idx])

    def guide(x):
        p = declare(params)
        with numpyro.plate("N", 4, subsample_size=2) as idx:
            z = numpyro.sample("z", dist.Categorical(logits=p["a"][idx]))
            numpyro.sample("w", dist.Categorical(logits=p["b"][z]))

    def exact_elbo(p):
        log_a, log_b = jax.nn.log_softmax(p["a"]), jax.nn.log_softmax(p["b"])
        below = (np.log(rows) - log_b)[None] + expected_normal(data[:, None, None], means[None], 0.8)  # i, z, w
        inner = (jnp.exp(log_b)[None] * below).sum(-1)
        return (jnp.exp(log_a) * (np.log(outer)[None] - log_a + inner)).sum()

    sites = {"z": ("score", "enumerate", *CATEGORICAL, *LINEAR), "w": ("score", *CATEGORICAL, *LINEAR)}
    return Oracle("two_layers", model, guide, {"x": data}, params, exact_elbo, sites)


ORACLES: tuple[Oracle, ...] = (_dependent_pair(), _layers(), _poisson(), _two_layers())
