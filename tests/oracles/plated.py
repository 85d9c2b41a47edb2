"""Discrete sites in plates: full and subsampled, scaled, masked, nested, and used across elements."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from .base import (
    BINARY,
    TOGETHER,
    WHOLE,
    Oracle,
    bernoulli_log_pmf,
    declare,
    expected_normal,
    logit,
    normal_entropy,
    standard_normal_nodes,
)

# Four Bernoulli(0.7) that drive Normal(z, 1). The observations add up to 2, so the log likelihood ratios
# x - 1/2 cancel and the exact gradient of a shared logit of -0.3 is 4 * 0.24446 * (logit 0.7 + 0.3) = 1.122.
PRIOR = 0.7
X = np.array([1.3, -0.5, 1.3, -0.1])
SHARED = {"logit": np.array(-0.3)}
LOCAL = {"logit": np.array([-0.3, 0.4, -0.8, -0.6])}


def _elements(params: dict) -> jax.Array:
    """E_q[log p(z_i) - log q(z_i)] and E_q[log p(x_i | z_i)], stacked: shape (2, 4)."""
    log_q = bernoulli_log_pmf(jnp.broadcast_to(params["logit"], X.shape))
    log_p = jnp.broadcast_to(bernoulli_log_pmf(logit(PRIOR)), log_q.shape)
    log_lik = expected_normal(X[:, None], np.array([[0.0, 1.0]]), 1.0)
    return jnp.stack([(jnp.exp(log_q) * term).sum(-1) for term in (log_p - log_q, log_lik)])


def _bernoullis(
    name: str,
    params: dict,
    subsample_size: int | None = None,
    scale: float | None = None,
    latent_scale: float | None = None,
    mask: np.ndarray | None = None,
    others: tuple[str, ...] = (),
) -> Oracle:
    """The four Bernoullis with a shared or per-element logit, under a scale or a mask.

    `scale` covers the whole program, `latent_scale` and `mask` only the latent site, in model and guide
    alike.
    """

    def whole():
        return nullcontext() if scale is None else handlers.scale(scale=scale)

    def latent(idx):
        if mask is not None:
            return handlers.mask(mask=jnp.asarray(mask)[idx])
        return nullcontext() if latent_scale is None else handlers.scale(scale=latent_scale)

    def model(x):
        with whole(), numpyro.plate("N", len(X), subsample_size=subsample_size) as idx:
            with latent(idx):
                z = numpyro.sample("z", dist.Bernoulli(PRIOR))
            numpyro.sample("x", dist.Normal(z.astype(float), 1.0), obs=jnp.asarray(x)[idx])

    def guide(x):
        logits = declare(params)["logit"]
        with whole(), numpyro.plate("N", len(X), subsample_size=subsample_size) as idx, latent(idx):
            numpyro.sample("z", dist.Bernoulli(logits=logits[idx] if logits.ndim else logits))

    def exact_elbo(p):
        prior_terms, likelihood = _elements(p)
        weight = np.ones(len(X)) if mask is None else mask.astype(float)
        return (scale or 1.0) * ((latent_scale or 1.0) * (weight * prior_terms).sum() + likelihood.sum())

    return Oracle(name, model, guide, {"x": X}, params, exact_elbo, {"z": ("score", "enumerate", *others)})


def _mixture(name: str, subsample_size: int | None) -> Oracle:
    """A location shared by a two-component mixture: mu ~ N(0, 2), z_i ~ Bern(0.4), x_i ~ N(mu + 2 z_i, 1).

    Uses `numpyro.subsample` where the others index the data by the plate.
    """
    data = np.array([0.3, 2.9, 1.8, -0.6, 3.1])
    params = {
        "loc": np.array(-0.4),
        "log_scale": np.array(-0.2),
        "logit": np.array([0.5, 0.2, 0.6, 0.4, -0.5]),
    }
    log_prior = logit(0.4)

    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("N", len(data), subsample_size=subsample_size):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(mu + 2.0 * z, 1.0), obs=numpyro.subsample(jnp.asarray(x), event_dim=0))

    def guide(x):
        p = declare(params)
        numpyro.sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))
        with numpyro.plate("N", len(data), subsample_size=subsample_size) as idx:
            numpyro.sample("z", dist.Bernoulli(logits=p["logit"][idx]))

    def global_terms(p):
        scale = jnp.exp(p["log_scale"])
        return expected_normal(p["loc"], 0.0, 2.0, scale**2) + normal_entropy(scale)

    def exact_elbo(p):
        log_q = bernoulli_log_pmf(p["logit"])
        log_p = jnp.broadcast_to(bernoulli_log_pmf(log_prior), log_q.shape)
        means = p["loc"] + np.array([[0.0, 2.0]])
        log_lik = expected_normal(data[:, None], means, 1.0, jnp.exp(2 * p["log_scale"]))
        return global_terms(p) + (jnp.exp(log_q) * (log_p - log_q + log_lik)).sum()

    def exact_marginal(p):
        nodes, weights = standard_normal_nodes()
        mu = (p["loc"] + jnp.exp(p["log_scale"]) * nodes)[:, None, None]
        log_lik = expected_normal(data[None, :, None], mu + np.array([[[0.0, 2.0]]]), 1.0)
        log_p = bernoulli_log_pmf(log_prior)[None, None, :]
        return global_terms(p) + weights @ jax.nn.logsumexp(log_p + log_lik, axis=-1).sum(-1)

    sites = {"mu": ("explicit", "score"), "z": ("score", "enumerate", "marginalize", *BINARY)}
    return Oracle(name, model, guide, {"x": data}, params, exact_elbo, sites, exact_marginal)


def _cross_element() -> Oracle:
    """z_i in a plate whose *sum* drives every observation of the same plate.

    The plate's promise of independence is broken: a cost kept per element misses what z_i does to x_j.
    """
    data = np.array([3.0, 2.2, 2.6])
    params = {"logit": np.array([0.5, -0.4, -1.0])}
    configs = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)

    def model(x):
        with numpyro.plate("N", 3):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(z.sum().astype(float), 1.0), obs=jnp.asarray(x))

    def guide(x):
        logits = declare(params)["logit"]
        with numpyro.plate("N", 3):
            numpyro.sample("z", dist.Bernoulli(logits=logits))

    def exact_elbo(p):
        log_q = jnp.where(configs == 1, *(bernoulli_log_pmf(p["logit"])[None, :, k] for k in (1, 0))).sum(-1)
        log_p = configs.sum(-1) * np.log(0.4) + (3 - configs.sum(-1)) * np.log(0.6)
        log_lik = expected_normal(data[None, :], configs.sum(-1, keepdims=True).astype(float), 1.0).sum(-1)
        return (jnp.exp(log_q) * (log_p - log_q + log_lik)).sum()

    return Oracle("cross_element_sum", model, guide, {"x": data}, params, exact_elbo, {"z": ("score", *TOGETHER)})


def _nested() -> Oracle:
    """Three groups, two members each: z_g ~ Bern, w_mg ~ Bern(p[z_g]), x_mg ~ N(z_g + 1.5 w_mg, 1).

    The guide's inner logit is b_m + c z_g, so it depends on the outer site.
    """
    data = np.array([[0.3, 2.2, 1.0], [1.9, 2.8, -0.7]])
    inner = np.array([0.25, 0.65])
    params = {"a": np.array([0.6, -0.7, 0.8]), "b": np.array([0.5, -0.6]), "c": np.array(-0.4)}

    def model(x):
        group, member = numpyro.plate("group", 3, dim=-1), numpyro.plate("member", 2, dim=-2)
        with group:
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            with member:
                probs = jnp.broadcast_to(jnp.asarray(inner)[z], (2, 3))
                w = numpyro.sample("w", dist.Bernoulli(probs))
                numpyro.sample("x", dist.Normal(jnp.broadcast_to(z, (2, 3)) + 1.5 * w, 1.0), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        group, member = numpyro.plate("group", 3, dim=-1), numpyro.plate("member", 2, dim=-2)
        with group:
            z = numpyro.sample("z", dist.Bernoulli(logits=p["a"]))
            with member:
                numpyro.sample("w", dist.Bernoulli(logits=p["b"][:, None] + (p["c"] * z)[None, :]))

    # Axes below: member, group, z, w.
    means = (np.array([0.0, 1.0])[:, None] + 1.5 * np.array([0.0, 1.0])[None, :])[None, None]

    def inner_joint():
        return bernoulli_log_pmf(logit(inner))[None, None] + expected_normal(data[..., None, None], means, 1.0)

    def outer(p, inner_value):
        """`inner_value` (member, group, z): what the members of a group contribute given z."""
        log_q = bernoulli_log_pmf(p["a"])
        log_p = jnp.broadcast_to(bernoulli_log_pmf(logit(0.4)), log_q.shape)
        return (jnp.exp(log_q) * (log_p - log_q + inner_value.sum(0))).sum()

    def exact_elbo(p):
        log_q = bernoulli_log_pmf(p["b"][:, None] + p["c"] * np.array([[0.0, 1.0]]))[:, None]
        return outer(p, (jnp.exp(log_q) * (inner_joint() - log_q)).sum(-1))

    def exact_marginal(p):
        return outer(p, jax.nn.logsumexp(inner_joint(), axis=-1))

    sites = {"z": ("score", "enumerate"), "w": ("score", "enumerate", "marginalize", *WHOLE)}
    return Oracle("nested_plates", model, guide, {"x": data}, params, exact_elbo, sites, exact_marginal)


def _two_in_plate() -> Oracle:
    """Two discrete sites of one plate that share a likelihood term: x_i ~ N(a_i + 2 b_i, 1)."""
    data = np.array([2.7, 0.4, 1.6])
    params = {"logit_a": np.array([-0.6, 0.9, -0.9]), "logit_b": np.array(-0.4)}
    means = np.array([[0.0, 2.0], [1.0, 3.0]])[None]

    def model(x):
        with numpyro.plate("N", 3):
            a = numpyro.sample("a", dist.Bernoulli(0.6))
            b = numpyro.sample("b", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(a + 2.0 * b, 1.0), obs=jnp.asarray(x))

    def guide(x):
        p = declare(params)
        with numpyro.plate("N", 3):
            numpyro.sample("a", dist.Bernoulli(logits=p["logit_a"]))
            numpyro.sample("b", dist.Bernoulli(logits=p["logit_b"]))

    def joint():
        """log p(b) + log p(x_i | a, b): axes i, a, b."""
        return bernoulli_log_pmf(logit(0.3))[None, None] + expected_normal(data[:, None, None], means, 1.0)

    def outer(p, value):
        log_q = bernoulli_log_pmf(p["logit_a"])
        return (jnp.exp(log_q) * (bernoulli_log_pmf(logit(0.6))[None] - log_q + value)).sum()

    def exact_elbo(p):
        log_q = bernoulli_log_pmf(p["logit_b"])[None, None]
        return outer(p, (jnp.exp(log_q) * (joint() - log_q)).sum(-1))

    def exact_marginal(p):
        return outer(p, jax.nn.logsumexp(joint(), axis=-1))

    sites = {"a": ("score", "enumerate", *BINARY), "b": ("score", "enumerate", "marginalize")}
    return Oracle("two_sites_in_plate", model, guide, {"x": data}, params, exact_elbo, sites, exact_marginal)


ORACLES: tuple[Oracle, ...] = (
    _bernoullis("bernoulli_plate", SHARED),
    _bernoullis("bernoulli_plate_subsample2", SHARED, subsample_size=2),
    _bernoullis("bernoulli_plate_subsample1", SHARED, subsample_size=1),
    _bernoullis("bernoulli_plate_local", LOCAL),
    _bernoullis("bernoulli_plate_local_subsample2", LOCAL, subsample_size=2, others=BINARY),
    _bernoullis("bernoulli_plate_local_subsample1", LOCAL, subsample_size=1),
    _bernoullis("scale_0.1", SHARED, scale=0.1),
    _bernoullis("scale_10", SHARED, scale=10.0),
    _bernoullis("scale_10_subsample2", LOCAL, subsample_size=2, scale=10.0, others=BINARY),
    _bernoullis("scale_0.1_latent_only", LOCAL, latent_scale=0.1),
    _bernoullis("masked_latent", LOCAL, mask=np.array([True, False, False, True]), others=BINARY),
    _mixture("mixture_plate", None),
    _mixture("mixture_plate_subsample2", 2),
    _cross_element(),
    _nested(),
    _two_in_plate(),
)
