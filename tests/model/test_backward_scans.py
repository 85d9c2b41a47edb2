"""A scan that runs backward: element t of what it makes is that of its data's row t, wherever it is looked up."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autovi

Y = np.array([10.0, 5.0, 1.0, -3.0, -8.0])
NOISE = 0.1


def model(y, reverse=True):
    scale = numpyro.sample("scale", dist.HalfNormal(5.0))

    def step(after, y):
        x = numpyro.sample("x", dist.Normal(after, scale))
        numpyro.deterministic("twice", 2 * x)
        numpyro.sample("y", dist.Normal(x, NOISE), obs=y)
        return x, None

    scan(step, 0.0, y, reverse=reverse)


def guide(y):
    numpyro.sample("scale", dist.LogNormal(numpyro.param("log_scale", 1.5), 0.1))
    numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.asarray(y)), NOISE).to_event(1))


def fitted(model=model, y=Y, **options):
    return autovi.fit(model, {"y": y}, num_draws=200, progress_bar=False, **options)


@pytest.mark.parametrize("options", [{}, {"guide": guide, "num_steps": 300}], ids=["own guide", "guide function"])
def test_everything_is_in_the_order_of_the_data(options):
    fit = fitted(**options)
    draws, predicted = fit.draws.values, fit.predict()
    # Five means, each of 200 draws with an sd of about 0.1: six standard errors, and what the guide lacks.
    assert np.abs(draws["x"].mean(0) - Y).max() < 0.1
    np.testing.assert_allclose(draws["twice"], 2 * np.asarray(draws["x"]), rtol=1e-6)
    assert np.abs(predicted["y"].mean(0) - Y).max() < 0.15
    assert np.abs(predicted["twice"].mean(0) - 2 * Y).max() < 0.2


def test_it_is_the_forward_scan_of_the_data_turned_around():
    backward, forward = fitted(), fitted(lambda y: model(y, reverse=False), Y[::-1])
    assert backward.elbo == pytest.approx(forward.elbo, abs=5 * np.hypot(backward.elbo_se, forward.elbo_se))


def test_init_is_in_the_order_of_the_data():
    # One step of a rate of zero: q stays where it starts.
    fit = fitted(init={"scale": 5.0, "x": Y}, num_steps=1, learning_rate=1e-9, guide="mean_field")
    assert np.abs(fit.draws.values["x"].mean(0) - Y).max() < 0.1


def test_probabilities_of_a_discrete_site_are_those_of_their_rows():
    prior, odds = np.log(0.3 / 0.7), 10.0 * Y / 9.0  # log N(y; -5, 3) - log N(y; 5, 3) is -10 y / 9

    def model(y):
        def step(carry, y):
            z = numpyro.sample("z", dist.Bernoulli(0.7))
            numpyro.sample("y", dist.Normal(10.0 * z - 5.0, 3.0), obs=y)
            return carry, None

        scan(step, 0.0, y, reverse=True)

    fit = fitted(model, num_steps=2000)
    expected = 1 / (1 + np.exp(prior - odds))
    # 4,000 draws: an sd of at most 0.008, and what 2,000 steps leave of the optimum.
    np.testing.assert_allclose(fit.sample(4000)["z"].mean(0), expected, atol=0.06)
