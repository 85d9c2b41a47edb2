"""Permutations: orders of three items in a plate."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from autovi.distributions import PlackettLuce, PlackettLuceMatrix

from .base import Oracle, declare

ORDERS = np.array(list(itertools.permutations(range(3))))


def log_pmf(logits) -> jax.Array:
    """log q of each of the orders `[..., 6]`: item by item, of those that are left."""
    chosen = jnp.asarray(logits)[..., ORDERS]
    return sum(chosen[..., i] - jax.nn.logsumexp(chosen[..., i:], -1) for i in range(3))


def _orders(name: str, distribution: type, arranged: Callable, estimators: tuple[str, ...]) -> Oracle:
    """z_i ~ PL(prior) in a plate of three, two at a time, y_i ~ N(x[z_i], 0.9); z_i as a vector or as a matrix."""
    data = np.array([[0.4, 1.9, -0.8], [2.2, -0.3, 0.9], [0.1, 0.8, 1.6]])
    x, prior = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 0.0, -0.4])
    params = {"logits": np.array([[0.3, -0.5, 0.8], [0.9, 0.4, -0.6], [-0.7, 0.2, 0.6]])}

    def model(y):
        with numpyro.plate("N", 3, subsample_size=2) as idx:
            z = numpyro.sample("z", distribution(jnp.asarray(prior)))
            numpyro.sample("y", dist.Normal(arranged(jnp.asarray(x), z), 0.9).to_event(1), obs=jnp.asarray(y)[idx])

    def guide(y):
        logits = declare(params)["logits"]
        with numpyro.plate("N", 3, subsample_size=2) as idx:
            numpyro.sample("z", distribution(logits[idx]))

    residuals = (data[:, None, :] - x[ORDERS][None]) / 0.9
    log_lik = (-0.5 * residuals**2 - np.log(0.9) - 0.5 * np.log(2 * np.pi)).sum(-1)

    def exact_elbo(p):
        log_q = log_pmf(p["logits"])
        return (jnp.exp(log_q) * (log_pmf(prior)[None] + log_lik - log_q)).sum()

    return Oracle(name, model, guide, {"y": data}, params, exact_elbo, {"z": estimators})


ORACLES: tuple[Oracle, ...] = (
    _orders("orders", PlackettLuce, lambda x, z: x[z], ("score", "relax_permutation", "unordered_set")),
    _orders("order_matrices", PlackettLuceMatrix, lambda x, z: z @ x, ("score",)),
)
