"""A loaded fit takes the steps that the saved one took: the batches of its plates with the rest of the plan."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

Y = np.linspace(-2.0, 3.0, 12)


def all_rows(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 12) as index:
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])


def some_rows(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 12, subsample_size=6) as index:
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])


@pytest.mark.parametrize(
    ("model", "batch_size", "length"),
    [(all_rows, 3, 3), (all_rows, {"n": 3}, 3), (some_rows, None, 6), (some_rows, 3, 3)],
    ids=["one number", "by plate", "of the model", "other than the model's"],
)
def test_the_batches_come_back(model, batch_size, length, tmp_path):
    fit = autovi.fit(model, {"y": Y}, batch_size=batch_size, num_steps=5, progress_bar=False)
    fit.save(tmp_path / "fit.autovi", with_data=True)
    again = autovi.load(tmp_path / "fit.autovi", model)
    assert again.engine.program.sites.plates["n"].length == fit.engine.program.sites.plates["n"].length == length
    assert again.engine.full.sites.plates["n"].length == 12


def test_the_noise_of_the_gradient_is_that_of_the_batches(tmp_path):
    """Three rows of 12 at a time: with all of them the gradient would have a quarter of the noise."""
    fit = autovi.fit(all_rows, {"y": Y}, batch_size=3, num_steps=5, progress_bar=False)
    fit.save(tmp_path / "fit.autovi", with_data=True)
    assert autovi.load(tmp_path / "fit.autovi", all_rows).gradients == fit.gradients
