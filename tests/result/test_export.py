"""What autovi hands over works in ArviZ, of whichever line is installed, and survives netCDF."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import arviz as az
import jax.numpy as jnp
import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np
import pytest

from autovi.result.export import build, density, posterior, summary

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1
DRAWS = 200
SCHOOLS = list("abcdefgh")
DIMS = {"theta": ["school"], "z": ["school"], "y": ["school"], "loadings": ["school", None]}
PLAN = {"sites": [{"name": "theta", "family": "normal"}], "pilot": None}


def eight_schools():
    rng = np.random.default_rng(0)
    draws = (1, DRAWS)
    return {
        "posterior": {
            "mu": rng.normal(size=draws),
            "theta": jnp.asarray(rng.normal(size=(*draws, 8))),
            "z": rng.integers(0, 3, (*draws, 8)).astype(np.int32),
            "switch": rng.random(draws) > 0.5,
            "loadings": rng.normal(size=(*draws, 8, 2)).astype(np.float32),
        },
        "posterior_predictive": {"y": rng.normal(size=(*draws, 8))},
        "log_likelihood": {"y": rng.normal(scale=0.3, size=(*draws, 8))},
        "sample_stats": {"lp": rng.normal(size=draws)},
        "prior": {},
        "observed_data": {"y": np.arange(8.0)},
        "constant_data": {"n": np.array(8)},
    }


@pytest.fixture
def idata():
    return build(eight_schools(), dims=DIMS, coords={"school": SCHOOLS}, attrs={"plan": PLAN, "elbo": -3.5})


def groups_of(idata):
    return set(idata.children) if ARVIZ_1 else set(idata.groups())


@pytest.fixture(params=["built", "read back"])
def either(request, idata, tmp_path):
    if request.param == "built":
        return idata
    idata.to_netcdf(tmp_path / "fit.nc")
    return az.from_netcdf(tmp_path / "fit.nc")


def test_groups_shapes_and_dtypes(either):
    given = {group: variables for group, variables in eight_schools().items() if variables}
    assert groups_of(either) == set(given)
    for group, variables in given.items():
        for name, value in variables.items():
            array = either[group][name]
            assert array.dtype == value.dtype, (group, name)
            np.testing.assert_array_equal(array.values, value)


def test_dims_and_coords(either):
    for group in ("posterior_predictive", "log_likelihood"):
        assert either[group]["y"].dims == ("chain", "draw", "school")
    assert either["observed_data"]["y"].dims == ("school",)
    assert either["posterior"]["loadings"].dims == ("chain", "draw", "school", "loadings_dim_1")
    for array in (either["posterior"]["theta"], either["observed_data"]["y"]):
        assert list(array["school"].values) == SCHOOLS
    assert list(either["posterior"]["draw"].values) == list(range(DRAWS))
    assert list(either["posterior"]["loadings_dim_1"].values) == [0, 1]
    assert either["posterior"]["theta"].sel(school="c").shape == (1, DRAWS)


def test_attrs(either):
    for attrs in (either.attrs, either["posterior"].attrs):
        assert attrs["inference_library"] == "autovi"
        assert attrs["inference_library_version"]
        assert json.loads(attrs["plan"]) == PLAN
        assert attrs["elbo"] == -3.5
    assert either["log_likelihood"].attrs["inference_library"] == "autovi"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, "true"),
        (None, "null"),
        (2**70, str(2**70)),
        (-(2**63), -(2**63)),
        (np.float32(0.5), 0.5),
        (np.arange(2), "[0, 1]"),
        ({"a": jnp.ones(1)}, '{"a": [1.0]}'),
        ("", ""),
        ({"f": len}, '{"f": "<built-in function len>"}'),
    ],
)
def test_any_attr_survives_netcdf(tmp_path, value, stored):
    built = build({"posterior": {"mu": np.zeros((1, 4))}}, attrs={"key": value})
    built.to_netcdf(tmp_path / "fit.nc")
    for root in (built, az.from_netcdf(tmp_path / "fit.nc")):
        assert root.attrs["key"] == stored and root["posterior"].attrs["key"] == stored


def test_given_attrs_win():
    built = build({"posterior": {"mu": np.zeros((1, 4))}}, attrs={"inference_library_version": "9"})
    assert built.attrs["inference_library_version"] == "9"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (range(2), [0, 1]),
        ([("a", 1), ("b", 2)], ["('a', 1)", "('b', 2)"]),
        (np.array(["a", 1], object), ["a", "1"]),
        ([(1, 2), (3,)], ["(1, 2)", "(3,)"]),
        (np.array(["2026-01-01", "2026-01-02"], "M8[ns]"), None),
        (jnp.array([0.5, 1.0]), [0.5, 1.0]),
    ],
)
def test_any_labels_survive_netcdf(tmp_path, labels, expected):
    built = build({"posterior": {"x": np.zeros((1, 4, 2))}}, dims={"x": ["g"]}, coords={"g": labels})
    built.to_netcdf(tmp_path / "fit.nc")
    read = az.from_netcdf(tmp_path / "fit.nc")["posterior"]["g"].values
    np.testing.assert_array_equal(read, labels if expected is None else expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_floats_become_float32(tmp_path, dtype):
    built = build({"posterior": {"x": np.arange(4, dtype=dtype)[None]}})
    built.to_netcdf(tmp_path / "fit.nc")
    array = az.from_netcdf(tmp_path / "fit.nc")["posterior"]["x"]
    assert array.dtype == np.float32 and list(array.values[0]) == [0, 1, 2, 3]


def test_names_that_arviz_cannot_hold(tmp_path):
    built = build(
        {
            "posterior": {
                "scope/x": np.zeros((1, 4, 2)),
                "w": np.zeros((1, 4, 3)),
                "m": np.zeros((1, 4, 2, 2)),
            },
            "constant_data": {"group": np.zeros(2), "w": np.zeros(3)},
        },
        dims={"scope/x": ["group"], "group": ["group"], "w": ["draw"], "m": ["group", "group"]},
        coords={"group": ["a", "b"], "draw": ["u", "v", "w"]},
    )
    built.to_netcdf(tmp_path / "fit.nc")
    for root in (built, az.from_netcdf(tmp_path / "fit.nc")):
        x = root["posterior"]["scope.x"]
        assert x.dims == ("chain", "draw", "group_dim") and x.attrs["site"] == "scope/x"
        assert root["constant_data"]["group"].dims == ("group_dim",)
        assert list(root["constant_data"]["group_dim"].values) == ["a", "b"]
        assert root["posterior"]["w"].dims == ("chain", "draw", "draw_dim")
        assert list(root["posterior"]["draw_dim"].values) == ["u", "v", "w"]
        assert root["posterior"]["m"].dims == ("chain", "draw", "group_dim", "m_dim_1")


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ({"posterior": {"x": np.zeros(4)}}, {}, r"posterior\['x'\]: expected leading axes"),
        (
            {"posterior": {"x": np.zeros((1, 4)), "y": np.zeros((1, 5))}},
            {},
            "'draw' has length 4 in 'x', but 5",
        ),
        (
            {"posterior": {"x": np.zeros((1, 4, 2)), "y": np.zeros((1, 4, 3))}},
            {"dims": {"x": ["g"], "y": ["g"]}},
            "'g' has length 2 in 'x', but 3 in 'y'",
        ),
        ({"posterior": {"x": np.zeros((1, 4))}}, {"dims": {"x": ["g"]}}, r"dims\['x'\]: it names 1 axes"),
        (
            {"posterior": {"x": np.zeros((1, 4, 2))}},
            {"dims": {"x": ["g"]}, "coords": {"g": ["a"]}},
            r"coords\['g'\]: it has 1 values, but the axis has 2 in posterior",
        ),
        (
            {"posterior": {"a/b": np.zeros((1, 4)), "a.b": np.zeros((1, 4))}},
            {},
            "'a.b' .*names two variables",
        ),
        ({"posterior": {"draw": np.zeros((1, 4))}}, {}, "'draw' .*taken by ArviZ"),
        ({"observed_data": {"x": np.array([{}])}}, {}, r"observed_data\['x'\]: expected numbers"),
    ],
)
def test_faults_are_named(groups, options, message):
    with pytest.raises(ValueError, match=message):
        build(groups, **options)


def test_predictions_of_new_data_have_axes_of_their_own():
    groups = {"posterior": {"x": np.zeros((1, 4, 2))}, "predictions": {"y": np.zeros((1, 4, 3))}}
    built = build(groups, dims={"x": ["g"], "y": ["g"]}, coords={"g": ["a", "b"]})
    assert list(built["posterior"]["g"].values) == ["a", "b"]
    assert list(built["predictions"]["g"].values) == [0, 1, 2]


def test_several_chains_and_no_groups():
    assert build({"posterior": {"x": np.zeros((3, 4))}})["posterior"]["x"].shape == (3, 4)
    assert groups_of(build({"posterior": {}})) == set()


def test_arviz_functions_run(either):
    assert len(az.summary(either, var_names=["mu", "theta"], kind="stats")) == 9
    result = az.loo(either, pointwise=True)
    assert result.pareto_k.dims == ("school",) and np.isfinite(result.pareto_k).all()
    with warnings.catch_warnings():
        # ArviZ 0.23 calls into matplotlib in ways that 3.11 deprecates.
        warnings.simplefilter("ignore")
        if ARVIZ_1:
            az.plot_trace_dist(either, var_names=["theta"])
            az.plot_dist(either, var_names=["theta"])
            az.plot_ppc_dist(either)
        else:
            az.plot_trace(either, var_names=["theta"])
            az.plot_posterior(either, var_names=["theta"])
            az.plot_ppc(either)
    plt.close("all")


def test_summary_is_of_independent_draws(either):
    table = summary(either, var_names=["mu", "theta", "switch"])
    assert list(table.index) == ["mu", *(f"theta[{s}]" for s in SCHOOLS), "switch"]
    assert "r_hat" not in table.columns and not table.isna().any().any()
    assert float(table["mean"]["switch"]) == pytest.approx(eight_schools()["posterior"]["switch"].mean(), abs=1e-2)


def test_summary_passes_arguments_on(idata):
    table = summary(idata, var_names=["mu"], kind="all")
    assert "ess_bulk" in table.columns and "r_hat" not in table.columns
    assert list(summary(idata, group="posterior_predictive", coords={"school": ["b"]}).index) == ["y[b]"]


def test_summary_of_a_name_that_is_not_there(idata):
    with pytest.raises(ValueError, match=r"^var_names: expected some of \['mu', .*, got \['nu'\]; for parts of names"):
        summary(idata, var_names=["mu", "nu"])
    assert "mu" not in summary(idata, var_names="~mu").index
    assert list(summary(idata, var_names="m", filter_vars="like").index) == ["mu"]


def test_summary_keeps_an_r_hat_that_means_something():
    rng = np.random.default_rng(0)
    built = build({"posterior": {"x": rng.normal(size=(4, 100)), "fixed": np.ones((4, 100))}})
    assert float(summary(built, kind="all")["r_hat"]["x"]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("sign", [1, -1])
def test_density_is_that_of_the_draws(sign):
    """Of an exponential variable, up to its bound, where a kernel without correction halves it."""
    grid, height = density(sign * np.random.default_rng(0).exponential(size=20_000))
    assert np.trapezoid(height, grid) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(height, np.exp(-np.abs(grid)), atol=0.1)


def test_the_posterior_is_numbers(either):
    found = posterior(either)
    assert found["switch"].dtype == np.int8 and found["theta"].dims == ("chain", "draw", "school")


def test_arviz_is_imported_only_when_used():
    root = Path(__file__).resolve().parents[2]
    code = "import sys, autovi.result.fit; print({'arviz', 'xarray', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
