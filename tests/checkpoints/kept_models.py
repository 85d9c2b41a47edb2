"""Models for fits that are kept: of full data, of batches, with a score function, and by the ladder alone."""

import hashlib

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

N = 40
X = np.random.default_rng(0).normal(size=N).astype(np.float32)
Y = (1 + 2 * X).astype(np.float32)


def regression(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", N):
        numpyro.sample("y", dist.Normal(a + b * x, 1.0), obs=y)


def batches(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", N, subsample_size=8) as i:
        own = numpyro.sample("own", dist.Normal(a, 1.0))
        numpyro.sample("y", dist.Normal(own + x[i], 1.0), obs=y[i])


def counts(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    k = numpyro.sample("k", dist.Poisson(3.0))
    with numpyro.plate("n", N):
        numpyro.sample("y", dist.Normal(a + k * x, 1.0), obs=y)


def schools(x, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, jnp.array([15.0, 10.0, 16.0, 11.0])), obs=10 * y[:4])


STEPS = {"num_steps": 1000}
# name -> (model, options of the fit)
CASES = {
    "full data": (regression, {**STEPS, "num_restarts": 2}),
    "batches": (batches, STEPS),
    "score": (counts, {**STEPS, "estimators": {"k": {"estimator": "score", "baseline": "moving_average"}}}),
    "until it stands still": (regression, {"max_steps": 3000, "learning_rate": 0.1}),
}


def digest(fit):
    """All numbers of a fit."""
    content = hashlib.sha256(fit.losses.tobytes())
    for values in (fit.params, fit.sample(10)):
        for name, value in sorted(values.items()):
            content.update(name.encode() + np.asarray(value).tobytes())
    return content.hexdigest()
