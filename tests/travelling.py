"""Models, guides and classes that a worker process imports by name, and what it does with a fit."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi
from autovi.estimators import Enumerate
from autovi.families import Normal
from autovi.objectives import Elbo

QUICK = {"num_steps": 20, "num_draws": 40, "progress_bar": False}


def model(x, y=None, *, spread=1.0):
    """Sites of many kinds of block: joint, enumerated, marginalized, by score function."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
    c = numpyro.sample("c", dist.Poisson(2.0))
    b = numpyro.param("b", 0.5)
    with numpyro.plate("row", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(mu + b * x + z + 0.3 * k + 0.1 * c, spread), obs=y)


def linked(link, pair, y):
    """Takes a function and a named tuple, which no file holds."""
    mu = numpyro.sample("mu", dist.Normal(pair["width"].a, 1.0))
    numpyro.sample("y", dist.Normal(link(mu), pair["width"].b), obs=y)


def by_column(df, parts):
    """Takes columns of a frame by name, and lists of arrays."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu * df["x"] + parts[0] + parts[1]["more"], 1.0).to_event(1), obs=df["y"])


def tanh(value):
    """A static argument that pickles by its name."""
    return jnp.tanh(value)


def simple(y):
    """One mean."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def spread_out(y, spread=1.0):
    """Two means."""
    a, b = numpyro.sample("a", dist.Normal(0.0, 1.0)), numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a + b, spread), obs=y)


def local(y):
    """A subsampled plate with local latents."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 6, subsample_size=3) as index:
        b = numpyro.sample("b", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=y[index])


def pair(y):
    """A continuous and a discrete site."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    k = numpyro.sample("k", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(mu + k, 1.0), obs=y)


def pair_guide(y):
    """A guide function for `pair`."""
    numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 0.5))


def log_density(params, y):
    """A mean under a flat prior."""
    return -0.5 * ((y - params["mu"]) ** 2).sum()


class Model:
    """A model that is an object."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, y):
        mu = numpyro.sample("mu", dist.Normal(0.0, self.scale))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def method(self, y):
        """The same as a method."""
        self(y)


@dataclass(frozen=True)
class Wide(Normal):
    """A family of the user's own."""

    width: float = 2.0

    def init(self, start, layout):
        return {**super().init(start, layout), "log_scale": jnp.full_like(start, self.width)}


@dataclass(frozen=True)
class OwnEnumerate(Enumerate):
    """An estimator of the user's own."""


@dataclass(frozen=True)
class OwnElbo(Elbo):
    """An objective of the user's own."""


def fitted(seed):
    """What a worker does: a whole fit."""
    return autovi.fit(simple, {"y": np.array([0.5, 1.5])}, rng_key=seed, **QUICK)


def sampled(fit, seed):
    """What a worker does with a fit that it is sent."""
    return fit.sample(5, rng_key=seed), fit.elbo, fit.predict(num_draws=3)
