"""The gradient of a Kullback-Leibler divergence along implicit draws, against its closed form.

With no data the ELBO is minus the divergence from the prior: what a fit of a conjugate model optimizes.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from jax.scipy.special import i0e, i1e

from autovi import implicit


def between_von_mises(q, p):
    """KL of von Mises distributions: E_q cos(z - loc_p) = A(k_q) cos(loc_q - loc_p), A = I1/I0."""
    k, r = q.concentration, p.concentration
    length = i1e(k) / i0e(k)
    log_normalizer = lambda k: jnp.log(i0e(k)) + k  # noqa: E731
    return k * length - log_normalizer(k) - r * length * jnp.cos(q.loc - p.loc) + log_normalizer(r)


PAIRS = {
    "Normal": (dist.Normal, {"loc": 0.4, "scale": 0.7}, dist.Normal(0.0, 1.0)),
    "Gamma": (dist.Gamma, {"concentration": 0.6, "rate": 1.4}, dist.Gamma(2.0, 1.0)),
    "Beta": (dist.Beta, {"concentration1": 2.0, "concentration0": 0.8}, dist.Beta(1.0, 1.5)),
    "Dirichlet": (dist.Dirichlet, {"concentration": jnp.array([0.6, 1.5, 3.0])}, dist.Dirichlet(jnp.ones(3))),
    "VonMises": (dist.VonMises, {"loc": 0.4, "concentration": 2.0}, dist.VonMises(-0.5, 0.7)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_kl_gradient(name):
    make, params, prior = PAIRS[name]
    params = jax.tree.map(jnp.asarray, params)
    exact = between_von_mises if name == "VonMises" else dist.kl_divergence

    def estimate(params, rng_key):
        def divergence(params):
            q = make(**params)
            z = implicit.sample(rng_key, q)
            return q.log_prob(z) - prior.log_prob(z)

        return jax.grad(divergence)(params)

    assert_unbiased(batched(estimate), (params,), flat(jax.grad(lambda p: exact(make(**p), prior))(params)))
