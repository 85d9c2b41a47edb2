"""Data that cannot be right: said before any optimization, with the name of the argument and what to do."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import autovi

Y = np.array([0.5, -0.2, 1.0, 0.3])


def normal(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.asarray(y))


def of_scalars(y, scale):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def of_a_tree(d):
    normal(d["obs"]["y"])


NAN = np.array([0.5, np.nan, 1.0, 0.3])
NOT_FINITE = {
    "numpy": (normal, {"y": NAN}, r"data\['y'\] has 1 NaN or infinite values, the first at \(1,\)"),
    "infinite": (normal, {"y": jnp.array([1.0, 2.0, jnp.inf, -jnp.inf])}, r"data\['y'\] has 2 .* first at \(2,\)"),
    "bfloat16": (normal, {"y": jnp.asarray(NAN, jnp.bfloat16)}, r"data\['y'\] has 1 .*\(1,\)"),
    "complex": (normal, {"y": NAN + 1j}, r"data\['y'\] has 1 .*\(1,\)"),
    "pandas": (normal, {"y": pd.Series(NAN, index=list("abcd"))}, r"data\['y'\] has 1 .*\(1,\)"),
    "pandas NA": (normal, {"y": pd.Series([1, pd.NA], dtype="Int64")}, r"data\['y'\] has 1 .*\(1,\)"),
    "nested list": (normal, {"y": [[0.5], [float("nan")]]}, r"data\['y'\] has 1 .*\(1, 0\)"),
    "tuple": (normal, (NAN,), r"data\['y'\] has 1 .*\(1,\)"),
    "tree": (of_a_tree, {"d": {"obs": {"y": NAN}}}, r"data\[\"d\['obs'\]\['y'\]\"\] has 1 .*\(1,\)"),
    "list of arrays": (of_a_tree, {"d": [Y, NAN]}, r"data\['d\[1\]'\] has 1 .*\(1,\)"),
    "scalar": (of_scalars, {"y": 1.0, "scale": float("nan")}, r"data\['scale'\] is NaN"),
    "numpy scalar": (of_scalars, {"y": np.float32(np.inf), "scale": 1.0}, r"data\['y'\] has 1 .*\(\)"),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_nan_and_infinite_data(case):
    model, data, said = NOT_FINITE[case]
    with pytest.raises(ValueError, match=said):
        autovi.plan(model, data)


def test_nan_says_what_to_do():
    with pytest.raises(ValueError, match="drop them, or put any valid number in their place .* obs_mask"):
        autovi.plan(normal, {"y": NAN})


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ({"y": Y, "x": Y}, ValueError, r"data.*'x'; the model takes \['y'\]"),
        ({}, ValueError, r"data.*missing a required argument: 'y'"),
        (None, ValueError, r"data.*missing a required argument: 'y'"),
        ((), ValueError, r"data.*missing a required argument: 'y'"),
        ((Y, Y), ValueError, r"data.*too many positional arguments; the model takes \['y'\]"),
        ({1: Y}, ValueError, "data.*keywords must be strings"),
        (Y, TypeError, r"data: expected a dict .* got ndarray; a single array is data=\(array,\)"),
        ([Y], TypeError, "data: expected a dict .* got list"),
        ("y", TypeError, "data: expected a dict .* got str"),
        (pd.Series(Y), TypeError, "data: expected a dict .* got Series"),
        ({"y": np.array(["a", "b"])}, TypeError, "y: expected numbers.*integer codes"),
        ({"y": pd.Series(["a", "b"], dtype="category")}, TypeError, "y: expected numbers.*integer codes"),
        ({"y": pd.Series([None, 1.0], dtype=object)}, ValueError, "y: missing values"),
        ({"y": [[1.0], [1.0, 2.0]]}, ValueError, "y: expected nested lists of equal lengths"),
    ],
)
def test_data_that_do_not_fit_the_model(data, error, said):
    with pytest.raises(error, match=said):
        autovi.plan(normal, data)


def test_whole_numbers_and_lists_are_data_too():
    for y in ([1, 2, 3, 4], np.arange(4), [True, False, True, True], (1.0, 2.0, 3.0, 4.0)):
        assert autovi.plan(normal, {"y": y})["mu"].family == "full_rank"
