"""What a fit gives back, on models at the edges: subsampled, discrete only, without data, scans, odd names."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.handlers import scope
from scipy import stats

import autovi

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1


def quick(model, data=None, **options):
    return autovi.fit(model, data, **{"num_steps": 30, "num_draws": 100, "progress_bar": False, **options})


def groups_of(idata):
    return set(idata.children) if ARVIZ_1 else set(idata.groups())


def elpd_of(loo):
    return loo.elpd if ARVIZ_1 else loo.elpd_loo


@pytest.mark.slow
def test_scan_draws_and_a_site_of_its_own_scale():
    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))

        def step(level, obs):
            level = numpyro.sample("level", dist.Normal(level, 0.5))
            numpyro.sample("y", dist.Normal(level, rate), obs=obs)
            return level, level

        scan(step, jnp.zeros(()), y)

    fit = quick(model, {"y": np.array([0.1, 0.3, 0.2, 0.6, 0.5])})
    assert fit.idata["posterior"]["level"].shape == (1, 100, 5)
    assert fit.idata["log_likelihood"]["y"].shape == (1, 100, 5)
    assert fit.idata["posterior_predictive"]["y"].shape == (1, 100, 5)
    expected = stats.norm(fit.draws.values["level"], fit.draws.values["rate"][:, None]).logpdf(
        [0.1, 0.3, 0.2, 0.6, 0.5]
    )
    np.testing.assert_allclose(fit.draws.log_likelihoods["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_subsampled_plates_are_whole_in_the_result():
    y = np.random.default_rng(0).normal(size=10)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", y.shape[0], subsample_size=4) as index:
            b = numpyro.sample("b", dist.Normal(mu, 1.0))
            s = numpyro.sample("s", dist.Bernoulli(0.3))
            numpyro.deterministic("total", b + s)
            numpyro.sample("y", dist.Normal(b + s, 1.0), obs=y[index])

    fit = quick(model, {"y": pd.Series(y, index=list("abcdefghij"))})
    idata = fit.idata
    for name in ("b", "s", "total"):
        assert idata["posterior"][name].dims == ("chain", "draw", "n")
        assert idata["posterior"][name].shape == (1, 100, 10)
    assert idata["posterior_predictive"]["y"].shape == idata["log_likelihood"]["y"].shape == (1, 100, 10)
    np.testing.assert_allclose(idata["observed_data"]["y"].values, y, rtol=1e-6)
    assert list(idata["observed_data"]["n"].values) == list("abcdefghij")
    assert "constant_data" not in groups_of(idata)
    d = fit.draws.values
    expected = stats.norm(d["b"] + d["s"]).logpdf(y)
    np.testing.assert_allclose(idata["log_likelihood"]["y"].values[0], expected, rtol=1e-4, atol=1e-4)
    # Every element counts once: the log joint of the full plates.
    joint = stats.norm(0, 1).logpdf(d["mu"]) + stats.norm(d["mu"][:, None]).logpdf(d["b"]).sum(1)
    joint = joint + stats.bernoulli(0.3).logpmf(d["s"]).sum(1) + expected.sum(1)
    np.testing.assert_allclose(fit.draws.log_p, joint, rtol=1e-4)


def test_only_discrete_sites():
    """Summed out exactly: nothing to optimize, and an exact result."""

    def model(y):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        numpyro.sample("y", dist.Normal(1.0 * k, 1.0), obs=y)

    fit = quick(model, {"y": 1.8}, num_draws=4000)
    joint = np.array([0.2, 0.5, 0.3]) * stats.norm(np.arange(3)).pdf(1.8)
    assert fit.elbo == pytest.approx(np.log(joint.sum()), abs=1e-5) and fit.elbo_se < 1e-5
    assert fit.status == "converged" and "nothing to optimize" in fit.message
    assert fit.params == {} and fit.gradients == {} and np.isnan(fit.khat)
    frequencies = np.bincount(fit.draws.values["k"], minlength=3) / 4000
    np.testing.assert_allclose(frequencies, joint / joint.sum(), atol=4 * 0.5 / 4000**0.5)
    assert "k" in fit.summary().index and repr(fit)


def test_only_discrete_sites_with_parameters():
    def model(y):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        numpyro.sample("y", dist.Normal(1.0 * k, 1.0), obs=y)

    fit = quick(model, {"y": 1.8}, num_steps=400, num_draws=4000, estimators={"k": "enumerate"})
    joint = np.array([0.2, 0.5, 0.3]) * stats.norm(np.arange(3)).pdf(1.8)
    probs = np.asarray(jax.nn.softmax(fit.params["k.logits"]))
    np.testing.assert_allclose(probs, joint / joint.sum(), atol=0.02)
    np.testing.assert_allclose(np.bincount(fit.draws.values["k"], minlength=3) / 4000, probs, atol=0.035)


@pytest.mark.slow
def test_no_observations():
    """The prior itself: no data, no likelihood groups."""

    def model():
        mu = numpyro.sample("mu", dist.Normal(1.0, 2.0))
        with numpyro.plate("n", 3):
            numpyro.sample("b", dist.Normal(mu, 1.0))

    fit = quick(model, num_steps=300, num_draws=1000)
    assert groups_of(fit.idata) == {"posterior", "sample_stats"}
    assert fit.idata["posterior"]["b"].dims == ("chain", "draw", "n")
    assert fit.elbo == pytest.approx(0.0, abs=0.15)
    assert fit.predict() == {}
    assert len(fit.summary()) == 4


def held_out(y, i):
    """log p(y_i | the others) of normal observations with a normal mean."""
    rest = np.delete(y, i)
    variance = 1 / (1 + rest.size)
    return stats.norm(rest.sum() * variance, (1 + variance) ** 0.5).logpdf(y[i])


@pytest.mark.slow
def test_likelihood_without_a_plate():
    """One distribution, many observations: predictions have the shape of the data."""

    def model(x, y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    y = np.array([0.2, 0.7, -0.4, 1.1, 0.3])
    fit = quick(model, {"x": 3, "y": y}, num_steps=300, num_draws=500)
    for group in ("posterior_predictive", "log_likelihood"):
        assert fit.idata[group]["y"].dims == ("chain", "draw", "y_dim_0")
        assert fit.idata[group]["y"].shape == (1, 500, 5)
    np.testing.assert_allclose(
        fit.draws.log_likelihoods["y"], stats.norm(fit.draws.values["mu"][:, None]).logpdf(y), rtol=1e-4, atol=1e-4
    )
    noise = fit.idata["posterior_predictive"]["y"].values[0] - fit.draws.values["mu"][:, None]
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5  # each observation has noise of its own
    assert "constant_data" not in groups_of(fit.idata)  # x is a plain number
    loo = az.loo(fit.to_arviz(), pointwise=True)
    assert loo.pareto_k.shape == (5,) and (loo.pareto_k < 0.7).all()
    exact = [held_out(y, i) for i in range(5)]
    assert elpd_of(loo) == pytest.approx(sum(exact), abs=0.5)


@pytest.mark.slow
def test_scoped_sites_and_arguments_named_like_sites():
    """A "/" in a name, and an argument called like a site of another shape."""

    def inner(rate):
        with numpyro.plate("n", rate.shape[1]):
            numpyro.sample("rate", dist.Normal(0.0, 1.0))

    def model(rate, y):
        scope(inner, "sub")(rate)
        b = numpyro.sample("b", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
        with numpyro.plate("m", 2):
            # What is observed is another array than the argument.
            numpyro.sample("y", dist.Normal(b[0], 1.0), obs=jnp.log(y[0]))

    fit = quick(model, {"rate": np.ones((4, 3)), "y": np.ones((3, 2))})
    assert {"sub.rate", "b"} == set(fit.idata["posterior"].data_vars)
    assert fit.sample(2)["sub/rate"].shape == (2, 3)
    assert fit.idata["observed_data"]["y"].dims == ("m",)
    assert fit.idata["constant_data"]["y_data"].shape == (3, 2)
    assert fit.idata["constant_data"]["rate"].shape == (4, 3)


@pytest.mark.slow
def test_observations_in_part():
    """obs_mask: what is missing is a latent site, and the whole a deterministic one."""

    def model(y, seen):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 4):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    y, seen = np.array([0.1, 0.4, 9.0, 0.3]), np.array([True, True, False, True])
    fit = quick(model, {"y": y, "seen": seen})
    idata = fit.idata
    assert set(idata["posterior"].data_vars) == {"mu", "y_unobserved", "y"}
    assert set(idata["log_likelihood"].data_vars) == {"y_observed"}
    np.testing.assert_array_equal(idata["log_likelihood"]["y_observed"].values[0, :, 2], 0.0)
    np.testing.assert_allclose(idata["posterior"]["y"].values[0][:, seen], np.tile(y[seen], (100, 1)), rtol=1e-6)
    assert np.ptp(idata["posterior"]["y"].values[0][:, 2]) > 0


def test_random_keys_and_factors_among_the_sites():
    """A key of the user's is no data for ArviZ, and a factor no likelihood."""

    def model(key, y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.factor("penalty", -0.5 * mu**2 + 0.0 * jax.random.normal(key))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = quick(model, {"key": jax.random.key(3), "y": 0.5})
    assert set(fit.idata["log_likelihood"].data_vars) == {"y"}
    assert groups_of(fit.idata) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "sample_stats",
        "observed_data",
    }
    expected = sum(stats.norm(0, 1).logpdf(fit.draws.values["mu"]) for _ in range(1)) - fit.draws.values["mu"] ** 2 / 2
    expected = expected + stats.norm(fit.draws.values["mu"]).logpdf(0.5)
    np.testing.assert_allclose(fit.draws.log_p, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_parameter_sites_and_guide_functions():
    def model(y):
        tau = numpyro.param("tau", 2.0, constraint=dist.constraints.positive)
        mu = numpyro.sample("mu", dist.Normal(0.0, tau))
        with numpyro.plate("n", 3):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def guide(y):
        loc = numpyro.param("loc", 0.0)
        numpyro.sample("mu", dist.Normal(loc, numpyro.param("scale", 0.5, constraint=dist.constraints.positive)))

    fit = quick(model, {"y": np.array([1.0, 2.0, 3.0])}, guide=guide, num_steps=600)
    assert set(fit.params) == {"tau", "loc", "scale"} == set(fit.gradients)
    # The evidence is greatest at tau^2 = mean^2 - 1/3, where the posterior of mu is normal.
    tau2 = 4.0 - 1 / 3
    precision = 3 + 1 / tau2
    assert fit.params["tau"] == pytest.approx(tau2**0.5, rel=0.05)
    assert fit.params["loc"] == pytest.approx(6 / precision, rel=0.05)
    assert fit.params["scale"] == pytest.approx(precision**-0.5, rel=0.05)
    assert set(fit.idata["posterior"].data_vars) == {"mu"}


def test_one_draw_has_no_error():
    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.3)

    fit = quick(model, num_draws=1)
    assert np.isfinite(fit.elbo) and np.isnan(fit.elbo_se) and np.isnan(fit.khat)
    assert fit.idata["posterior"]["mu"].shape == (1, 1)


