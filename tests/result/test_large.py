"""Fits whose draws are large: the same numbers, made in parts, and nothing that was not asked for."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.result import evidence
from autovi.result import weighed as weighed_module
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
    assert fit.is_light  # found out before `large` changes what is
    return fit


@pytest.fixture
def large(monkeypatch, light):
    """The same fit with room for the numbers of 16 draws: nine parts, the last one not full."""
    budget = 16 * 52
    for module in (weighed_module, drawing_module):
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
    assert light.is_light and not large.is_light
    assert (large.elbo, large.khat) == pytest.approx((light.elbo, light.khat), rel=1e-5)
    assert_same(large.draws.values, light.draws.values)
    assert_same(large.log_likelihoods, light.log_likelihoods)
    assert_same(large.sample(40, rng_key=3), light.sample(40, rng_key=3))
    assert large.log_likelihoods["y"].shape == (130, 50)
    for group in ("posterior", "log_likelihood", "posterior_predictive", "sample_stats"):
        assert_same(*({n: v.values for n, v in f.idata[group].data_vars.items()} for f in (large, light)))


def test_only_what_is_asked_for_is_made(large):
    large.sample(50, resample=False)
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
    with pytest.raises(ValueError, match=r"groups: unknown name 'likelihood'; expected some of \['posterior', "):
        light.to_arviz(groups=["likelihood"])
    with pytest.raises(ValueError, match="^groups: unknown name 'posteriors'; expected some of"):
        light.to_arviz("posteriors")


def test_one_group_by_its_name(light):
    assert set(light.to_arviz("posterior")["posterior"].data_vars) == set(light.sample(1))


def test_another_number_of_draws(light):
    idata = light.to_arviz(groups=["posterior", "sample_stats"], num_draws=40)
    assert idata["posterior"]["mu"].shape == (1, 40) == idata["sample_stats"]["lp"].shape
    assert light.num_draws == 130 and light.idata["posterior"]["mu"].shape == (1, 130)
    with pytest.raises(ValueError, match="num_draws: expected an integer of at least 1"):
        light.to_arviz(num_draws=0)


def test_predictions_in_parts_are_the_same(light):
    whole = light.predict()
    for batch_size in (1, 17, 1000):
        assert_same(light.predict(batch_size=batch_size), whole)
    with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1 or None, got 0"):
        light.predict(batch_size=0)


def in_batches(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 50, subsample_size=10) as i:
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])


def quick_in_batches(num_draws):
    return autovi.fit(in_batches, {"y": Y}, num_steps=800, num_draws=num_draws, progress_bar=False)


def test_fewer_draws_are_weighed_where_a_pass_over_the_data_is_long(monkeypatch):
    few = quick_in_batches(200)
    monkeypatch.setattr(weighed_module.Weighed, "is_light", property(lambda self: False))
    monkeypatch.setattr(evidence, "WEIGHED_NUMBERS", 60 * few.engine.numbers_per_draw)
    assert few.estimated_from == "60 draws at full plates"
    some = few.elbo, few.elbo_se, few.khat
    monkeypatch.undo()
    full = quick_in_batches(200)
    assert full.estimated_from == "200 draws at full plates"
    # They are the first of all: their mean differs by the standard error of the rest.
    assert abs(some[0] - full.elbo) < 4.5 * some[1] + 1e-3 and some[1] > full.elbo_se
    assert np.isfinite(some[2]) and few.khat_se == pytest.approx((1 + few.khat) / 12**0.5)


def test_batches_where_no_pass_over_the_data_is_short(monkeypatch):
    full = quick_in_batches(4000)
    exact = full.elbo
    monkeypatch.setattr(weighed_module.Weighed, "is_light", property(lambda self: False))
    monkeypatch.setattr(evidence, "WEIGHED_NUMBERS", 20 * full.engine.numbers_per_draw)
    rough = quick_in_batches(4000)
    assert rough.estimated_from == "4000 draws on batches of 10 of the 50 elements of 'n'; k-hat is not estimated"
    assert abs(rough.elbo - exact) < 4.5 * rough.elbo_se and full.elbo_se < rough.elbo_se < 1.0
    assert np.isnan(rough.khat) and np.isnan(rough.khat_se)
    assert "k-hat: not estimated: to weigh draws would take minutes" in repr(rough)
    (note,) = (text.get_text() for text in rough.plot("weights").axes[0].texts)
    assert note.startswith("no draws are weighed")
