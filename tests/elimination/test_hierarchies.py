"""Hierarchies beside what is summed out: the coordinates of sites are found in the program in which sums are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

import autovi


def chain(y):
    """The levels of a chain's states, one for each step, written non-centred by hand in the scan."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Bernoulli(jnp.where(x == 1, 0.8, 0.1)))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * z + 3.0 * x, 0.5), obs=y)
        return x, None

    scan(step, 0, y)


def test_an_image_inside_of_a_scan():
    y = np.array([0.2, 0.5, 3.4, 3.1, 0.1, -0.2], np.float32)
    plan = autovi.plan(chain, {"y": y})
    assert plan["x"].estimator == "marginalize" and plan["z"].estimator != "marginalize"
    assert "z" in plan.noncentred
    assert np.isfinite(jax.device_get(autovi.fit(chain, {"y": y}, num_steps=10, progress_bar=False).losses)).all()
