"""Deterministic sites that are made of the values at all steps of a scan: no terms of the density, and so nothing that
keeps the scan from being summed out. They are made of the draws."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi

Y = np.random.default_rng(0).normal(size=7).astype(np.float32)


def counting(y):
    stay = numpyro.sample("stay", dist.Beta(8.0, 2.0))
    rows = jnp.eye(2) * (2 * stay - 1) + (1 - stay)

    def step(carry, y):
        x, count = carry
        x = numpyro.sample("x", dist.Categorical(rows[x]))
        count = numpyro.deterministic("count", count + x)
        numpyro.sample("y", dist.Normal(4.0 * x - 2.0, 1.0), obs=y)
        return (x, count), x

    (_, total), xs = scan(step, (0, 0), y)
    numpyro.deterministic("total", total)
    numpyro.deterministic("mean", xs.mean())


def check(draws):
    x = np.asarray(draws["x"])
    np.testing.assert_array_equal(draws["count"], np.cumsum(x, -1))
    np.testing.assert_array_equal(draws["total"], x.sum(-1))
    np.testing.assert_allclose(draws["mean"], x.mean(-1), rtol=1e-6)


@pytest.mark.slow
def test_they_are_made_of_the_draws():
    fit = autovi.fit(counting, {"y": Y}, num_draws=50, progress_bar=False)
    assert fit.plan["x"].estimator == "marginalize"
    draws = fit.sample(50)
    assert len(np.unique(draws["total"])) > 1
    check(draws)
    check(fit.sample(50, discrete="map"))
