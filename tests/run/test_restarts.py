"""Restarts: what ends one of them, and what ends them all."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

Y = np.array([0.5, 1.0, 1.5, 3.0])


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.mark.parametrize("true", [True, np.True_, jnp.array(True)], ids=["Python", "NumPy", "JAX"])
def test_a_callback_ends_the_restart_that_runs(true):
    seen = []

    def callback(report):
        seen.append(report.step)
        return report.step >= 200 and true

    fit = autovi.fit(model, {"y": Y}, progress_bar=False, num_steps=500, num_restarts=3, callback=callback)
    assert seen == [100, 200] * 3
    assert (fit.status, fit.message, fit.losses.size) == ("stopped", "stopped by the callback after 200 steps", 200)


def test_a_fault_of_the_callback_ends_all_restarts():
    seen = []

    def callback(report):
        seen.append(report.step)
        if len(seen) == 3:
            raise KeyError("lr")

    fit = autovi.fit(model, {"y": Y}, progress_bar=False, num_steps=200, num_restarts=3, callback=callback)
    assert seen == [100, 200, 100] and fit.status == "stopped" and "KeyError: 'lr'" in fit.message
