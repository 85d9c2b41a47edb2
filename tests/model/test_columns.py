"""Data frames in a model: columns by name, each of its own type, or the matrix of them; whichever the model takes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import autovi
from autovi.model.columns import Columns, Header
from autovi.model.inputs import bind
from autovi.model.labels import Labels
from autovi.model.targets import trace_program
from autovi.result.saving import data_template, decode_data

FRAME = pd.DataFrame({"age": [30, 41, 25], "dose": [0.5, 1.0, 0.0], "old": [False, True, False]})
Y = np.zeros(3)


def traced(mean, frame=FRAME, y=Y, **more):
    """The inputs as a model takes them whose observations have the mean `mean(frame, w)`."""

    def model(df, y, **more):
        w = numpyro.sample("w", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        with numpyro.plate("n", len(df)):
            numpyro.sample("y", dist.Normal(mean(df, w), 1.0), obs=y)

    return trace_program(model, None, bind(model, {"df": frame, "y": y, **more}))[1]


MATRIX = {
    "matmul": lambda df, w: df @ w,
    "dot": lambda df, w: jnp.dot(df, w),
    "reflected": lambda df, w: np.ones((3, 3)) * df @ w,
    "columns by place": lambda df, w: df[:, 0] * w[0] + df[:, 2],
    "one row after the other": lambda df, w: jnp.stack([df[i] @ w for i in range(df.shape[0])]),
    "transposed": lambda df, w: w @ df.T,
    "mapped": lambda df, w: jax.vmap(lambda row: row @ w)(df),
    "scanned": lambda df, w: jax.lax.scan(lambda c, row: (c, row @ w), 0.0, df)[1],
    "compared": lambda df, w: jnp.where(df > 1, df, 0.0) @ w,
    "equal": lambda df, w: (df == 1.0) @ w,
    "negative": lambda df, w: -df @ w,
    "concatenated": lambda df, w: jnp.concatenate([df, df], 1)[:, :3] @ w,
    "einsum": lambda df, w: jnp.einsum("ij,j->i", df, w),
    "rows by index": lambda df, w: df[jnp.arange(3)] @ w,
    "in a compiled function": lambda df, w: jax.jit(lambda x: x @ w)(df),
    "as an array": lambda df, w: jnp.asarray(df, float) @ w,
}


@pytest.mark.parametrize("case", MATRIX)
def test_a_frame_used_as_a_matrix_is_one(case):
    inputs = traced(MATRIX[case])
    assert inputs.paths == ("df", "y") and inputs.opened is None


@pytest.mark.parametrize("case", MATRIX)
def test_a_table_stands_for_its_matrix_too(case):
    def mean(df, w):
        return MATRIX[case](df, w) + df["age"]

    assert traced(mean).paths == ("df['age']", "df['dose']", "df['old']", "y")


def test_a_table_and_its_matrix_compute_the_same():
    table = Columns(Header("df", tuple(FRAME)), [FRAME[name].to_numpy() for name in FRAME])
    matrix, w = FRAME.to_numpy(float), jnp.arange(3.0)
    for case, of in MATRIX.items():
        np.testing.assert_allclose(of(table, w), of(jnp.asarray(matrix), w), rtol=1e-6, err_msg=case)
    assert len(table) == 3 and table.shape == (3, 3) and table.columns == list(table) == list(FRAME)
    assert "age" in table and "weight" not in table


BY_NAME = {
    "by name": lambda df, w: df["age"] * w[0] + df["dose"],
    "as attributes": lambda df, w: df.age * w[0] + df.dose,
    "some of them": lambda df, w: df[["age", "dose"]] @ w[:2],
    "rows, then by name": lambda df, w: df[jnp.arange(3)]["age"] * w[0],
    "one after the other": lambda df, w: sum(df[name] * w[i] for i, name in enumerate(df.columns)),
}


@pytest.mark.parametrize("case", BY_NAME)
def test_columns_are_taken_by_name(case):
    inputs = traced(BY_NAME[case])
    assert inputs.paths == ("df['age']", "df['dose']", "df['old']", "y")
    assert [str(inputs.arrays[p].dtype) for p in inputs.paths[:3]] == ["int64", "float64", "bool"]


def test_only_frames_that_are_taken_by_name_are_opened():
    inputs = traced(lambda df, w: df["age"] * w[0], X=FRAME)
    assert inputs.paths == ("X", "df['age']", "df['dose']", "df['old']", "y")
    assert list(inputs.labels["X"].coords[1]) == ["age", "dose", "old"]


def test_a_frame_of_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"age": [30, 41, 25], "city": pl.Series(["b", "a", "b"], dtype=pl.Categorical)})
    inputs = traced(lambda df, w: df["age"] * w[df["city"]], frame)
    np.testing.assert_array_equal(inputs.arrays["df['city']"], [0, 1, 0])
    assert list(inputs.labels["df['city']"].categories) == ["b", "a"]
    assert traced(lambda df, w: df @ w[:1], pl.DataFrame({"age": [30, 41, 25]})).paths == ("df", "y")


def test_a_dict_of_columns_and_a_data_set():
    columns = {"age": pd.Series([1.0, 2.0, 3.0], index=list("abc")), "dose": [1, 2, 3]}

    def model(df, y):
        b = numpyro.sample("b", dist.Normal())
        with numpyro.plate("n", 3):
            numpyro.sample("y", dist.Normal(b * df["age"] + df["dose"], 1.0), obs=y)

    for given in (columns, xr.Dataset({"age": ("row", [1.0, 2.0, 3.0]), "dose": ("row", [1, 2, 3])})):
        _, inputs = trace_program(model, None, bind(model, {"df": given, "y": Y}))
        assert inputs.paths == ("df['age']", "df['dose']", "y")


CITIES = FRAME.assign(city=pd.Categorical(["b", "a", "b"]), note="text", late=[1.0, np.nan, 2.0])


def test_categories_are_codes_and_other_columns_need_no_numbers_unless_they_are_taken():
    inputs = traced(lambda df, w: w[df["city"]] * df["age"], CITIES)
    np.testing.assert_array_equal(inputs.arrays["df['city']"], [1, 0, 1])
    labels = inputs.labels["df['city']"]
    assert labels.dims == (None,) and list(labels.categories) == ["a", "b"]
    assert inputs.paths[:4] == ("df['age']", "df['dose']", "df['old']", "df['city']")


def test_the_index_labels_every_column():
    frame = FRAME.set_index(pd.Index(["x", "y", "z"], name="unit"))
    inputs = traced(lambda df, w: df["age"] * w[0], frame)
    assert all(inputs.labels[f"df[{c!r}]"].dims == ("unit",) for c in FRAME)
    assert isinstance(inputs.labels["df['age']"], Labels) and list(inputs.labels["df['age']"].coords[0]) == list("xyz")


@pytest.mark.parametrize(
    ("mean", "frame", "error", "said"),
    [
        (
            lambda df, w: df["weight"],
            FRAME,
            KeyError,
            r"df: no column is called 'weight'; the columns are \['age', 'dose', 'old'\]",
        ),
        (
            lambda df, w: df.groupby("age"),
            FRAME,
            AttributeError,
            r"^df: a data frame comes into the model as arrays, and has no 'groupby' there; take its columns by name, "
            r"of \['age', 'dose', 'old'\], and prepare all else before the fit",
        ),
        (
            lambda df, w: df["note"],
            CITIES,
            ValueError,
            r"^df\['note'\]: expected numbers, got values of dtype \w+(, such as 'text')?; make categories of them",
        ),
        (lambda df, w: df["late"], CITIES, ValueError, r"^data\[\"df\['late'\]\"\] has 1 NaN .* the first at \(1,\)"),
        (
            lambda df, w: df @ w,
            CITIES.drop(columns="city"),
            ValueError,
            r"^df\['note'\]: expected numbers, got .*\. \(The model takes 'df' as a whole\.\)$",
        ),
        (
            lambda df, w: df @ w,
            CITIES[["age", "city"]],
            ValueError,
            r"^df: column 'city' holds categories, whose codes are no quantities in a matrix; take the columns by "
            r"name, df\['age'\], or some of them, df\[\[...\]\]$",
        ),
        # The shapes are at fault, whatever the frame is.
        (lambda df, w: df @ w[:2], FRAME, ValueError, "cannot be run on this data .*dot_general"),
    ],
)
def test_what_is_wrong_with_a_column(mean, frame, error, said):
    with pytest.raises(error, match=said):
        traced(mean, frame)


def test_a_frame_whose_columns_have_no_names_is_a_matrix():
    assert traced(lambda df, w: df @ w, pd.DataFrame(np.ones((3, 3)))).paths == ("df", "y")
    with pytest.raises(TypeError, match=r"^df\[1\]: expected numbers"):
        traced(lambda df, w: df @ w, pd.DataFrame([[1.0, "a"]] * 3))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["age", "b", "b"], r"^df: two columns have the name 'b'; rename it"),
        (["age", "b", 0], r"^df: no text, but a column has the name 0; rename it"),
    ],
)
def test_columns_without_a_name_of_their_own_are_in_no_table(columns, said):
    frame = FRAME.set_axis(columns, axis=1)
    assert traced(lambda df, w: df @ w, frame).paths == ("df", "y")
    assert traced(lambda df, w: df["age"] * w[0], frame).paths[0] == "df['age']"
    with pytest.raises(ValueError, match=said):
        traced(lambda df, w: df["age"] + df @ w, frame)


def test_a_table_is_written_to_a_file_and_read():
    inputs = traced(lambda df, w: w[df["city"]] * df["age"], CITIES)
    args, kwargs = decode_data(data_template(inputs), inputs.arrays)
    again = bind(lambda df, y: None, kwargs)
    assert again.paths == inputs.paths and str(again.tree) == str(inputs.tree)
    assert kwargs["df"].columns == list(CITIES)[:4] + ["note", "late"]


def test_values_of_a_column_may_decide_shapes():
    def model(df, y):
        with numpyro.plate("city", int(df["city"].max()) + 1):
            a = numpyro.sample("a", dist.Normal())
        with numpyro.plate("n", len(df)):
            numpyro.sample("y", dist.Normal(a[df["city"]] + df[["age", "dose"]].sum(-1), 1.0), obs=y)

    result, inputs = trace_program(model, None, bind(model, {"df": CITIES, "y": Y}))
    assert inputs.concrete and result.sites.latents["a"].shape == (2,)


def test_a_log_density_takes_columns_too():
    target = autovi.LogDensity(lambda p, df: -((df["age"] * p["b"] - df["dose"]) ** 2).sum(), {"b": 0.0})
    _, inputs = trace_program(target, None, bind(target, {"df": FRAME}))
    assert inputs.paths == ("df['age']", "df['dose']", "df['old']")


def test_a_guide_function_sees_the_same_table():
    def model(df, y):
        w = numpyro.sample("w", dist.Normal())
        with numpyro.plate("n", len(df)):
            numpyro.sample("y", dist.Normal(df["age"] * w, 1.0), obs=y)

    def guide(df, y):
        loc = numpyro.param("loc", 0.0)
        numpyro.sample("w", dist.Normal(loc * df["dose"].mean(), 1.0))

    assert autovi.plan(model, {"df": FRAME, "y": Y}, guide=guide)["w"].family == "guide"
