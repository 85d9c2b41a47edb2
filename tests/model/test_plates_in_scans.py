"""Plates inside of a scan."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi

Y = np.zeros((4, 6), np.float32)


def sequences(y, size=None):
    def step(x, now):
        with numpyro.plate("sequence", 6, subsample_size=size) as i:
            x = numpyro.sample("x", dist.Bernoulli(jnp.where(x == 1, 0.8, 0.1)))
            numpyro.sample("y", dist.Normal(x * 1.0, 1.0), obs=now[i])
        return x, None

    scan(step, jnp.zeros(size or 6, int), y)


def test_one_that_is_subsampled_is_refused():
    """NumPyro draws other indices at each step: a chain would go from one element to another."""
    said = "plate 'sequence': it is subsampled inside of a scan.*expected all 6, got subsample_size=3; take all"
    with pytest.raises(ValueError, match=said):
        autovi.plan(sequences, {"y": Y, "size": 3})


@pytest.mark.parametrize("size", [None, 6])
def test_one_that_is_whole_is_not(size):
    assert autovi.plan(sequences, {"y": Y, "size": size})["x"].estimator == "marginalize"
