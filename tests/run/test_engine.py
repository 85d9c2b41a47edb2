"""Compiled programs are kept: what is used again, and what must not be."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.families import Normal
from autovi.run.cache import Cache


class Counted:
    """A model that counts how often Python runs it."""

    def __init__(self):
        self.traces = 0

    def __call__(self, y, scale=1.0):
        self.traces += 1
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def quick(model, *data, **options):
    return autovi.fit(model, data, **{"num_steps": 20, "num_draws": 20, "progress_bar": False, **options})


def assert_identical(a, b):
    for x, y in zip(jax.tree.leaves((a.raw_params, a.losses)), jax.tree.leaves((b.raw_params, b.losses)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def first():
    model = Counted()
    return model, quick(model, np.array([1.0, 2.0, 3.0]))


def test_a_second_fit_traces_once_and_compiles_nothing(first):
    model, fit = first
    before = model.traces
    other = quick(model, np.array([7.0, 8.0, 9.0]), rng_key=5, num_steps=150, num_draws=30)
    assert model.traces - before <= 1  # for its fingerprint
    assert other.engine is fit.engine and other.losses.shape == (150,)
    assert (other.losses[:20] != fit.losses).all()


def test_the_second_fit_is_of_its_own_data(first):
    """The kept program takes the data as arguments: nothing of the first fit stays in it."""
    model, fit = first
    other = quick(model, np.array([7.0, 8.0, 9.0]), num_steps=1000)
    again = quick(Counted(), np.array([7.0, 8.0, 9.0]), num_steps=1000)
    assert float(other.sample(1000)["mu"].mean()) == pytest.approx(8.0, abs=0.15)
    assert_identical(other, again)
    np.testing.assert_array_equal(other.idata["observed_data"]["y"].values, [7.0, 8.0, 9.0])
    np.testing.assert_array_equal(fit.idata["observed_data"]["y"].values, [1.0, 2.0, 3.0])


def test_the_key_decides(first):
    model, fit = first
    y = np.array([1.0, 2.0, 3.0])
    assert_identical(fit, quick(model, y))
    assert_identical(fit, quick(model, y, rng_key=np.int64(0)))
    other = quick(model, y, rng_key=1)
    assert (other.losses != fit.losses).all()
    assert (other.sample(5)["mu"] != fit.sample(5)["mu"]).all()
    np.testing.assert_array_equal(fit.sample(5)["mu"], quick(model, y).sample(5)["mu"])
    assert_identical(other, quick(model, y, rng_key=jax.random.key(1)))
    assert_identical(other, quick(model, y, rng_key=jax.random.PRNGKey(1)))


@pytest.mark.slow
def test_other_shapes_dtypes_and_options_are_other_programs(first):
    model, fit = first
    y = np.array([1.0, 2.0, 3.0])
    assert quick(model, np.arange(4.0)).engine is not fit.engine
    assert quick(model, y, num_particles=7).engine is not fit.engine
    assert quick(model, y, 2.0).engine is not fit.engine  # a number that is no array is part of the program


@pytest.mark.slow
def test_a_changed_closure_is_another_program():
    """A notebook cell that is run again with other numbers outside the model."""
    prior = {"sd": 1.0, "loc": jnp.zeros(2)}

    def model(y):
        with numpyro.plate("n", 2):
            mu = numpyro.sample("mu", dist.Normal(prior["loc"], prior["sd"]))
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fits, means = [], []
    for changed in ({}, {"loc": jnp.full(2, 4.0)}, {"sd": 0.1}):
        prior.update(changed)
        fits.append(quick(model, np.zeros(2), num_steps=600))
        means.append(float(fits[-1].sample(2000)["mu"].mean()))
    assert len({id(f.engine) for f in fits}) == 3
    np.testing.assert_allclose(means, [0.0, 2.0, 4.0 / 1.01], atol=0.1)


def test_a_model_defined_again_is_the_same_program(first):
    """What is computed counts, not which function object says so."""
    _, fit = first
    assert quick(Counted(), np.array([1.0, 2.0, 3.0])).engine is fit.engine


@pytest.mark.slow
def test_other_names_are_other_programs():
    def one(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("one", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    def two(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("two", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    assert list(quick(one, np.array(0.5)).sample(2)) == ["one"]
    assert list(quick(two, np.array(0.5)).sample(2)) == ["two"]


def test_classes_that_print_alike_are_other_programs():
    """A family of the user's own, its cell run again after a change."""

    def family(width):
        class Own(Normal):
            def init(self, start, layout):
                return {**super().init(start, layout), "log_scale": jnp.full_like(start, width)}

        return Own()

    fits = [quick(Counted(), np.zeros(2), families={"mu": family(w)}, num_steps=1, init="prior") for w in (0.0, 1.0)]
    assert abs(fits[1].params["mu.log_scale"] - fits[0].params["mu.log_scale"]) > 0.5


def test_the_cache_is_bounded_and_drops_the_least_recently_used():
    cache, made = Cache(size=2), []

    class Fake(str):
        constant_bytes = 0

    def get(key):
        return cache.get(key, lambda: made.append(key) or Fake(f"engine {key}"))

    assert [get(k) for k in "abab"] == ["engine a", "engine b", "engine a", "engine b"]
    get("a")
    get("c")  # drops b
    assert made == ["a", "b", "c"] and list(cache.engines) == ["a", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"] and len(cache.engines) == 2
