"""Models whose fits are handed over to other tools."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import autovi

SIGMA = np.array([[4.0, 1.8, 0.0], [1.8, 1.0, 0.1], [0.0, 0.1, 0.25]])
MEAN = np.array([1.0, -2.0, 3.0])
Y = np.array([1.0, -0.5, 2.0, 0.3], np.float32)


def normal():
    """Its posterior is N(MEAN, SIGMA)."""
    x = numpyro.sample(
        "x", dist.MultivariateNormal(jnp.asarray(MEAN[:2]), covariance_matrix=jnp.asarray(SIGMA[:2, :2]))
    )
    slope = jnp.asarray(SIGMA[2, :2] @ np.linalg.inv(SIGMA[:2, :2]))
    sd = float(np.sqrt(SIGMA[2, 2] - SIGMA[2, :2] @ np.linalg.inv(SIGMA[:2, :2]) @ SIGMA[2, :2]))
    numpyro.sample("a", dist.Normal(MEAN[2] + slope @ (x - jnp.asarray(MEAN[:2])), sd))
    numpyro.deterministic("double", 2 * x)


def schools(y):
    """A site in partly non-centred coordinates, in a plate."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(5))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def constrained(y):
    """A simplex, an ordered vector, a Cholesky factor, and a support that depends on another site."""
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    cuts = numpyro.sample(
        "cuts",
        dist.TransformedDistribution(dist.Normal(0, 1).expand([2]).to_event(1), dist.transforms.OrderedTransform()),
    )
    corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    alpha = numpyro.sample("alpha", dist.Uniform(0, 1))
    beta = numpyro.sample("beta", dist.Uniform(0, 1 - alpha))
    mean = p[0] + cuts[1] + corr[1, 0] + alpha + beta
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def switched(y):
    """A discrete site that is summed out, and a deterministic one made of it."""
    on = numpyro.sample("on", dist.Bernoulli(0.4))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.deterministic("level", on * rate)
    numpyro.sample("y", dist.Normal(on * rate, 1.0), obs=y)


def hidden_markov(y):
    """A chain of states in a scan, summed out."""
    means = numpyro.sample("means", dist.Normal(jnp.array([-1.0, 1.0]), 0.5).to_event(1))
    stay = numpyro.sample("stay", dist.Beta(3.0, 1.0))

    def step(before, y):
        p = jnp.where(before == 1, stay, 1 - stay)
        state = numpyro.sample("state", dist.Bernoulli(p))
        numpyro.sample("y", dist.Normal(means[state], 1.0), obs=y)
        return state, None

    scan(step, 0, y)


def walk(y):
    """Continuous states of a scan."""
    sd = numpyro.sample("sd", dist.HalfNormal(1.0))

    def step(before, y):
        state = numpyro.sample("state", dist.Normal(before, sd))
        numpyro.sample("y", dist.Normal(state, 1.0), obs=y)
        return state, None

    scan(step, 0.0, y)


def with_parameter(y):
    """A parameter of the model's own."""
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, scale), obs=y)


def in_batches(y, length=2):
    """A plate that is subsampled."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", 4, subsample_size=length):
        rows = numpyro.subsample(y, event_dim=0)
        z = numpyro.sample("z", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=rows)


def scaled(y):
    """A positive site under `handlers.scale`, whose Jacobian NumPyro scales too."""
    with handlers.scale(scale=0.5):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(rate, 1.0), obs=y)


def bounded(y):
    """Impossible beyond 1.2 sds of its posterior, which nothing but the density says."""
    x = numpyro.sample("x", dist.Normal(0.0, 10.0))
    numpyro.factor("inside", jnp.where(jnp.abs(x - y.mean()) < 0.6, 0.0, -jnp.inf))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def masked(y):
    """Elements of a latent site that nothing feels."""
    with numpyro.plate("row", 4), handlers.mask(mask=jnp.array([True, True, True, False])):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def counts(y):
    """A discrete site without a bound."""
    n = numpyro.sample("n", dist.Poisson(3.0))
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x * n, 1.0), obs=y)


def discrete_alone(y):
    """No continuous site."""
    on = numpyro.sample("on", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(on, 1.0), obs=y)


def quick(model, data="y", **options):
    """A fit that is fitted hardly at all: what is handed over is right whatever q is."""
    data = {"y": Y} if data == "y" else data
    settings = {"guide": "mean_field", "num_steps": 20, "num_draws": 200, "progress_bar": False}
    return autovi.fit(model, data, **{**settings, **options})
