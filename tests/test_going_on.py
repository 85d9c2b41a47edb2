"""`fit.resume`: what goes on is the fit that was."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pandas as pd
import pytest

import autovi

CODES = np.random.default_rng(0).integers(0, 3, 60)
CITIES = ["Bonn", "Kiel", "Ulm"]
LEVELS = np.array([1.0, -1.0, 3.0])
Y = LEVELS[CODES]


def of_cities(city, y):
    with numpyro.plate("city", 3):
        level = numpyro.sample("level", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", len(city)):
        numpyro.sample("y", dist.Normal(level[city], 0.5), obs=y)


def of_a_frame(df, y):
    of_cities(df["city"], y)


@pytest.mark.parametrize("as_frame", [False, True])
def test_categories_of_new_data_are_taken_by_their_names(as_frame):
    def data(city):
        column = pd.Series(city)
        return {"df": pd.DataFrame({"city": column}), "y": Y} if as_frame else {"city": column, "y": Y}

    city = pd.Categorical.from_codes(CODES, CITIES)
    fit = autovi.fit(of_a_frame if as_frame else of_cities, data(city), num_steps=500, progress_bar=False)
    turned = city.reorder_categories(CITIES[::-1])
    for resumed in (fit.resume(1, data=data(turned)), fit.resume(1, data=data(city))):
        level = resumed.idata["posterior"]["level"].mean(["chain", "draw"])
        assert list(level["city"].values) == CITIES and np.allclose(level, LEVELS, atol=0.3)


def test_a_category_that_the_fit_did_not_have_is_refused():
    city = pd.Series(pd.Categorical.from_codes(CODES, CITIES))
    fit = autovi.fit(of_cities, {"city": city, "y": Y}, num_steps=100, progress_bar=False)
    with pytest.raises(ValueError, match="data: city has the category 'Trier', which the fit did not have"):
        fit.resume(1, data={"city": city.cat.rename_categories({"Ulm": "Trier"}), "y": Y})


def test_a_model_that_has_changed_does_not_go_on():
    scale = [1.0]

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, scale[0]))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = autovi.fit(model, {"y": 1.0}, num_steps=1, progress_bar=False)
    scale[0] = 3.0
    for data in (None, {"y": 2.0}):
        with pytest.raises(ValueError, match="model: it has changed since the fit"):
            fit.resume(1, data=data)


def test_a_schedule_that_a_file_did_not_hold_goes_on_from_where_it_was(tmp_path):
    schedule = optax.exponential_decay(0.1, 50, 0.5)
    data = {"city": CODES, "y": Y}
    stops = {"callback": lambda report: report.step >= 200, "progress_bar": False}
    fit = autovi.fit(of_cities, data, num_steps=500, learning_rate=schedule, **stops)
    fit.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", of_cities).resume(learning_rate=schedule)
    np.testing.assert_array_equal(loaded.losses, fit.resume().losses)
