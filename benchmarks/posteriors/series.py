"""Latent series in time: stochastic volatility by a scan, and a random walk."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from benchmarks.posteriors.base import Data, Posterior


def volatility(returns):
    """Stochastic volatility: log variances that follow an autoregression, drawn step by step in a scan; centred."""
    mu = numpyro.sample("mu", dist.Normal(-1.0, 2.0))
    phi = numpyro.sample("phi", dist.Beta(20.0, 1.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))

    def step(before, y):
        h = numpyro.sample("h", dist.Normal(mu + phi * (before - mu), sigma))
        numpyro.sample("returns", dist.Normal(0.0, jnp.exp(h / 2)), obs=y)
        return h, None

    scan(step, mu, returns)


def volatility_by_noise(returns):
    """The same from standard normal noise."""
    mu = numpyro.sample("mu", dist.Normal(-1.0, 2.0))
    phi = numpyro.sample("phi", dist.Beta(20.0, 1.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    noise = numpyro.sample("noise", dist.Normal(0.0, 1.0).expand([len(returns)]).to_event(1))

    def step(before, e):
        departure = phi * before + sigma * e
        return departure, departure

    h = numpyro.deterministic("h", mu + jax.lax.scan(step, jnp.zeros(()), noise)[1])
    numpyro.sample("returns", dist.Normal(0.0, jnp.exp(h / 2)).to_event(1), obs=returns)


def volatility_data() -> Data:
    """150 returns."""
    rng = np.random.default_rng(31)
    h = [-1.0]
    for _ in range(150):
        h.append(-1.0 + 0.95 * (h[-1] + 1.0) + 0.25 * rng.normal())
    return {"returns": np.exp(np.array(h[1:]) / 2) * rng.normal(size=150)}


def walk(count):
    """Weekly counts whose log rate is a random walk with unknown step, as one site."""
    step = numpyro.sample("step", dist.HalfNormal(0.5))
    start = numpyro.sample("start", dist.Normal(2.0, 1.0))
    path = numpyro.sample("path", dist.GaussianRandomWalk(step, len(count)))
    numpyro.sample("count", dist.Poisson(jnp.exp(start + path)).to_event(1), obs=count)


def walk_by_noise(count):
    """The same from standard normal noise."""
    step = numpyro.sample("step", dist.HalfNormal(0.5))
    start = numpyro.sample("start", dist.Normal(2.0, 1.0))
    noise = numpyro.sample("noise", dist.Normal(0.0, 1.0).expand([len(count)]).to_event(1))
    path = numpyro.deterministic("path", step * jnp.cumsum(noise))
    numpyro.sample("count", dist.Poisson(jnp.exp(start + path)).to_event(1), obs=count)


def walk_data() -> Data:
    """104 weeks."""
    rng = np.random.default_rng(32)
    return {"count": rng.poisson(np.exp(1.8 + 0.12 * np.cumsum(rng.normal(size=104))))}


POSTERIORS = {
    "volatility_scan": Posterior(volatility, volatility_data, ("mu", "phi", "sigma", "h"), volatility_by_noise),
    "walk": Posterior(walk, walk_data, ("step", "start", "path"), walk_by_noise),
}
