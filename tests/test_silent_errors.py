"""Programs with which a reviewer once got a wrong answer without a word. Each must be right or say what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.preparation import Options, prepare


def engine_of(model, data=None, **options):
    return prepare(model, {"y": 1.0} if data is None else data, Options(**options))[0]


# --- jumps that the first look could miss ---------------------------------------------------------------------------


def far_from_the_origin(y):
    tau = numpyro.sample("tau", dist.Normal(1900.0, 20.0))
    numpyro.sample("y", dist.Poisson(jnp.where(jnp.arange(1850.0, 1950.0) < tau, 3.0, 1.0)), obs=y)


def far_on_the_log_scale(y):
    tau = numpyro.sample("tau", dist.Exponential(0.01))
    numpyro.sample("y", dist.Poisson(jnp.where(jnp.arange(100.0) + 200.0 < tau, 3.0, 1.0)), obs=y)


def far_without_a_prior(y):
    tau = numpyro.sample("tau", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Poisson(jnp.where(jnp.arange(100.0) + 700.0 < tau, 3.0, 1.0)), obs=y)


@pytest.mark.parametrize("model", [far_from_the_origin, far_on_the_log_scale, far_without_a_prior])
def test_a_jump_far_from_the_origin(model):
    plan = autovi.plan(model, {"y": np.ones(100, int)})
    assert plan["tau"].estimator == "score" and "jumps" in plan["tau"].why


@pytest.mark.parametrize("name", ["z", "on", "k", "w"])
def test_a_jump_that_another_site_hides(name):
    def model(y):
        z = numpyro.sample(name, dist.Bernoulli(0.5))
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.where(z == 1, jnp.where(x > 0, 3.0, -3.0), x), 1.0), obs=y)

    assert autovi.plan(model, {"y": 2.5})["x"].estimator == "score"


def test_a_number_sign_in_a_name():
    def model(y):
        a = numpyro.sample("a#1", dist.Normal(0.0, 1.0))
        numpyro.sample("0#y", dist.Normal(jnp.where(a > 0, 1.0, -1.0), 1.0), obs=y)

    plan = autovi.plan(model, {"y": 1.0})
    assert plan["a#1"].estimator == "score" and "'p:0#y'" in plan["a#1"].why


# --- programs that look alike ---------------------------------------------------------------------------------------


def with_a_derivative_of_its_own(factor):
    @jax.custom_vjp
    def identity(x):
        return x

    identity.defvjp(lambda x: (x, None), lambda _, t: (factor * t,))

    def model(y):
        numpyro.sample("y", dist.Normal(identity(numpyro.sample("mu", dist.Normal(0.0, 1.0))), 1.0), obs=y)

    return model


FIVE = lambda: np.float32(5.0)  # noqa: E731


def with_a_callback(number):
    # A callback is called live, and what it closes over may change: only the same function is the same program.
    function = FIVE if number == 5.0 else lambda: np.float32(number)

    def model(y):
        shift = jax.pure_callback(function, jax.ShapeDtypeStruct((), np.float32))
        numpyro.sample("y", dist.Normal(shift + numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    return model


def with_a_long_constraint(high):
    bounds = np.full(2000, 5.0)
    bounds[1000] = high

    def model(y):
        p = numpyro.param("p", jnp.ones(2000), constraint=dist.constraints.interval(0.0, bounds))
        numpyro.sample("y", dist.Normal(p.sum() + numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    return model


@pytest.mark.parametrize("make", [with_a_derivative_of_its_own, with_a_callback, with_a_long_constraint])
def test_programs_that_print_alike_are_told_apart(make):
    assert engine_of(make(5.0)) is engine_of(make(5.0))
    assert engine_of(make(5.0)) is not engine_of(make(0.5))


# --- data and predictions -------------------------------------------------------------------------------------------


def mean_model(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)


@pytest.mark.parametrize("value", [np.array([5_000_000_000, 3]), np.array([1e300, 1.0])])
def test_numbers_that_do_not_fit_are_refused(value):
    with pytest.raises(ValueError, match=r"data\['y'\] has .* that do not fit 32 bits"):
        autovi.plan(mean_model, {"y": value})


def test_differences_that_would_be_lost_are_warned_of():
    with pytest.warns(UserWarning, match=r"data\['y'\] varies by 3 around 1.7e\+09"):
        autovi.plan(mean_model, {"y": 1.7e9 + np.arange(4.0)})


def regression(X, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("N", X.shape[0]):
        numpyro.sample("y", dist.Normal(X @ w, 0.1), obs=y)


def test_new_data_with_other_columns_are_refused():
    X = np.random.default_rng(0).normal(size=(10, 3))
    fit = autovi.fit(regression, {"X": X, "y": X.sum(1)}, num_steps=20, num_draws=10, progress_bar=False)
    assert fit.predict({"X": X[:5]})["y"].shape == (10, 5)
    with pytest.raises(ValueError, match="site 'w' has shape .* only the size of a plate may differ"):
        fit.predict({"X": X[:5, :2]})


def test_one_number_observed_by_a_whole_plate():
    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("N", 5):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.5)

    idata = autovi.fit(model, num_steps=20, num_draws=10, progress_bar=False).idata
    assert idata["posterior_predictive"]["y"].shape == (1, 10, 5)
    assert idata["observed_data"]["y"].values.tolist() == [0.5] * 5


def test_a_delta_that_its_plate_expands():
    def model(y):
        with numpyro.plate("N", 4):
            numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    def guide(y):
        m = numpyro.param("m", 0.0)
        with numpyro.plate("N", 4):
            numpyro.sample("x", dist.Delta(m))

    fit = autovi.fit(model, {"y": np.array([0.0, 1.0, 2.0, 3.0])}, guide=guide, num_steps=500, progress_bar=False)
    assert fit.params["m"] == pytest.approx(0.75, abs=0.02)  # half the mean observation


def test_names_with_one_hash():
    """Each site's key comes from its name, and these two names have the same CRC-32."""

    def model(y):
        a = numpyro.sample("plumless", dist.Normal(0.0, 1.0))
        b = numpyro.sample("buckeroo", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    with pytest.raises(ValueError, match="site 'buckeroo': .*'plumless'.*rename one"):
        autovi.plan(model, {"y": 1.0})
