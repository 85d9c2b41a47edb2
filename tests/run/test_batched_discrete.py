"""Probabilities and draws of sites that are summed out of batches: at full size as without batches."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import autovi

Y = np.array([0.3, 1.9, -0.6, 2.4, 0.9, 1.2], np.float32)


def model(y):
    with numpyro.plate("row", 6, subsample_size=3) as i:
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y[i])


def test_of_a_subsampled_plate():
    """Each element has its own posterior, under the weight of its own observation and not of those it stands for."""
    weights = np.stack([0.7 * stats.norm.pdf(Y, 0.0, 1.0), 0.3 * stats.norm.pdf(Y, 2.0, 1.0)], axis=1)
    exact = weights / weights.sum(1, keepdims=True)
    fit = autovi.fit(model, {"y": Y}, progress_bar=False)
    np.testing.assert_allclose(fit.marginals()["z"], exact, atol=1e-5)
    ones = np.asarray(fit.sample(4_000)["z"]).sum(0)
    for k, p in zip(ones, exact[:, 1], strict=True):
        assert stats.binomtest(int(k), 4_000, p).pvalue > 1e-7
    np.testing.assert_allclose(fit.log_weights, np.log(weights.sum(1)).sum(), rtol=1e-5)
