"""Draws from the prior and of the data that it leads to, against exact moments, and how ArviZ is given them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import constraints

import autovi
from autovi import prior

N = 4000
X = np.array([0.0, 1.0, 2.0])


def drawn(model, data=None, **options):
    return autovi.prior_predictive(model, data, **{"num_draws": N, **options})


def values(idata, group, name):
    return np.asarray(idata[group][name])[0]


def groups_of(idata):
    return set(idata.children) if hasattr(idata, "children") else set(idata.groups())


def assert_moments(draws, mean, variance):
    """Mean and variance within 4.5 standard errors, element by element."""
    draws = np.asarray(draws, np.float64)
    for values, exact in ((draws, mean), ((draws - mean) ** 2, variance)):
        error = values.std(axis=0) / np.sqrt(len(values))
        assert np.all(np.abs(values.mean(axis=0) - exact) < 4.5 * error + 1e-6), (values.mean(axis=0), exact, error)


def model(x, y=None):
    mu = numpyro.sample("mu", dist.Normal(1.0, 2.0))
    k = numpyro.sample("k", dist.Bernoulli(0.3))
    with numpyro.plate("row", len(x)):
        mean = numpyro.deterministic("mean", mu + 2.0 * k + x)
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)
    numpyro.factor("ignored", -mu)


DATA = {"x": pd.Series(X, index=pd.Index(["a", "b", "c"], name="row")), "y": np.array([7.0, 8.0, 9.0])}


@pytest.fixture(scope="module")
def idata():
    return drawn(model, DATA)


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_moments_of_parameters_and_data(idata):
    assert_moments(values(idata, "prior", "mu"), 1.0, 4.0)
    assert_moments(values(idata, "prior", "k"), 0.3, 0.21)
    assert_moments(values(idata, "prior", "mean"), 1.6 + X, 4.0 + 4 * 0.21)
    assert_moments(values(idata, "prior_predictive", "y"), 1.6 + X, 4.0 + 4 * 0.21 + 0.25)


def test_draws_of_one_key_belong_together(idata):
    mean = values(idata, "prior", "mu") + 2 * values(idata, "prior", "k")
    np.testing.assert_allclose(values(idata, "prior", "mean"), mean[:, None] + X, rtol=1e-6, atol=1e-6)
    assert_moments(values(idata, "prior_predictive", "y") - values(idata, "prior", "mean"), 0.0, 0.25)


def test_the_same_key_gives_the_same_draws(idata, monkeypatch):
    """Also where they are made one at a time."""
    expected = values(idata, "prior_predictive", "y")
    monkeypatch.setattr(prior, "BUDGET", 1)
    few = drawn(model, DATA, num_draws=N, rng_key=jax.random.key(0))
    # Programs of other sizes may round otherwise.
    np.testing.assert_allclose(values(few, "prior_predictive", "y"), expected, rtol=1e-5, atol=1e-5)
    other = drawn(model, DATA, num_draws=5, rng_key=1)
    assert not np.isin(values(other, "prior", "mu"), values(idata, "prior", "mu")).any()


def test_groups_dims_and_labels(idata):
    assert groups_of(idata) == {"prior", "prior_predictive", "observed_data", "constant_data"}
    assert list(idata["prior"].data_vars) == ["mu", "k", "mean"]
    assert list(idata["prior_predictive"].data_vars) == ["y"]
    assert idata["prior"]["mu"].dims == ("chain", "draw") and idata["prior"]["mu"].shape == (1, N)
    assert idata["prior"]["k"].dtype.kind == "i"
    for group, name in (("prior", "mean"), ("prior_predictive", "y")):
        assert idata[group][name].dims == ("chain", "draw", "row")
    for group, name, expected in (("observed_data", "y", DATA["y"]), ("constant_data", "x", X)):
        assert list(idata[group].data_vars) == [name] and idata[group][name].dims == ("row",)
        np.testing.assert_array_equal(idata[group][name], expected)
    for group in groups_of(idata):
        assert list(idata[group]["row"].values) == ["a", "b", "c"]


def test_what_the_data_leave_unobserved_is_prior():
    idata = drawn(model, {"x": X}, num_draws=20)
    assert groups_of(idata) == {"prior", "constant_data"}
    assert set(idata["prior"].data_vars) == {"mu", "k", "mean", "y"}


def test_a_model_without_arguments():
    idata = autovi.prior_predictive(lambda: numpyro.sample("z", dist.Poisson(3.0)), num_draws=N)
    assert groups_of(idata) == {"prior"}
    assert_moments(values(idata, "prior", "z"), 3.0, 3.0)
    assert autovi.prior_predictive(lambda: numpyro.sample("z", dist.Poisson(3.0)))["prior"]["z"].shape == (1, 500)


# --- models of many kinds --------------------------------------------------------------------------------------------


def test_missing_observations():
    """The part that is missing and the part that is there are drawn alike, and the whole stands beside them."""

    def missing(y, there):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(mu, 2.0), obs=y, obs_mask=there)

    idata = drawn(missing, {"y": np.array([50.0, 60.0, 0.0]), "there": np.array([True, True, False])})
    assert set(idata["prior_predictive"].data_vars) == {"y", "y_observed"}
    assert set(idata["prior"].data_vars) == {"mu", "y_unobserved"}
    assert idata["prior_predictive"]["y"].dims == ("chain", "draw", "row")
    assert_moments(values(idata, "prior_predictive", "y"), np.zeros(3), 5.0 * np.ones(3))


def test_masks_and_scales_change_no_draw():
    def masked(y):
        with handlers.mask(mask=False):
            mu = numpyro.sample("mu", dist.Normal(1.0, 2.0))
        with numpyro.plate("row", 2), handlers.scale(scale=7.0), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    idata = drawn(masked, {"y": np.zeros(2)})
    assert_moments(values(idata, "prior", "mu"), 1.0, 4.0)
    assert_moments(values(idata, "prior_predictive", "y"), np.ones(2), 5.0 * np.ones(2))


def test_subsampled_plates_are_whole():
    def subsampled(y):
        with numpyro.plate("row", 6, subsample_size=2) as index:
            z = numpyro.sample("z", dist.Normal(index * 1.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    idata = drawn(subsampled, {"y": np.arange(6.0) + 20.0})
    assert idata["prior"]["z"].shape == (1, N, 6)
    assert_moments(values(idata, "prior_predictive", "y"), np.arange(6.0), 2.0 * np.ones(6))
    np.testing.assert_array_equal(idata["observed_data"]["y"], np.arange(6.0) + 20.0)


def test_parameters_are_where_they_start_in_every_draw():
    def parameterized(y):
        fixed = numpyro.param("fixed", 3.0, constraint=constraints.positive)
        start = numpyro.param("start", lambda key: 10.0 * jax.random.normal(key, ()))
        numpyro.deterministic("seen", start + 0.0)
        numpyro.sample("y", dist.Normal(fixed, 1.0), obs=y)

    idata = drawn(parameterized, {"y": 0.0})
    assert_moments(values(idata, "prior_predictive", "y"), 3.0, 1.0)
    assert len(np.unique(values(idata, "prior", "seen"))) == 1


def random_walk(y):
    def step(level, obs):
        level = numpyro.sample("level", dist.Normal(level, 1.0))
        numpyro.sample("y", dist.Normal(level, 0.5), obs=obs)
        return level, None

    scan(step, 0.0, y)


def autoregression(y):
    """Later steps go on from what was observed at earlier ones."""
    shift = numpyro.sample("shift", dist.Normal(0.0, 1e-3))

    def step(last, obs):
        now = numpyro.sample("y", dist.Normal(0.5 * last + shift, 1.0), obs=obs)
        return now, None

    scan(step, jnp.zeros(()), y)


STEPS = np.arange(1, 5)


def test_scans():
    idata = drawn(random_walk, {"y": np.full(4, 100.0)})
    assert_moments(values(idata, "prior", "level"), np.zeros(4), STEPS * 1.0)
    assert_moments(values(idata, "prior_predictive", "y"), np.zeros(4), STEPS + 0.25)


AUTOREGRESSION = np.cumsum(0.25 ** np.arange(4))  # the variance of each step of y_t = y_{t-1} / 2 + noise


def test_steps_of_a_scan_go_on_from_draws():
    """And not from the data, 100 at every step."""
    idata = drawn(autoregression, {"y": np.full(4, 100.0)})
    assert_moments(values(idata, "prior_predictive", "y"), np.zeros(4), AUTOREGRESSION)
    np.testing.assert_array_equal(idata["observed_data"]["y"], np.full(4, 100.0))


@pytest.mark.slow
def test_predictions_of_a_scan_go_on_from_draws_too():
    y = np.array([1.0, 0.2, -1.5, 0.3])
    fit = autovi.fit(autoregression, {"y": y}, num_steps=30, num_draws=N, progress_bar=False)
    assert_moments(fit.predict(rng_key=1)["y"], np.zeros(4), AUTOREGRESSION)


def test_a_scan_that_observes_more_than_it_says():
    def wide(y):
        scan(lambda c, obs: (c, numpyro.sample("y", dist.Normal(0.0, 1.0), obs=obs)), 0.0, y)

    with pytest.raises(ValueError, match=r"'y': inside a scan or cond it is observed with shape \(3,\).*numpyro.plate"):
        drawn(wide, {"y": np.zeros((3, 3))})


def test_branches():
    def branching(y):
        def branch(mean):
            with numpyro.plate("row", 2):
                numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

        cond(jnp.sum(y) > 0, lambda _: branch(10.0), lambda _: branch(-10.0), None)

    assert_moments(values(drawn(branching, {"y": np.ones(2)}), "prior_predictive", "y"), np.full(2, 10.0), np.ones(2))


def test_one_distribution_for_many_observations_and_one_observation_for_many():
    def uneven(y):
        numpyro.sample("many", dist.Normal(0.0, 1.0), obs=y)
        with numpyro.plate("row", 2):
            numpyro.sample("one", dist.Normal(1.0, 1.0), obs=0.5)

    idata = drawn(uneven, {"y": np.zeros(3)})
    assert_moments(values(idata, "prior_predictive", "many"), np.zeros(3), np.ones(3))
    assert np.abs(np.corrcoef(values(idata, "prior_predictive", "many").T) - np.eye(3)).max() < 0.1
    assert_moments(values(idata, "prior_predictive", "one"), np.ones(2), np.ones(2))
    np.testing.assert_array_equal(idata["observed_data"]["one"], [0.5, 0.5])


def test_data_whose_values_a_model_needs():
    def counted(group, y):
        with numpyro.plate("groups", int(np.max(group)) + 1):
            level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(y)):
            numpyro.sample("y", dist.Normal(level[group], 1.0), obs=y)

    idata = drawn(counted, {"group": np.array([0, 1, 1, 2]), "y": np.zeros(4)})
    assert idata["prior"]["level"].dims == ("chain", "draw", "groups")
    assert_moments(values(idata, "prior_predictive", "y"), np.zeros(4), 2.0 * np.ones(4))


def test_sites_that_a_handler_has_set():
    idata = drawn(handlers.substitute(model, data={"mu": jnp.asarray(5.0)}), DATA)
    assert "mu" not in idata["prior"]
    assert_moments(values(idata, "prior_predictive", "y"), 5.6 + X, 4 * 0.21 + 0.25)


# --- what is refused -------------------------------------------------------------------------------------------------


class Unsampled(dist.Distribution):
    """A density alone."""

    support = constraints.real

    def log_prob(self, value):
        return -jnp.abs(value)


def test_priors_without_a_sampler_are_named():
    improper = dist.ImproperUniform(constraints.real, (), ())
    with pytest.raises(ValueError, match="site 'flat': ImproperUniform has no sampler.*give it a proper prior"):
        drawn(lambda: numpyro.sample("flat", improper))
    with pytest.raises(ValueError, match="site 'own': its distribution has no sampler"):
        drawn(lambda: numpyro.sample("own", Unsampled()))


def test_a_log_density_cannot_be_drawn_from():
    target = autovi.LogDensity(lambda params: -0.5 * params["mu"] ** 2, {"mu": 0.0})
    with pytest.raises(TypeError, match="prior_predictive: a LogDensity is a density alone.*write a NumPyro model"):
        drawn(target)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_draws": 0}, "num_draws: expected an integer of at least 1"),
        ({"rng_key": "seed"}, "rng_key: expected an integer or a jax key"),
        ({"data": {"x": X, "z": X}}, r"data does not fit the model.*takes \['x', 'y'\]"),
        ({"data": {"x": np.array([np.nan])}}, r"data\['x'\] has 1 NaN"),
    ],
)
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        autovi.prior_predictive(model, **{"data": DATA, **options})