@pytest.mark.parametrize("guided", [False, True], ids=["own guide", "guide function"])
def test_fewer_elements_than_a_plate_asks_for_are_taken_whole_and_in_order(guided):
    def of_at_most(length):
        def model(x, y=None):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            with numpyro.plate("row", len(x), subsample_size=length) as i:
                z = numpyro.sample("z", dist.Normal(mu, 1.0))
                there = numpyro.deterministic("there", x[i])
                numpyro.sample("y", dist.Normal(z + there, 1.0), obs=None if y is None else y[i])

        def guide(x, y=None):
            numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 1.0))
            with numpyro.plate("row", len(x), subsample_size=length) as i:
                numpyro.sample("z", dist.Normal(numpyro.param("at", jnp.zeros(len(x)))[i], 1.0))

        return model, guide if guided else "auto"

    def fitted(length, x):
        model, guide = of_at_most(length)
        return quick(model, {"x": x, "y": 2.0 * x}, guide=guide)

    x = np.arange(12.0)
    few, whole = fitted(10, x[:5]), fitted(5, x[:5])
    np.testing.assert_array_equal(few.losses, whole.losses)
    assert few.elbo == whole.elbo and (few.draws.values["there"] == x[:5]).all()
    for rows in (1, 3, 11):
        new = {"x": x[:rows]}
        predicted = fitted(10, x).to_arviz(["predictions"], new_data=new)["predictions"]
        assert predicted["y"].dims == ("chain", "draw", "row") and (predicted["there"] == x[:rows]).all()
