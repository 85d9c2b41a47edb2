"""RODEO: exactly unbiased with any coefficients and network, and as good as its peers where the cost is quadratic."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from test_variances import THREE, gradients, squared, trained

from autovi.estimators import Disarm, DoubleCV, Rodeo, Score
from autovi.estimators.base import Cost, Density, Draw
from autovi.families.base import Layout

LOGIT = np.array([0.4, -0.9])


def cost_of(shared):
    """f of both numbers of an event `[particles]`, or each element's own `[particles, 2]`."""
    weights = jnp.array([1.5, -0.7])
    joint = lambda b: jnp.exp(b @ weights) + 2.0 * jnp.prod(b, -1)  # noqa: E731
    return joint if shared else lambda b: jnp.exp(b * weights) - 3.0 * b**2


def estimate(value, shared, particles, params):
    """The estimate of the gradient in the logits by draws `[particles, 2]`."""
    cost = cost_of(shared)
    total = cost if shared else lambda b: jnp.sum(cost(b), -1)

    def surrogate(logit):
        one = lambda own: dist.Bernoulli(logits=own).to_event(1 if shared else 0)  # noqa: E731
        q = jax.vmap(one)(jnp.broadcast_to(logit, (particles, 2)))
        return Rodeo().surrogate(Density(q, q.log_prob), Draw(value), Cost(cost(value), cost, total), params)[0]

    return jax.grad(surrogate)(jnp.asarray(LOGIT))


@pytest.mark.parametrize("particles", [2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_the_mean_over_all_draws_is_exact(shared, particles):
    with jax.enable_x64(True):
        event = ((), (2,)) if shared else ((2,), ())
        params = Rodeo().init(jax.random.key(0), Layout(*event))
        known = {"weight": jnp.ones(()), "mean": jnp.array(2.0), "variance": jnp.array(4.0)}
        known |= {"squares": jnp.eye(4), "products": jnp.array([-0.7, 0.4, 0.9, -1.2])}
        draws = jnp.array(list(product([0.0, 1.0], repeat=2 * particles))).reshape(-1, particles, 2)
        p = jax.nn.sigmoid(LOGIT)
        weights = jnp.prod(jnp.where(draws == 1, p, 1 - p), (1, 2))
        found = jax.vmap(lambda b: estimate(b, shared, particles, params | {"moments": known}))(draws)
        plain = jax.vmap(lambda b: estimate(b, shared, particles, params))(draws)
        cost = cost_of(shared)

        def expected(logit):
            values = jnp.array(list(product([0.0, 1.0], repeat=2)))
            p = jax.nn.sigmoid(logit)
            f = cost(values) if shared else jnp.sum(cost(values), -1)
            return jnp.sum(jnp.prod(jnp.where(values == 1, p, 1 - p), -1) * f)

        exact = jax.grad(expected)(jnp.asarray(LOGIT))
        assert jnp.abs(found - plain).max() > 0.1  # the control variates are there
        np.testing.assert_allclose(np.asarray(weights @ found), np.asarray(exact), rtol=1e-10)


def test_a_quadratic_cost():
    logit = jnp.log(THREE) - jnp.log1p(-THREE)
    cost = lambda b: squared(0.2)(b) + jnp.sum(b) ** 2  # noqa: E731
    variance = {}
    for estimator in (Score(), DoubleCV(), Rodeo()):
        own = trained(logit, cost, estimator, 2, 2_000) if not isinstance(estimator, Score) else None
        found = gradients(logit, cost, estimator, 2, 30_000, own)
        variance[estimator.name] = found.var(0).sum()
    variance["disarm"] = gradients(logit, cost, Disarm(), 1, 30_000).var(0).sum()
    # Found: 0.50, 1.20, 4.8 and 6.5.
    assert variance["rodeo"] < 0.7 * variance["double_cv"] < 0.4 * variance["disarm"] < variance["score"]
