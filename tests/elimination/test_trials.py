"""A latent number of trials with a finite support."""

import errors_page_models as m
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import autovi

COUNTS = np.array([7, 9, 12, 5, 8])


def test_a_finite_support_of_a_latent_number_of_trials_is_summed_out_exactly():
    """The unseen are Poisson(20 * 0.6)."""
    result = autovi.fit(m.summed_trials, {"y": COUNTS}, progress_bar=False)
    draws = result.sample(4000)["N"]
    np.testing.assert_allclose(draws.mean(0), COUNTS + 12.0, atol=4 * 12**0.5 / 4000**0.5)
    np.testing.assert_allclose(draws.std(0), 12**0.5, rtol=0.06)
    evidence = dist.Poisson(20.0 * 0.4).log_prob(jnp.asarray(COUNTS)).sum()
    np.testing.assert_allclose(result.elbo, evidence, atol=1e-3)
