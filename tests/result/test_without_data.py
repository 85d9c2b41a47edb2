"""A file holds no data unless asked to; a fit that is loaded without them says what it knows and what not."""

import pickle
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import autovi

RNG = np.random.default_rng(0)
X = RNG.normal(size=40).astype(np.float32)
Y = (X + 3 * (RNG.uniform(size=40) < 0.3) + RNG.normal(size=40)).astype(np.float32)
DATA = {"x": X, "y": Y}


def mixture(x, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    w = numpyro.sample("w", dist.Beta(2.0, 2.0))
    numpyro.deterministic("twice", 2 * mu)
    numpyro.deterministic("line", mu * x)
    with numpyro.plate("row", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(w))
        numpyro.deterministic("shift", 3.0 * z)
        numpyro.sample("y", dist.Normal(mu * x + 3 * z, 1.0), obs=y)


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.StudentT(4.0, slope * x, 1.0), obs=y)


def fitted(model, data=DATA, **options):
    return autovi.fit(model, data, **{"num_steps": 100, "num_draws": 50, "progress_bar": False, **options})


@pytest.fixture(scope="module")
def fit():
    return fitted(mixture)


@pytest.fixture(scope="module")
def path(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "fit.autovi"
    fit.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return autovi.load(path, mixture)


def assert_same(some, others):
    assert set(some) <= set(others) and some
    for name, value in some.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def test_no_data_are_in_the_file(fit, path, tmp_path):
    fit.save(tmp_path / "whole", with_data=True)
    for array in (X, Y):
        assert array.tobytes() in (tmp_path / "whole").read_bytes()
        assert array.tobytes() not in path.read_bytes()


def test_what_is_known_without_data(fit, loaded):
    assert_same(loaded.params, fit.params)
    assert set(loaded.params) == set(fit.params)
    with pytest.warns(
        UserWarning, match=r"data: \['line', 'shift', 'z'\] cannot be drawn without them and are left out"
    ):
        drawn = loaded.sample(20, rng_key=1)
    assert set(drawn) == {"mu", "w", "twice"}
    assert_same(drawn, fit.sample(20, rng_key=1, resample=False))
    assert loaded.losses.size == 100 and loaded.status == fit.status
    assert "data: not there" in repr(loaded) and "cannot be computed" not in repr(loaded)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.elbo,
        lambda fit: fit.idata,
        lambda fit: fit.summary(),
        lambda fit: fit.marginals(),
        lambda fit: fit.gradients,
        lambda fit: fit.draws,
        lambda fit: fit.sample(5, resample=True),
        lambda fit: fit.sample(5, discrete="map"),
        lambda fit: fit.resume(100),
    ],
)
def test_what_needs_data_says_so(loaded, ask):
    with pytest.raises(ValueError, match=r"data: .*autovi\.load\(path, model, data=\.\.\.\)"):
        ask(loaded)


def test_with_its_data_it_is_whole(fit, path):
    whole = autovi.load(path, mixture, data=DATA)
    assert whole.elbo == fit.elbo
    assert_same(fit.sample(10), whole.sample(10))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"x": X, "y": Y + 1}, "they are not those of the fit: 'y' is another"),
        ({"x": X[:-1], "y": Y[:-1]}, "they are not those of the fit: 'x' is another"),
        ({"x": X}, "they are not those of the fit: expected"),
    ],
)
def test_other_data_are_refused(path, data, says):
    with pytest.raises(ValueError, match=f"path '.*data: {says}"):
        autovi.load(path, mixture, data=data)


def test_data_that_the_file_holds_are_not_asked_for(fit, tmp_path):
    fit.save(tmp_path / "whole", with_data=True)
    with pytest.raises(ValueError, match="data: the file holds them; leave out data="):
        autovi.load(tmp_path / "whole", mixture, data=DATA)


def test_it_is_saved_and_pickled_again(loaded, path, tmp_path):
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert_same(pickle.loads(pickle.dumps(loaded)).params, loaded.params)
    with pytest.raises(ValueError, match="with_data: this fit was loaded without its data"):
        loaded.save(tmp_path / "again", with_data=True)


