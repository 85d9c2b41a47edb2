"""Models of one parameter whose posterior is known in closed form: a fit has nothing to warn of."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SEEDS = 20


def normal(y):
    """A mean of 20 normal observations."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1), obs=y)


def gamma(y):
    """A rate of 20 Poisson counts."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(jnp.full(len(y), rate)).to_event(1), obs=y)


def beta(y):
    """A share of 20 binary outcomes."""
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))
    numpyro.sample("y", dist.Bernoulli(jnp.full(len(y), p)).to_event(1), obs=y)


MODELS: dict[str, tuple[Callable[..., None], Callable[[np.random.Generator], Any]]] = {
    "normal": (normal, lambda rng: rng.normal(0.7, 1.0, 20)),
    "gamma": (gamma, lambda rng: rng.poisson(2.5, 20)),
    "beta": (beta, lambda rng: rng.integers(0, 2, 20)),
}
