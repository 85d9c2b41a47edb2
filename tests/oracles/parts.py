"""Mixtures, hurdles and inflated zeros: guides whose distributions have parts."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from .base import Oracle, bernoulli_log_pmf, declare, expected_normal, log_gamma_nodes

INSIDE = np.arange(
    -14.0, 14.0, 0.05
)  # a grid for the trapezoidal rule: every integrand below is analytic and falls off


def _mixture_in_plate() -> Oracle:
    """z_i ~ N(0, 2), y_i ~ N(z_i^2 / 2, 1); the guide a mixture of two normals for each, half of them in a step."""
    data = np.array([1.8, 0.3])
    params = {
        "logits": np.array([[0.8, -0.6], [-0.3, 0.7]]),
        "locs": np.array([-2.3, 0.7]),
        "log_scales": np.array([-0.1, 0.2]),
    }

    def model(y):
        with numpyro.plate("N", 2, subsample_size=1):
            z = numpyro.sample("z", dist.Normal(0.0, 2.0))
            numpyro.sample("y", dist.Normal(z**2 / 2, 1.0), obs=numpyro.subsample(jnp.asarray(y), event_dim=0))

    def guide(y):
        p = declare(params)
        with numpyro.plate("N", 2, subsample_size=1) as i:
            component = dist.Normal(p["locs"], jnp.exp(p["log_scales"]))
            numpyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=p["logits"][i]), component))

    def exact_elbo(p):
        scales = jnp.exp(p["log_scales"])
        inside = expected_normal(INSIDE[:, None], p["locs"][None], scales[None])  # grid, component
        log_q = jax.nn.logsumexp(jax.nn.log_softmax(p["logits"])[:, None] + inside[None], axis=-1)  # element, grid
        log_p = expected_normal(INSIDE, 0.0, 2.0)[None] + expected_normal(data[:, None], INSIDE[None] ** 2 / 2, 1.0)
        return 0.05 * jnp.sum(jnp.exp(log_q) * (log_p - log_q))

    return Oracle(
        "normal_mixture_plate", model, guide, {"y": data}, params, exact_elbo, {"z": ("enumerate_component", "score")}
    )


def _mixture_above() -> Oracle:
    """z ~ N(0, 2), w ~ Bern(logits = z), y ~ N(z + w, 1); in the guide z a mixture, w given it."""
    data = np.array(1.1)
    params = {"logit": np.array(0.4), "locs": np.array([-1.2, 1.5]), "log_scales": np.array([-0.5, -0.1])}
    params |= {"a": np.array(-0.3), "b": np.array(0.6)}

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 2.0))
        w = numpyro.sample("w", dist.Bernoulli(logits=z))
        numpyro.sample("y", dist.Normal(z + w, 1.0), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        scales = jnp.exp(p["log_scales"])
        components = [dist.Normal(p["locs"][0], scales[0]), dist.Laplace(p["locs"][1], scales[1])]
        mixing = dist.Categorical(logits=jnp.stack([p["logit"], jnp.zeros(())]))
        z = numpyro.sample("z", dist.MixtureGeneral(mixing, components))
        numpyro.sample("w", dist.Bernoulli(logits=p["a"] + p["b"] * z))

    def laplace(p):
        """Nodes on either side of the kink, which moves with them, and their weights."""
        gaps = np.arange(0.0, 20.0, 0.01)
        weights = np.where(gaps == 0, 0.5, 1.0) * 0.01 * np.exp(-gaps) / 2
        scale = jnp.exp(p["log_scales"][1])
        return p["locs"][1] + scale * np.concatenate([-gaps, gaps]), np.concatenate([weights, weights])

    def exact_elbo(p):
        scales = jnp.exp(p["log_scales"])
        log_weights = bernoulli_log_pmf(p["logit"])[::-1]

        def cost(z):
            normal = expected_normal(z, p["locs"][0], scales[0])
            other = -jnp.abs(z - p["locs"][1]) / scales[1] - jnp.log(2 * scales[1])
            log_q = jnp.logaddexp(log_weights[0] + normal, log_weights[1] + other)
            log_w = bernoulli_log_pmf(p["a"] + p["b"] * z)
            inner = bernoulli_log_pmf(z) + expected_normal(data, z[:, None] + np.array([[0.0, 1.0]]), 1.0) - log_w
            return expected_normal(z, 0.0, 2.0) - log_q + jnp.sum(jnp.exp(log_w) * inner, -1)

        nodes, weights = laplace(p)
        gaps = np.arange(-9.0, 9.0, 0.01)
        normal_weights = 0.01 * np.exp(-0.5 * gaps**2) / np.sqrt(2 * np.pi)
        inside = jnp.stack([normal_weights @ cost(p["locs"][0] + scales[0] * gaps), weights @ cost(nodes)])
        return jnp.exp(log_weights) @ inside

    sites = {"z": ("enumerate_component",), "w": ("enumerate",)}
    return Oracle("mixture_above_discrete", model, guide, {"y": data}, params, exact_elbo, sites)


def _hurdle_gamma() -> Oracle:
    """z_i zero with probability .4, else Gamma(2, 1), y_i ~ N(z_i, 1), in a plate; the guide of the same kind."""
    data = np.array([0.4, 2.3])
    params = {"logit": np.array([0.9, -1.4]), "log_a": np.array(1.0), "log_b": np.log(np.array([4.0, 2.0]))}

    def model(y):
        with numpyro.plate("N", 2):
            z = numpyro.sample("z", dist.HurdleGamma(0.4, 2.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        with numpyro.plate("N", 2):
            gate = jax.nn.sigmoid(p["logit"])
            numpyro.sample("z", dist.HurdleGamma(gate, jnp.exp(p["log_a"]), jnp.exp(p["log_b"])))

    def gamma(z, a, b):
        return a * jnp.log(b) - gammaln(a) + (a - 1) * jnp.log(z) - b * z

    def exact_elbo(p):
        nodes, step = log_gamma_nodes()
        z, a, b = np.exp(nodes)[None], jnp.exp(p["log_a"]), jnp.exp(p["log_b"])[:, None]
        log_open, log_gate = bernoulli_log_pmf(p["logit"]).T
        log_q = gamma(z, a, b)
        inside = np.log(0.6) + gamma(z, 2.0, 1.0) + expected_normal(data[:, None], z, 1.0)
        behind = step * jnp.sum(jnp.exp(log_q) * z * (inside - log_q - log_open[:, None]), -1)
        at_zero = np.log(0.4) + expected_normal(data, 0.0, 1.0) - log_gate
        return jnp.sum(jnp.exp(log_gate) * at_zero + jnp.exp(log_open) * behind)

    sites = {"z": ("enumerate_gate", "score")}
    return Oracle("hurdle_gamma", model, guide, {"y": data}, params, exact_elbo, sites)


def _gated_counts(name: str, hurdle: bool) -> Oracle:
    """z ~ NegativeBinomial2(3, 2), y ~ N(z, 1.5); the guide a Poisson behind a gate. The sum stops at 60."""
    data = np.array(1.7)
    params = {"logit": np.array(0.3), "log_rate": np.array(1.4)}
    support = np.arange(60.0)
    log_prior = gammaln(support + 2.0) - gammaln(2.0) - gammaln(support + 1) + 2 * np.log(0.4) + support * np.log(0.6)
    make = dist.HurdlePoisson if hurdle else dist.ZeroInflatedPoisson

    def model(y):
        z = numpyro.sample("z", dist.NegativeBinomial2(3.0, 2.0))
        numpyro.sample("y", dist.Normal(z.astype(float), 1.5), obs=jnp.asarray(y))

    def guide(y):
        p = declare(params)
        numpyro.sample("z", make(jax.nn.sigmoid(p["logit"]), jnp.exp(p["log_rate"])))

    def exact_elbo(p):
        rate, gate = jnp.exp(p["log_rate"]), jax.nn.sigmoid(p["logit"])
        counts = jnp.exp(support * p["log_rate"] - rate - gammaln(support + 1))
        first = gate if hurdle else gate + (1 - gate) * jnp.exp(-rate)
        open_ = (1 - gate) / (1 - jnp.exp(-rate)) if hurdle else 1 - gate
        q = jnp.where(support == 0, first, open_ * counts)
        log_q = jnp.log(jnp.where(q > 0, q, 1.0))
        return jnp.sum(q * (log_prior + expected_normal(data, support, 1.5) - log_q))

    return Oracle(name, model, guide, {"y": data}, params, exact_elbo, {"z": ("enumerate_gate", "score")})


ORACLES: tuple[Oracle, ...] = (
    _mixture_in_plate(),
    _mixture_above(),
    _hurdle_gamma(),
    _gated_counts("hurdle_poisson", True),
    _gated_counts("zero_inflated_poisson", False),
)
