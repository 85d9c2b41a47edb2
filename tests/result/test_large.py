"""Fits whose draws are large: the same numbers, made in parts, and nothing that was not asked for."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.result import fit as fit_module
from autovi.run import drawing as drawing_module

Y = np.random.default_rng(0).normal(size=50).astype(np.float32)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    k = numpyro.sample("k", dist.Bernoulli(0.3))
    with numpyro.plate("n", 50):
        numpyro.deterministic("mean", mu + k + jnp.zeros(50))
        numpyro.sample("y", dist.Normal(mu + k, 1.0), obs=y)


def quick():
    return autovi.fit(model, {"y": Y}, num_steps=100, num_draws=130, progress_bar=False)


@pytest.fixture(scope="module")
def light():
    fit = quick()
    assert fit._light  # found out before `large` changes what is
    return fit


@pytest.fixture
def large(monkeypatch, light):
    """The same fit with room for the numbers of 16 draws: nine parts, the last one not full."""
    budget = 16 * 52
    for module in (fit_module, drawing_module):
        monkeypatch.setattr(module, "DRAWS_BUDGET", budget)
    fit = quick()
    fit.engine._jitted.clear()
    yield fit
    fit.engine._jitted.clear()


def kinds_made(fit):
    return {key[2] for key in fit.engine._jitted if key[0] == "draws"}


def assert_same(a, b):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_everything_is_the_same(light, large):
    assert light._light and not large._light
    assert (large.elbo, large.khat) == pytest.approx((light.elbo, light.khat), rel=1e-5)
    assert_same(large.draws.values, light.draws.values)
    assert_same(large.log_likelihoods, light.log_likelihoods)
    assert_same(large.sample(40, rng_key=3), light.sample(40, rng_key=3))
    assert large.log_likelihoods["y"].shape == (130, 50)
    for group in ("posterior", "log_likelihood", "posterior_predictive", "sample_stats"):
        assert_same(*({n: v.values for n, v in f.idata[group].data_vars.items()} for f in (large, light)))


def test_only_what_is_asked_for_is_made(large):
    large.sample(50)
    assert kinds_made(large) == {("value",)}
    assert np.isfinite(large.elbo) and kinds_made(large) == {("value",), ("density",)}
    large.summary()
    assert kinds_made(large) == {("value",), ("density",)}
    stats = large.to_arviz(groups=["sample_stats"])
    assert kinds_made(large) == {("value",), ("density",)}
    with pytest.raises(KeyError):
        stats["posterior"]
    large.to_arviz(groups=["log_likelihood"])
    assert ("likelihood",) in kinds_made(large)


def test_groups_by_name(light):
    idata = light.to_arviz(groups=["posterior", "observed_data"])
    assert "mu" in idata["posterior"] and "y" in idata["observed_data"]
    with pytest.raises(ValueError, match=r"groups: \['likelihood'\] are none of \['posterior', "):
        light.to_arviz(groups=["likelihood"])
