"""Draws of sites that are summed out of batches in closed form: at full size, as without batches."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import autovi

X = np.array([0.3, 1.9, -0.6, 2.4, 0.9, 1.2], np.float32)
Y = np.array([3, 0, 7, 2, 5, 1])


def model(x, y):
    with numpyro.plate("row", 6, subsample_size=3) as i:
        m = numpyro.sample("m", dist.Normal(0.5, 1.0))
        numpyro.sample("x", dist.Normal(2 * m, 0.5), obs=x[i])
        count = numpyro.sample("N", dist.Poisson(6.0))
        numpyro.sample("y", dist.Binomial(count, 0.4), obs=y[i])


@pytest.mark.slow
def test_of_a_subsampled_plate():
    """Each element has its own posterior; the weights are the evidence, of the whole plate."""
    fit = autovi.fit(model, {"x": X, "y": Y}, estimators={"m": "marginalize"}, progress_bar=False)
    draws = fit.sample(10_000, rng_key=1)
    precision = 1.0 + 4 / 0.25
    mean, sd = (0.5 + 2 * X / 0.25) / precision, precision**-0.5
    m, unseen = np.asarray(draws["m"], float), np.asarray(draws["N"], float) - Y
    assert np.all(np.abs(m.mean(0) - mean) < 6 * sd / 100)
    assert np.all(np.abs(m.var(0) / sd**2 - 1) < 6 * np.sqrt(2) / 100)
    assert np.all(np.abs(unseen.mean(0) - 3.6) < 6 * np.sqrt(3.6) / 100)
    evidence = stats.norm.logpdf(X, 1.0, np.sqrt(4.25)).sum() + stats.poisson.logpmf(Y, 2.4).sum()
    np.testing.assert_allclose(fit.log_weights, evidence, atol=1e-3)
