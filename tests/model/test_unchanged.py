"""Where a model need not be looked at again after a fit, and that it is looked at otherwise."""

import time

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.model.unchanged import is_known_unchanged, nothing_between

Y = np.zeros(3)


def test_a_model_is_looked_at_again_but_where_nothing_comes_between():
    scale = [1.0]

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, scale[0]))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)

    fit = autovi.fit(model, {"y": Y}, num_draws=100, progress_bar=False)
    scale[0] = 5.0
    with pytest.raises(ValueError, match="model: it has changed since the fit"):
        fit.sample(50, rng_key=1)
    with nothing_between():
        assert is_known_unchanged() and fit.sample(50, rng_key=1)["mu"].shape == (50,)
    assert not is_known_unchanged()
    with pytest.raises(ValueError, match="model: it has changed since the fit"):
        fit.sample(50, rng_key=1)


def test_a_calibration_looks_once():
    """A model that reads the clock is no model, for one fit and for many."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0 + time.perf_counter()))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)

    with pytest.raises(ValueError, match="model: "):
        autovi.calibrate(model, {"y": Y}, num_simulations=2, progress_bar=False)
