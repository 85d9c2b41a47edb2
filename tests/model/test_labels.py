"""Data is split into numbers and labels without loss, and plates get labels only where there is no doubt."""

import ast
import inspect

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import autovi.model.columns
import autovi.model.labels
import autovi.model.leaves
from autovi.model.labels import Labels, plate_coords
from autovi.model.leaves import split

AB = np.array(["a", "b"])
CD = np.array(["c", "d"])


def axis(values, dim=None):
    return Labels((dim,), (values,))


@pytest.mark.parametrize("value", [1, 2.5, True, "text", None, len, {"a": 1}, (1, "a"), [jnp.ones(2)], range(3)])
def test_what_is_no_data_passes_untouched(value):
    assert split(value) == (value, None)


def test_arrays_come_back_as_they_are():
    for array in (jnp.ones(2), np.ones((2, 0)), np.ones(2, ml_dtypes.bfloat16)):
        out, labels = split(array)
        assert out is array and labels is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], np.array([1, 2])),
        ((1.0, 2), np.array([1.0, 2.0])),
        ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
        ([True, False], np.array([True, False])),
        ([], np.array([])),
        (np.float32(2.5), np.array(2.5, np.float32)),
        (np.ma.array([1, 2], mask=False), np.array([1, 2])),
        (pd.Index([3, 4]), np.array([3, 4])),
        (pd.array([1, 2], dtype="Int64"), np.array([1, 2])),
        (pd.Series([1, None], dtype="Int64"), np.array([1, np.nan])),
        (pd.Series([1, 2]), np.array([1, 2])),
        (pd.DataFrame({0: [1, 2], 1: [True, False]}), np.array([[1, 1], [2, 0]])),
    ],
)
def test_numbers_without_labels(value, expected):
    out, labels = split(value)
    assert labels is None
    assert type(out) is np.ndarray and out.dtype == expected.dtype
    np.testing.assert_array_equal(out, expected)


def test_pandas_labels():
    _, labels = split(pd.Series([1.0, 2.0], index=pd.Index(["a", "b"], name="county")))
    assert labels.dims == ("county",) and list(labels.coords[0]) == ["a", "b"]
    out, labels = split(pd.DataFrame({"u": [1, 2], "v": [0.5, 1]}, index=[10, 20]))
    np.testing.assert_array_equal(out, [[1, 0.5], [2, 1]])
    assert labels.dims == (None, None)
    assert list(labels.coords[0]) == [10, 20] and list(labels.coords[1]) == ["u", "v"]
    # Rows taken out of a frame keep their numbers, which are labels.
    _, labels = split(pd.Series([1, 2, 3])[1:])
    assert list(labels.coords[0]) == [1, 2]
    _, labels = split(pd.DataFrame({"u": [1, 2]}))
    assert labels.coords[0] is None and list(labels.coords[1]) == ["u"]


def test_pandas_dates_and_tuples_are_good_labels():
    days = pd.date_range("2026-01-01", periods=2)
    _, labels = split(pd.Series([1, 2], index=days))
    assert labels.coords[0].dtype.kind == "M"
    _, labels = split(pd.Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])))
    assert list(labels.coords[0]) == [("a", 1), ("b", 2)]


def test_xarray_labels():
    out, labels = split(xr.DataArray(np.ones((2, 3)), dims=("obs", "x"), coords={"obs": AB}))
    assert out.shape == (2, 3) and labels.dims == ("obs", "x")
    assert list(labels.coords[0]) == ["a", "b"] and labels.coords[1] is None


def test_polars():
    pl = pytest.importorskip("polars")
    out, labels = split(pl.Series("y", [1, 2]))
    np.testing.assert_array_equal(out, [1, 2])
    assert labels is None
    _, labels = split(pl.DataFrame({"u": [1, 2], "v": [1.0, 2.0]}))
    assert labels.dims == (None, None) and labels.coords[0] is None and list(labels.coords[1]) == ["u", "v"]
    with pytest.raises(TypeError, match="codes"):
        split(pl.DataFrame({"u": ["a", "b"]}))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (pd.Series(["a", "b"]), TypeError, "^y: expected numbers.*codes"),
        (pd.DataFrame({"u": [1, 2], "v": ["a", "b"]}), TypeError, r"^y\['v'\]: .*codes"),
        (pd.DataFrame({"t": pd.date_range("2026-01-01", periods=2)}), TypeError, r"^y\['t'\]: .*days"),
        (pd.date_range("2026-01-01", periods=2), TypeError, "^y: .*days since"),
        (pd.date_range("2026-01-01", periods=2, tz="UTC"), TypeError, "^y: expected numbers"),
        (xr.DataArray(AB), TypeError, "^y: .*codes"),
        (AB, TypeError, "^y: .*codes"),
        (np.array([{}]), TypeError, "^y: expected numbers"),
        (pd.Series([True, None], dtype="boolean"), ValueError, "^y: missing"),
        (pd.DataFrame({"u": [True, None]}, dtype="boolean"), ValueError, "^y: missing"),
        (np.ma.array([1, 2], mask=[True, False]), ValueError, "^y: .*mask"),
        ([[1, 2], [3]], ValueError, "^y: expected nested lists of equal lengths"),
    ],
)
def test_what_is_not_numbers_is_refused_by_name(value, error, message):
    with pytest.raises(error, match=message):
        split(value, "y")


