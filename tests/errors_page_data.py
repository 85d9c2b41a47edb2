"""Data with one fault each, and labels, for the rows of docs/errors.md: first cell -> calls."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from errors_page_models import DATA, Y, halved, normal

import autovi

FRAME = pd.DataFrame({"age": [1.0, 2.0, 3.0], "dose": [0.5, 1.0, 1.5]})
CITIES = pd.DataFrame({"age": [1.0, 2.0, 3.0], "city": pd.Categorical(["Ulm", "Bonn", "Ulm"])})
QUIET = {"num_steps": 5, "num_draws": 10, "progress_bar": False}


class Tensor:
    """A tensor of another library, on another device."""

    shape, dtype, ndim = (3,), "float32", 1

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def detach(self):
        return self


def of_frame(use):
    def model(df):
        b = numpyro.sample("b", dist.Normal())
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(b, 1.0), obs=use(df))

    return model


def by_city(df, y=None):
    effect = numpyro.sample("effect", dist.Normal().expand([2]).to_event(1))
    with numpyro.plate("row", len(df["city"])):
        numpyro.sample("y", dist.Normal(effect[df["city"]], 1.0), obs=y)


def new_city():
    fit = autovi.fit(by_city, {"df": CITIES[["city"]], "y": np.ones(3)}, **QUIET)
    return fit.predict({"df": pd.DataFrame({"city": pd.Categorical(["Trier"])})})


def matrix(y):
    numpyro.sample("theta", dist.Normal().expand([2, 3]).to_event(2))
    normal(y)


def flat(y):
    numpyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))
    normal(y)


def unequal(x, y):
    b = numpyro.sample("b", dist.Normal())
    numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def plan(y, model=normal):
    return lambda: autovi.plan(model, {"y": y})


def plan_of(frame, use):
    return lambda: autovi.plan(of_frame(use), {"df": frame})


def by_group(group, y):
    level = numpyro.sample("level", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    numpyro.sample("y", dist.Normal(level[group], 1.0).to_event(1), obs=y)


NAN = np.array([1.0, np.nan, 1.0, 1.0])
CASES = {
    "NaN let through with `allow_nan` that a density meets": [
        lambda: autovi.fit(normal, {"y": NAN}, allow_nan={"y"}, **QUIET)
    ],
    "`allow_nan` that is no set of names (`TypeError`)": [
        lambda: autovi.fit(halved, {"x": Y, "y": Y}, allow_nan=True, **QUIET)
    ],
    "a name in `allow_nan` that no argument has": [
        lambda: autovi.fit(halved, {"x": Y, "y": Y}, allow_nan={"q"}, **QUIET)
    ],
    "text in a list, an array or a Series (`TypeError`)": [plan(["a", "b"]), plan(np.array(["a", "b"]))],
    "integer codes beyond the axis that they index, such as codes that count from 1; in `new_data` too": [
        lambda: autovi.plan(by_group, {"group": np.array([1, 2, 3]), "y": Y[:3]})
    ],
    "a category that is missing": [plan(pd.Series(["a", None, None], dtype="category"))],
    "None among numbers": [plan([1.0, None, 2.0])],
    "lists of unequal lengths": [plan([[1.0], [1.0, 2.0]])],
    "numbers in an array of objects (`TypeError`)": [plan(np.array([1.0, 2.0], object))],
    "other objects in an array (`TypeError`)": [plan(np.array([1.0, object()], object))],
    "complex numbers (`TypeError`)": [plan(Y + 1j)],
    "dates and durations (`TypeError`)": [plan(np.array(["2020-01-01"], "datetime64[D]"))],
    "sets, generators and other iterators, bytes, decimals, sparse matrices (`TypeError`)": [plan({1.0, 2.0})],
    "a masked array with something masked": [plan(np.ma.masked_array([1.0, 2.0], [True, False]))],
    "a tensor that NumPy cannot read (`TypeError`)": [plan(Tensor())],
    "a column that a data frame lacks (`KeyError`)": [plan_of(FRAME, lambda df: df["weight"])],
    "a column without numbers, where the model takes it": [
        plan_of(FRAME.assign(note=["a", "b", "c"]), lambda df: df["note"])
    ],
    "a data frame with categories as a matrix": [plan_of(CITIES, lambda df: jnp.asarray(df)[:, 0])],
    "a method of a data frame in the model (`AttributeError`)": [plan_of(FRAME, lambda df: df.groupby("age"))],
    "a category in `new_data` that the fit did not have": [new_city],
    "`dims` for no variable, or not one name for each axis": [
        lambda: autovi.fit(matrix, DATA, dims={"theta": ["a"]}, **QUIET)
    ],
    "`coords` or `dims` that is no dict (`TypeError`)": [
        lambda: autovi.fit(normal, DATA, coords=["a"], **QUIET),
        lambda: autovi.fit(normal, DATA, dims=["a"], **QUIET),
    ],
    "`coords` for no dim, or of another length": [lambda: autovi.fit(normal, DATA, coords={"n": ["a", "b"]}, **QUIET)],
    "`prior_predictive` of a site without a sampler": [lambda: autovi.prior_predictive(flat, DATA)],
    "`prior_predictive` of a `LogDensity` (`TypeError`)": [
        lambda: autovi.prior_predictive(autovi.LogDensity(lambda p: -(p["x"] ** 2), {"x": 0.0}))
    ],
}
