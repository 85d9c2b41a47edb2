"""Names and labels of axes: from the data, from `coords` and `dims`, in groups, predictions, summaries and files."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import autovi
from autovi.model.inputs import bind
from autovi.model.new_data import bind_like
from autovi.model.targets import trace_program
from autovi.result.axes import Axes
from autovi.result.export import build

RNG = np.random.default_rng(0)
ROWS, CITIES = [f"r{i}" for i in range(12)], ["Bonn", "Kiel", "Ulm"]


def quick(model, data=None, **options):
    return autovi.fit(model, data, **{"num_steps": 10, "num_draws": 20, "progress_bar": False, **options})


def labels(dataset, dim):
    return list(dataset.coords[dim].values)


def table(rows=ROWS, cities=CITIES):
    codes = np.arange(len(rows)) % 3
    return pd.DataFrame(
        {
            "city": pd.Categorical.from_codes(codes[::-1], cities),
            "age": RNG.normal(size=len(rows)),
            "dose": RNG.normal(size=len(rows)),
            "note": "a remark",
        },
        index=pd.Index(rows),
    )


def by_city(df, X, y=None):
    with numpyro.plate("city", 3):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.deterministic("b", 2.0 * a)
    w = numpyro.sample("w", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    v = numpyro.sample("v", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    u = numpyro.sample("u", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    with numpyro.plate("row", len(df)):
        m = numpyro.deterministic("m", b[df["city"]] + X @ w + df[["dose", "age"]] @ v + u.sum())
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)


DATA = {"df": table(), "X": table()[["age", "dose"]], "y": np.arange(12.0)}
DIMS = {"u": ["part"], "w": ["feature"]}
COORDS = {"part": ["p", "q", "s"]}


@pytest.fixture(scope="module")
def fit():
    return quick(by_city, DATA, coords=COORDS, dims=DIMS)


@pytest.fixture(scope="module", params=["fit", "loaded"])
def either(request, fit, tmp_path_factory):
    if request.param == "fit":
        return fit
    path = tmp_path_factory.mktemp("labels") / "fit.autovi"
    fit.save(path, with_data=True)
    return autovi.load(path, by_city)


def test_labels_of_the_data_reach_the_sites_they_speak_of(either):
    posterior = either.idata["posterior"]
    assert posterior["a"].dims == ("chain", "draw", "city") and labels(posterior, "city") == CITIES
    assert posterior["b"].dims == ("chain", "draw", "b_dim_0") and labels(posterior, "b_dim_0") == CITIES
    assert posterior["m"].dims == ("chain", "draw", "row") and labels(posterior, "row") == ROWS
    assert labels(posterior, "v_dim_0") == ["dose", "age"]
    assert labels(either.idata["observed_data"], "row") == ROWS
    assert either.idata["constant_data"]["df['age']"].dims == ("row",)


def test_dims_and_coords_of_fit_are_kept(either):
    posterior = either.idata["posterior"]
    assert posterior["u"].dims == ("chain", "draw", "part") and labels(posterior, "part") == ["p", "q", "s"]
    # The labels that the axis has by itself go with its new name.
    assert posterior["w"].dims == ("chain", "draw", "feature") and labels(posterior, "feature") == ["age", "dose"]
    shown = list(either.summary(var_names=["a", "w", "u"]).index)
    assert shown == ["a[Bonn]", "a[Kiel]", "a[Ulm]", "w[age]", "w[dose]", "u[p]", "u[q]", "u[s]"]


def test_dims_and_coords_of_one_export_win(fit):
    idata = fit.to_arviz(["posterior"], coords={"part": [1, 2, 3], "city": list("xyz")}, dims={"b": ["town"]})
    posterior = idata["posterior"]
    assert labels(posterior, "part") == [1, 2, 3]
    assert labels(posterior, "city") == list("xyz")
    assert posterior["b"].dims == ("chain", "draw", "town")
    assert posterior["w"].dims == ("chain", "draw", "feature")
    assert fit.idata["posterior"]["b"].dims == ("chain", "draw", "b_dim_0")


def test_predictions_have_the_labels_of_the_new_data(either):
    new = table(["n0", "n1"]).assign(city=pd.Categorical(["Ulm", "Bonn"]))  # with codes 1 and 0 of its own
    idata = either.to_arviz(
        ["posterior", "predictions", "predictions_constant_data"], new_data={"df": new, "X": new[["age", "dose"]]}
    )
    predictions = idata["predictions"]
    assert predictions["y"].shape == (1, 20, 2)
    assert labels(predictions, "row") == ["n0", "n1"] and labels(idata["posterior"], "row") == ROWS
    assert labels(predictions, "b_dim_0") == CITIES
    np.testing.assert_array_equal(idata["predictions_constant_data"]["df['city']"].values, [2, 0])


def test_elements_that_stay_keep_their_labels_in_predictions(fit):
    new = {"df": table(range(12)), "X": DATA["X"].reset_index(drop=True)}
    predictions = fit.to_arviz(["predictions"], new_data=new)["predictions"]
    assert labels(predictions, "b_dim_0") == CITIES
    assert labels(predictions, "row") == list(range(12))  # as many rows, and yet others


def test_categories_of_new_data_are_taken_by_name(either):
    codes = {"df": DATA["df"].assign(city=DATA["df"]["city"].cat.reorder_categories(CITIES[::-1])), "X": DATA["X"]}
    same = either.predict({"df": DATA["df"], "X": DATA["X"]})
    np.testing.assert_array_equal(either.predict(codes)["y"], same["y"])
    unknown = {"df": DATA["df"].assign(city=pd.Categorical(["Trier"] * 12)), "X": DATA["X"]}
    said = (
        r"new_data: df\['city'\] has the category 'Trier', which the fit did not have; its categories are "
        r"\['Bonn', 'Kiel', 'Ulm'\]. For an element that is new, give integer codes"
    )
    with pytest.raises(ValueError, match=said):
        either.predict(unknown)


def test_categories_where_the_fit_had_numbers_are_refused():
    def model(g, y=None):
        pass

    fitted = bind(model, {"g": [0, 1], "y": np.zeros(2)})
    with pytest.raises(ValueError, match="new_data: g holds categories, where the fit had numbers; give those numbers"):
        bind_like(model, {"g": pd.Series(["b", "a"], dtype="category")}, fitted)


# --- which axes a column of codes speaks of -------------------------------------------------------------------------

GROUPS = pd.Series(list("cabcab"), dtype="category")


def axes_of(model, data, sizes=None, **options):
    traced, inputs = trace_program(model, None, bind(model, data))
    if sizes is not None:
        traced, inputs = trace_program(model, None, inputs, sizes)
    return Axes(traced, inputs, **options)


def coords_of(body, groups=GROUPS, **data):
    """Coords of the posterior of a model `body(g, a, ...)` whose plate "p" has three elements."""

    def model(g, y, **more):
        with numpyro.plate("p", 3):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 6):
            numpyro.sample("y", dist.Normal(body(g, a, **more), 1.0), obs=y)

    named = axes_of(model, {"g": groups, "y": np.zeros(6), **data}).named()
    assert named["dims"]["a"] == ["p"]
    return None if (found := named["coords"].get("p")) is None else list(found)


INDEXED = {
    "indexed": lambda g, a: a[g],
    "taken": lambda g, a: jnp.take(a, g),
    "shifted and scaled before": lambda g, a: (2.0 * jnp.exp(a) + 1.0)[g],
    "as one of two axes": lambda g, a: jnp.stack([a, 2.0 * a], -1)[g, g % 2],
    "in the second axis": lambda g, a: jnp.stack([a, a])[:, g].sum(0),
    "some rows": lambda g, a: jnp.tile(a[g[::2]], 2),
    "under jit": lambda g, a: jax.jit(lambda a, g: a[g])(a, g),
}
NOT_INDEXED = {
    "turned round": lambda g, a: a[::-1][g],
    "sorted": lambda g, a: jnp.sort(a)[g],
    "other codes": lambda g, a: a[(g + 1) % 3],
    "one less": lambda g, a: a[g - 1],
    "two of them": lambda g, a: a[jnp.where(g > 0, g, 2)],
    "permuted": lambda g, a: a[jnp.array([2, 0, 1])[g]],
    "not at all": lambda g, a: jnp.repeat(a, 2) + 0.0 * g,
}


@pytest.mark.parametrize("case", INDEXED)
def test_an_axis_that_the_codes_index_has_their_names(case):
    assert coords_of(INDEXED[case]) == ["a", "b", "c"]


@pytest.mark.parametrize("case", NOT_INDEXED)
def test_no_label_where_it_would_be_a_guess(case):
    assert coords_of(NOT_INDEXED[case]) is None


def test_codes_of_another_number_of_categories_give_no_labels():
    more = pd.Series(pd.Categorical(list("cabcab"), categories=list("abcd")))
    assert coords_of(lambda g, a: a[g], more) is None


def test_two_columns_of_codes_that_disagree_give_no_labels():
    other = pd.Series(list("zxyzxy"), dtype="category")
    assert coords_of(lambda g, a, h: a[g] + a[h], h=other) is None
    assert coords_of(lambda g, a, h: a[g] + 0.0 * h, h=other) == ["a", "b", "c"]


def test_codes_that_are_constants_of_the_program():
    def body(g, a, **more):
        return a[g] + 0.0 * np.asarray(g).max()

    assert coords_of(body) == ["a", "b", "c"]
    # Other numbers that are the same could be anything.
    assert coords_of(body, same=GROUPS.cat.codes) is None
    counting = pd.Series(list("abc"), dtype="category")
    assert coords_of(lambda g, a: jnp.tile(a[g], 2) + 0.0 * np.asarray(g).max(), counting) is None


def test_a_constant_that_happens_to_equal_the_codes_is_not_them():
    constant = np.array([2, 0, 1, 2, 0, 1])
    assert coords_of(lambda g, a: a[constant] + 0.0 * g) is None


# --- faults of coords and dims --------------------------------------------------------------------------------------


def two(x, y=None):
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2))
    with numpyro.plate("row", 4):
        numpyro.sample("y", dist.Normal(theta.sum() * x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"dims": {"thetta": ["a"]}},
            "dims: no variable is called 'thetta'; the variables are ['theta', 'x', 'y', 'y_data']",
        ),
        (
            {"dims": {"theta": ["a"]}},
            "dims['theta']: expected a list of 2 names, one for each axis of shape (2, 3), got 1, ['a']",
        ),
        (
            {"dims": {"theta": "ab"}},
            "dims['theta']: expected a list of 2 names, one for each axis of shape (2, 3), got a str",
        ),
        (
            {"dims": {"theta": ["a", "a"]}},
            "dims: 'a' has length 2 in 'theta', but 3 in 'theta'; give them different names",
        ),
        (
            {"dims": {"theta": ["row", None]}},
            "dims: 'row' has length 4 in 'x', but 2 in 'theta'; give them different names",
        ),
        (
            {"coords": {"rows": "abcd"}},
            "coords: nothing has the dim 'rows'; the dims are ['row', 'theta_dim_0', 'theta_dim_1']",
        ),
        ({"coords": {"row": ["a", "b"]}}, "coords['row']: expected 4 labels, the length of the dim, got 2"),
        (
            {"coords": {"theta_dim_1": ["a", "b"]}},
            "coords['theta_dim_1']: expected 3 labels, the length of the dim (in 'theta'), got 2",
        ),
        ({"coords": {"row": "abcd"}}, "coords['row']: expected a list of labels, got 'abcd'"),
    ],
)
def test_dims_and_coords_that_do_not_fit(options, said):
    with pytest.raises(ValueError) as raised:
        autovi.fit(two, {"x": np.ones(4), "y": np.zeros(4)}, **options)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dims": ["a", "b"]}, "dims: expected a dict, variable -> names, got a list"),
        ({"coords": ["a", "b"]}, "coords: expected a dict, dim -> labels, got a list"),
    ],
)
def test_dims_and_coords_are_dicts(options, said):
    with pytest.raises(TypeError, match=said):
        autovi.fit(two, {"x": np.ones(4), "y": np.zeros(4)}, **options)


def test_the_same_is_said_by_to_arviz(fit):
    said = r"^coords\['part'\]: expected 3 labels, the length of the dim \(in 'u'\), got 1$"
    with pytest.raises(ValueError, match=said):
        fit.to_arviz(coords={"part": ["x"]})
    with pytest.raises(ValueError, match=r"groups: unknown name 'predictions'"):
        fit.to_arviz(["predictions"])


def test_an_event_has_one_density():
    groups = {"log_likelihood": {"y": np.zeros((1, 4, 3))}, "posterior_predictive": {"y": np.zeros((1, 4, 3, 2))}}
    idata = build(groups, dims={"y": ["row", "side"]}, coords={"side": ["left", "right"]})
    assert idata["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    assert idata["posterior_predictive"]["y"].dims == ("chain", "draw", "row", "side")
    assert labels(idata["posterior_predictive"], "side") == ["left", "right"]


def test_labels_of_subsampled_plates():
    def model(df, y=None):
        with numpyro.plate("city", 3):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(df), subsample_size=4) as rows:
            batch = df[rows]
            mean = numpyro.deterministic("mean", a[batch["city"]])
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=None if y is None else y[rows])

    data = {"df": DATA["df"], "y": DATA["y"]}
    named = axes_of(model, data, {"row": 12}, dims={"mean": ["unit"]}).named()
    assert list(named["coords"]["city"]) == CITIES
    assert named["dims"]["mean"] == ["unit"] and list(named["coords"]["unit"]) == ROWS


def test_labels_survive_netcdf(fit, tmp_path):
    path = str(tmp_path / "fit.nc")
    fit.idata.to_netcdf(path)
    again = az.from_netcdf(path)
    assert labels(again["posterior"], "city") == CITIES
    assert labels(again["posterior"], "feature") == ["age", "dose"]
    again.close()


def test_labels_of_xarray_and_given_ones_for_the_same_plate():
    x = xr.DataArray(np.ones(4), dims=["row"], coords={"row": list("abcd")})
    data = {"x": x, "y": np.zeros(4)}
    assert list(axes_of(two, data).named()["coords"]["row"]) == list("abcd")
    assert axes_of(two, data, coords={"row": [10, 20, 30, 40]}).named()["coords"]["row"] == [10, 20, 30, 40]


def test_labels_that_are_changed_after_the_fit():
    coords, dims = {"row": list("abcd")}, {"theta": ["i", "j"]}
    fit = autovi.fit(two, {"x": np.ones(4)}, coords=coords, dims=dims, num_steps=1, num_draws=10, progress_bar=False)
    coords["row"][0], dims["theta"][0] = "other", "other"
    posterior = fit.to_arviz(["posterior"])["posterior"]
    assert labels(posterior, "row") == list("abcd") and posterior["theta"].dims[2:] == ("i", "j")