CITIES = pd.Series(["b", "a", "b"], index=[7, 8, 9], dtype=pd.CategoricalDtype(["c", "b", "a"]))


@pytest.mark.parametrize("value", [CITIES, CITIES.array, pd.CategoricalIndex(CITIES)], ids=["series", "array", "index"])
def test_categories_become_codes_and_keep_their_names(value):
    codes, labels = split(value, "city")
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, [1, 2, 1])
    assert list(labels.categories) == ["c", "b", "a"]
    coords = labels.coords[0]
    assert (list(coords) == [7, 8, 9]) if value is CITIES else coords is None


def test_categories_of_polars():
    pl = pytest.importorskip("polars")
    pl.Series(["z", "y"], dtype=pl.Categorical)  # the codes of polars' own are those of all series so far
    codes, labels = split(pl.Series(["b", "a", "b"], dtype=pl.Categorical))
    np.testing.assert_array_equal(codes, [0, 1, 0])
    assert list(labels.categories) == ["b", "a"]
    codes, labels = split(pl.Series(["b", "a", "b"], dtype=pl.Enum(["a", "b", "c"])))
    np.testing.assert_array_equal(codes, [1, 0, 1])
    assert list(labels.categories) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="^y: 1 of 2 have no category, the first at 1"):
        split(pl.Series(["b", None], dtype=pl.Categorical), "y")


def test_a_missing_category_is_refused():
    with pytest.raises(ValueError, match="^y: 2 of 3 have no category, the first at 1; drop those rows"):
        split(pd.Series(["a", None, None], dtype="category"), "y")


@pytest.mark.parametrize("module", [autovi.model.labels, autovi.model.leaves, autovi.model.columns])
def test_no_foreign_library_is_imported(module):
    tree = ast.parse(inspect.getsource(module))
    imports = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert not [
        line for line in imports if any(lib in line for lib in ("pandas", "xarray", "polars", "scipy", "torch"))
    ]


@pytest.mark.parametrize(
    ("plates", "labels", "expected"),
    [
        pytest.param({"g": 2}, {"y": axis(AB)}, {"g": AB}, id="first axis by length"),
        pytest.param({"g": 3}, {"y": axis(AB)}, {}, id="no such length"),
        pytest.param({"g": 2}, {}, {}, id="no labels"),
        pytest.param({"g": 2}, {"y": axis(None, "g")}, {}, id="a name alone"),
        pytest.param({"g": 2}, {"y": axis(AB), "x": axis(AB)}, {"g": AB}, id="arguments agree"),
        pytest.param({"g": 2}, {"y": axis(AB), "x": axis(CD)}, {}, id="arguments disagree"),
        pytest.param({"g": 2}, {"y": axis(AB), "x": axis(np.arange(2))}, {}, id="disagree in type"),
        pytest.param({"g": 2}, {"y": axis(AB), "x": axis(CD, "g")}, {"g": CD}, id="name wins"),
        pytest.param({"g": 2}, {"y": axis(AB, "g"), "x": axis(CD, "g")}, {}, id="names disagree"),
        pytest.param({"g": 2, "h": 2}, {"y": axis(AB)}, {}, id="two plates of one size"),
        pytest.param({"g": 2, "h": 2}, {"y": axis(AB, "h"), "x": axis(CD)}, {"h": AB}, id="one of them named"),
        pytest.param({"g": 2, "h": 3}, {"y": axis(AB, "h")}, {}, id="named after another plate"),
        pytest.param({"g": 3}, {"y": axis(AB, "g")}, {}, id="named, of another size"),
        pytest.param(
            {"g": 2, "k": 2},
            {"y": Labels((None, "k"), (None, CD))},
            {"k": CD},
            id="a later axis counts by name only",
        ),
        pytest.param({"k": 2}, {"y": Labels((None, None), (None, CD))}, {}, id="a later axis without a name"),
        pytest.param({"g": 2}, {"y": Labels((), ())}, {}, id="a scalar"),
    ],
)
def test_plates_get_labels_only_without_doubt(plates, labels, expected):
    found = plate_coords(plates, labels)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_labels_of_tuples_are_compared():
    pairs = split(pd.Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])))[1]
    assert list(plate_coords({"g": 2}, {"x": pairs, "y": pairs})["g"]) == [("a", 1), ("b", 2)]