def test_predictions_for_new_data(tmp_path):
    fit, new = fitted(line), {"x": np.zeros(3, np.float32)}
    fit.save(tmp_path / "fit")
    again = autovi.load(tmp_path / "fit", line)
    assert again.predict(new)["y"].shape == (50, 3)
    assert_same(again.predict(new, num_draws=7, rng_key=2), again.predict(new, num_draws=7, rng_key=2))
    slopes = again.predict({"x": np.full(1, 1e4, np.float32)}, num_draws=400, rng_key=1)["y"][:, 0] / 1e4
    # The noise of y is nothing here: these are draws of the slope, and the mean of 400 is known to sd / 20.
    expected = fit.sample(10_000, rng_key=3, resample=False)["slope"]
    assert abs(slopes.mean() - expected.mean()) < 4.5 * expected.std() / 20 * 1.02
    with pytest.raises(ValueError, match="new_data: this fit was loaded without its data"):
        again.predict()


def test_predictions_that_need_what_cannot_be_drawn(loaded):
    with (
        pytest.warns(UserWarning, match="cannot be drawn"),
        pytest.raises(ValueError, match=r"data: \['z'\] cannot be drawn without them"),
    ):
        loaded.predict({"x": np.zeros(3, np.float32)})


def test_categories_are_read_as_in_the_fit(tmp_path):
    def model(group, y=None):
        with numpyro.plate("groups", 3):
            mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        numpyro.sample("y", dist.Normal(mean[group], 0.1).to_event(1), obs=y)

    groups = pd.Categorical(["low", "high", "mid"] * 5)
    fit = fitted(model, {"group": groups, "y": np.array([1.0, 5.0, 3.0] * 5, np.float32)}, num_steps=2000)
    fit.save(tmp_path / "fit")
    again = autovi.load(tmp_path / "fit", model)
    drawn = again.predict({"group": pd.Categorical(["mid", "low"])}, num_draws=50)["y"].mean(0)
    np.testing.assert_allclose(drawn, [3.0, 1.0], atol=0.2)


def amortized(x, y=None):
    with numpyro.plate("row", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
    numpyro.sample("a", dist.Normal(0.0, 1.0))


def amortized_guide(x, y=None):
    slope = numpyro.param("slope", 0.1)
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("z", dist.Normal(slope * y, 1.0))
    numpyro.sample("a", dist.Normal(numpyro.param("loc", 0.5), 1.0))


def test_what_a_guide_reads_of_the_data_is_left_out(tmp_path):
    fit = fitted(amortized, guide=amortized_guide)
    fit.save(tmp_path / "fit")
    again = autovi.load(tmp_path / "fit", amortized, guide=amortized_guide)
    with pytest.warns(UserWarning, match=r"data: \['z'\] cannot be drawn"):
        drawn = again.sample(5, rng_key=1)
    assert set(drawn) == {"a"}
    assert_same(drawn, fit.sample(5, rng_key=1, resample=False))


def test_rows_in_batches(tmp_path):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("row", 40, subsample_size=8) as i:
            own = numpyro.sample("own", dist.Normal(mu, 1.0))
            numpyro.sample("y", dist.Normal(own, 1.0), obs=y[i])

    fit = fitted(model, {"y": Y})
    fit.save(tmp_path / "fit")
    again = autovi.load(tmp_path / "fit", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(again.sample(5, rng_key=1), fit.sample(5, rng_key=1, resample=False))


def test_a_model_that_reads_values_of_its_data_needs_them(tmp_path):
    def model(group, y):
        with numpyro.plate("groups", int(group.max()) + 1):
            mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        numpyro.sample("y", dist.Normal(jnp.asarray(mean)[group], 1.0).to_event(1), obs=y)

    data = {"group": np.array([0, 1, 2, 1]), "y": Y[:4]}
    fit = fitted(model, data)
    fit.save(tmp_path / "fit")
    with pytest.raises(ValueError, match="data: the model computes shapes from their values; give them by data="):
        autovi.load(tmp_path / "fit", model)
    assert_same(autovi.load(tmp_path / "fit", model, data=data).params, fit.params)
