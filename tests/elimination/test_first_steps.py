"""The first steps of a chain see what the scan starts with, which is not the first value of its support."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from scipy.special import logsumexp
from scipy.stats import norm

import autovi

P = np.array([[0.9, 0.1], [0.25, 0.75]])
Y = np.array([0.3, 1.4, -0.2, 0.9, 1.1], np.float32)


def chain(y, history, reverse):
    """Each step depends on the one `history` steps before; before the first step the states are 1."""

    def step(before, y):
        x = numpyro.sample("x", dist.Categorical(jnp.asarray(P)[before[0]]))
        numpyro.sample("y", dist.Normal(x + 0.5 * before[0], 1.0), obs=y)
        return (*before[1:], x), None

    scan(step, (1,) * history, y, reverse=reverse)


def log_weight(states, history, reverse):
    """Of a configuration in the order of the axis."""
    order, seen = (states[::-1], Y[::-1]) if reverse else (states, Y)
    before = (1,) * history + tuple(order)
    return sum(np.log(P[before[t], x]) + norm.logpdf(seen[t], x + 0.5 * before[t]) for t, x in enumerate(order))


@pytest.mark.parametrize(("history", "reverse"), [(1, False), (1, True), (2, False), (2, True)])
def test_evidence_and_probabilities(history, reverse):
    data = {"y": Y, "history": history, "reverse": reverse}
    result = autovi.fit(chain, data, progress_bar=False)
    states = list(product(range(2), repeat=len(Y)))
    log = np.array([log_weight(s, history, reverse) for s in states])
    assert result.plan["x"].estimator == "marginalize"
    assert result.elbo == pytest.approx(logsumexp(log), abs=1e-4)
    exact = np.exp(log - logsumexp(log)) @ np.array(states)
    np.testing.assert_allclose(result.marginals()["x"][:, 1], exact, atol=1e-3)
