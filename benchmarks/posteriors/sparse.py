"""A horseshoe regression: the scale of every coefficient is a product of two unknown ones."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.posteriors.base import Data, Posterior


def horseshoe(X, y):
    """40 coefficients, most of them near zero; centred."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(0.2))
    numpyro.deterministic("log_tau", jnp.log(tau))
    with numpyro.plate("columns", X.shape[1]):
        lam = numpyro.sample("lam", dist.HalfCauchy(1.0))
        numpyro.deterministic("log_lam", jnp.log(lam))
        beta = numpyro.sample("beta", dist.Normal(0.0, tau * lam))
    numpyro.sample("y", dist.Normal(X @ beta, sigma).to_event(1), obs=y)


def horseshoe_data() -> Data:
    """80 rows, of 40 coefficients five are not zero."""
    rng = np.random.default_rng(41)
    X = rng.normal(size=(80, 40))
    beta = np.zeros(40)
    beta[:5] = [2.0, -1.5, 1.0, 0.6, -0.4]
    return {"X": X, "y": X @ beta + rng.normal(size=80)}


POSTERIORS = {
    "horseshoe": Posterior(
        horseshoe,
        horseshoe_data,
        ("sigma", "log_tau", "log_lam", "beta"),
        reparam(horseshoe, config={"beta": LocScaleReparam(0.0)}),
        0.99,
    ),
}
