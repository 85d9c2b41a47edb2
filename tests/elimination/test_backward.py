"""Chains in scans that run backward: the step before t is t + 1."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi

Y = np.array([0.3, 1.2, -0.4, 2.0])
P = np.array([[0.8, 0.2], [0.3, 0.7]])


def model(y):
    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(jnp.asarray(P)[x]))
        numpyro.sample("y", dist.Normal(2.0 * x, 1.0), obs=y)
        return x, None

    scan(step, 0, y, reverse=True)


@pytest.mark.slow
def test_a_chain_of_a_scan_that_runs_backward():
    """Evidence and probabilities against all sixteen configurations."""
    weights = np.zeros((2,) * 4)
    for states in product((0, 1), repeat=4):
        weight, before = 1.0, 0
        for x, y in zip(states[::-1], Y[::-1], strict=True):
            weight *= P[before, x] * np.exp(-0.5 * (y - 2 * x) ** 2) / np.sqrt(2 * np.pi)
            before = x
        weights[states] = weight
    with jax.enable_x64(True):
        fit = autovi.fit(model, {"y": Y}, progress_bar=False)
        found = fit.marginals()["x"]
    assert fit.elbo == pytest.approx(np.log(weights.sum()), abs=1e-6)
    for t in range(4):
        exact = weights.sum(tuple(i for i in range(4) if i != t)) / weights.sum()
        np.testing.assert_allclose(found[t], exact, atol=1e-6)
