"""Draws and probabilities of sites that are summed out of batches: at full size as without batches."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import autovi

Y = np.array([0.3, 1.9, -0.6, 2.4, 0.9, 1.2], np.float32)
COUNTS = np.array([1, 3, 0, 2, 5, 1])
NUM_DRAWS = 4_000


def mixture(y):
    with numpyro.plate("row", 6, subsample_size=3) as i:
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y[i])


def thinned(y):
    with numpyro.plate("row", 6, subsample_size=3) as i:
        z = numpyro.sample("z", dist.Poisson(4.0))
        numpyro.sample("y", dist.Binomial(z, 0.4), obs=y[i])


def normal(y):
    with numpyro.plate("row", 6, subsample_size=3) as i:
        z = numpyro.sample("z", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y[i])


WEIGHTS = np.stack([0.7 * stats.norm.pdf(Y, 0.0, 1.0), 0.3 * stats.norm.pdf(Y, 2.0, 1.0)], axis=1)
ONES = WEIGHTS[:, 1] / WEIGHTS.sum(1)
# Data, log evidence, and mean and variance of each element's posterior.
MODELS = {
    mixture: (Y, np.log(WEIGHTS.sum(1)).sum(), ONES, ONES * (1 - ONES)),
    thinned: (COUNTS, stats.poisson.logpmf(COUNTS, 1.6).sum(), COUNTS + 2.4, np.full(6, 2.4)),
    normal: (Y, stats.norm.logpdf(Y, 0.0, 5**0.5).sum(), 0.8 * Y, np.full(6, 0.8)),
}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_of_a_subsampled_plate(model):
    """Each element has its own posterior, under the weight of its own observation and not of those it stands for. The
    mean of the draws is within 6 standard errors, and log p - log q is the evidence of all."""
    y, evidence, mean, variance = MODELS[model]
    fit = autovi.fit(model, {"y": y}, estimators={"z": "marginalize"}, progress_bar=False)
    draws = np.asarray(fit.sample(NUM_DRAWS)["z"])
    assert np.all(np.abs(draws.mean(0) - mean) < 6 * np.sqrt(variance / NUM_DRAWS))
    np.testing.assert_allclose(fit.log_weights, evidence, rtol=1e-5)
    if model is mixture:
        np.testing.assert_allclose(fit.marginals()["z"][:, 1], mean, atol=1e-5)
