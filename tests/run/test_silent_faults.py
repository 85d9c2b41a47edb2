"""Faults that show in no number: gradients that are not finite, no data at all, two fits at once."""

import threading
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

Y = np.array([0.9, -0.3, 1.4], np.float32)


def rooted(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(2 * jnp.where(z > 0, jnp.sqrt(z), 0.0), 1.0), obs=y)


@pytest.mark.parametrize("options", [{"learning_rate": 0.05}, {"num_steps": 20_000}])
def test_a_gradient_that_is_not_finite_ends_the_fit_and_says_what_to_do(options):
    fit = autovi.fit(rooted, {"y": Y}, progress_bar=False, **options)
    assert fit.status == "failed" and fit.losses.size <= 2000
    assert "site(s) ['z']" in fit.message and "differentiates both (sqrt)" in fit.message
    assert "where(z > 0, sqrt(where(z > 0, z, 1)), 0)" in fit.message and "estimators={'z': 'score'}" in fit.message


def test_what_the_message_advises_works():
    fit = autovi.fit(rooted, {"y": Y}, estimators={"z": "score"}, num_steps=500, progress_bar=False)
    assert fit.status == "max_steps" and fit.skipped_steps == 0


def test_other_operations_are_named():
    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.where(z > 0, jnp.exp(1.3 * jnp.log(z)), 0.0), 1.0), obs=y[0])

    assert "(log)" in autovi.fit(model, {"y": Y}, num_steps=2000, progress_bar=False).message


def unobserved(y=None):
    mu = numpyro.sample("mu", dist.Normal(3.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_no_observed_site():
    with pytest.warns(UserWarning, match="no observed site on these data, so that it is its prior that is fitted"):
        autovi.plan(unobserved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autovi.plan(unobserved, {"y": 0.3})


def test_a_factor_is_an_observation():
    def model():
        numpyro.factor("f", -(numpyro.sample("mu", dist.Normal(0.0, 1.0)) ** 2))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autovi.plan(model)


def test_fits_in_threads():
    """NumPyro's handlers are in one list of the process: each of these fits would see the sites of the others."""

    def model_of(name, shift):
        def model(y):
            mu = numpyro.sample(name, dist.Normal(0.0, 10.0))
            for i in range(30):  # long enough to be interrupted
                mu = mu + numpyro.deterministic(f"{name}_{i}", 0.0 * mu)
            with numpyro.plate("n", 3):
                numpyro.sample("y", dist.Normal(mu, 1.0), obs=y + shift)

        return model

    found: dict[int, object] = {}

    def fit(i):
        try:
            result = autovi.fit(model_of(f"mu{i}", float(i)), {"y": Y}, num_steps=300, progress_bar=False)
            found[i] = float(result.sample(200)[f"mu{i}"].mean())
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert found[i] == pytest.approx(float(Y.mean()) + i, abs=0.3)


def test_a_file_is_refused_by_a_model_of_another_constant(tmp_path):
    def model_of(scale):
        def model(y):
            mu = numpyro.sample("mu", dist.Normal(0.0, scale))
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])

        return model

    autovi.fit(model_of(2.0), {"y": Y}, num_steps=10, progress_bar=False).save(tmp_path / "fit", with_data=True)
    assert autovi.load(tmp_path / "fit", model_of(2.0)).losses.size == 10
    with pytest.raises(ValueError, match="another model: its sites are the same, but what it computes is not"):
        autovi.load(tmp_path / "fit", model_of(3.0))
