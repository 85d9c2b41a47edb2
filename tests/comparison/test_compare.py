"""Posteriors beside each other: exact distances of known samples, and every kind of result taken as it is."""

import types

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from numpyro.infer import MCMC, NUTS

import autovi
from autovi.comparison.distances import Draws, distance, noise
from autovi.comparison.saying import differs

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((2000, 3))


def model(x, y):
    with numpyro.plate("group", 2):
        mean = numpyro.sample("mean", dist.Normal(0, 3))
    numpyro.deterministic("gap", mean[1] - mean[0])
    numpyro.sample("y", dist.Normal(mean[x], 1.0).to_event(1), obs=y)


DATA = {"x": np.array([0, 0, 1, 1]), "y": np.array([0.5, 1.0, 2.0, 3.0])}


@pytest.fixture(scope="module")
def fit():
    return autovi.fit(model, DATA, coords={"group": ["old", "new"]}, progress_bar=False)


@pytest.fixture(scope="module")
def mcmc():
    chains = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
    run = MCMC(NUTS(model), num_warmup=200, num_samples=500, **chains)
    run.run(jax.random.key(0), **DATA)
    return run


# --- distances ------------------------------------------------------------------------------------------------------


def draws(values, ess=None):
    values = np.asarray(values, float)
    return Draws(values, ess or len(values), ess or len(values))


def test_distances_of_moved_and_stretched_draws():
    x = Z[:, 0]
    s = x.std(ddof=1)
    moved = distance(draws(x + 0.5), draws(x))
    assert (moved.mean_shift, moved.wasserstein) == (pytest.approx(0.5 / s), pytest.approx(0.5 / s))
    assert moved.log_sd_ratio == pytest.approx(0.0, abs=1e-12)
    stretched = distance(draws(2 * (x - x.mean())), draws(x - x.mean()))
    assert stretched.log_sd_ratio == pytest.approx(np.log(2))
    # Each draw moves by itself.
    assert stretched.wasserstein == pytest.approx(np.abs(x - x.mean()).mean() / s)
    assert np.isnan(distance(draws(x), draws(np.ones(10)))).all()


def test_standard_errors_are_those_of_many_repetitions():
    """Of 400 pairs of 200 and 300 normal draws; an sd of 400 is known to 1 / sqrt(800)."""
    rng = np.random.default_rng(1)
    found = [distance(draws(rng.normal(size=200)), draws(rng.normal(size=300))) for _ in range(400)]
    tolerance = 5 / 800**0.5
    spread = np.std([d.mean_shift for d in found])
    assert spread == pytest.approx(np.mean([d.mean_shift_se for d in found]), rel=tolerance)
    spread = np.std([d.log_sd_ratio for d in found])
    assert spread == pytest.approx(np.mean([d.log_sd_ratio_se for d in found]), rel=tolerance)
    apart = np.array([d.wasserstein for d in found])
    assert np.mean([d.wasserstein_noise for d in found]) == pytest.approx(
        apart.mean(), abs=5 * apart.std() / 20 + 0.03 * apart.mean()
    )
    assert np.mean([differs(d) for d in found]) == 0


def test_the_noise_of_a_uniform_is_known():
    assert noise(np.linspace(0, 1, 100_001), 0.02) == pytest.approx((0.04 / np.pi) ** 0.5 * np.pi / 8, rel=1e-3)


# --- what is compared -----------------------------------------------------------------------------------------------


def test_everything_is_taken_as_it_is(fit, mcmc):
    known = {"mean": Z[None, :, :2], "gap": Z[None, :, 2]}
    # ArviZ 1.x takes groups, 0.x the posterior.
    idata = az.from_dict(known if hasattr(az, "InferenceData") else {"posterior": known})
    posterior = idata["posterior"]
    dataset = posterior if isinstance(posterior, xr.Dataset) else posterior.to_dataset()
    found = autovi.compare(
        {
            "nuts": mcmc,
            "vi": fit,
            "idata": fit.idata,
            "dict": {"mean": Z[:, :2], "gap": Z[:, 2]},
            "other": idata,
            "ds": dataset,
        }
    )
    assert found.scalars == ("gap", "mean[old]", "mean[new]") and found.reference == "nuts"
    assert list(found.distances) == ["vi", "idata", "dict", "other", "ds"]
    table = found.table
    assert isinstance(table, pd.DataFrame) and list(table.index) == list(found.scalars)
    np.testing.assert_allclose(table["dict"]["mean"], np.roll(Z, 1, axis=1).mean(0))
    np.testing.assert_allclose(table["dict"]["sd"], np.roll(Z, 1, axis=1).std(0, ddof=1))
    np.testing.assert_array_equal(table["dict"], table["other"])
    np.testing.assert_array_equal(table["dict"], table["ds"])
    np.testing.assert_array_equal(table["vi"], table["idata"])
    # The posterior is normal: two observations of unit variance each, under N(0, 9).
    right = np.array([1.5, 5.0]) / (2 + 1 / 9)
    assert np.all(np.abs(table["vi"]["mean"][1:] - right) < 5 * (1 / (2 + 1 / 9) / 1000) ** 0.5)
    said = repr(found)
    assert said.startswith("'vi' agrees with 'nuts' at 3 scalars") and "\n" not in said
    assert "'dict' differs from 'nuts' at 3 of 3 scalars" in said


def test_another_reference_and_some_variables(fit):
    found = autovi.compare({"a": {"mean": Z[:, :2]}, "vi": fit}, reference="vi", var_names="m*")
    assert found.scalars == ("mean[old]", "mean[new]") and list(found.distances) == ["a"]
    every = autovi.compare({"a": {"mean": Z[:, :2]}, "vi": fit})
    assert every.missing == {"gap": ("a",)}
    assert repr(every).endswith("; not compared: 'gap' (not in 'a')")


def test_numbers_that_vary_nowhere_are_left_out():
    corner = np.ones((2000, 1))
    found = autovi.compare({"a": {"x": np.c_[Z[:, :1], corner]}, "b": {"x": np.c_[Z[:, 1:2], corner]}})
    assert found.scalars == ("x[0]",)
    stuck = autovi.compare({"a": {"x": Z[:, 0]}, "b": {"x": np.ones(2000)}})
    assert "'b' differs from 'a' at 1 of 1 scalar" in repr(stuck)
    assert "nothing to compare" in repr(autovi.compare({"b": {"x": np.ones(2000)}, "a": {"x": Z[:, 0]}}))


def test_chains_count_for_what_they_are():
    """A chain with autocorrelation 0.9 stands for a nineteenth of its draws, and so do its errors."""
    rng, steps = np.random.default_rng(2), 20_000
    x = np.zeros(steps)
    noise_of = rng.normal(size=steps) * (1 - 0.81) ** 0.5
    for i in range(1, steps):
        x[i] = 0.9 * x[i - 1] + noise_of[i]
    found = autovi.compare({"a": {"x": x}, "b": {"x": Z[:, 0]}})
    assert found.table["a"]["ess"].item() == pytest.approx(steps / 19, rel=0.25)
    few = autovi.compare({"a": {"x": Z[:40, 0]}, "b": {"x": Z[40:80, 0]}})
    assert "as far as so few draws tell" in repr(few)


def test_the_pair_plot(fit, mcmc, tmp_path):
    found = autovi.compare({"nuts": mcmc, "vi": fit, "off": {"mean": Z[:, :2] + 9, "gap": np.zeros(2000)}})
    figure = found.plot(["mean"], num_draws=100)
    assert isinstance(figure, Figure)
    density, points = figure.axes[0], figure.axes[2]
    assert [line.get_label() for line in density.get_lines()] == ["nuts", "vi", "off"]
    assert [len(line.get_xdata()) for line in points.get_lines()] == [100, 100, 100]
    assert (points.get_xlabel(), points.get_ylabel()) == ("mean[old]", "mean[new]")
    found.plot().savefig(tmp_path / "pairs.png")
    with pytest.raises(ValueError, match="var_names: expected 1 to 8 scalars of"):
        found.plot("nothing")


@pytest.mark.parametrize(
    ("results", "options", "error", "said"),
    [
        ({"a": {"x": Z}}, {}, ValueError, "results: expected a dict of at least two"),
        ([{"x": Z}, {"x": Z}], {}, ValueError, "results: expected a dict of at least two"),
        ({"a": {"x": Z}, "b": {"x": Z}}, {"reference": "c"}, ValueError, r"reference: expected one of \['a', 'b'\]"),
        ({"a": {"x": Z}, "b": 3}, {}, TypeError, r"results\['b'\]: expected a Fit, a NumPyro MCMC"),
        ({"a": {"x": Z}, "b": {"y": Z}}, {}, ValueError, "results: expected a variable that all of them have"),
        ({"a": {"x": Z}, "b": {"x": Z[:, 0]}}, {}, ValueError, "results: expected one shape of 'x' in all of them"),
        ({"a": {"x": Z}, "b": {"x": Z}}, {"var_names": "z*"}, ValueError, "var_names: expected names or globs of"),
        ({"a": {"x": Z}, "b": {"x": Z[:2]}}, {}, ValueError, r"results\['b'\]: expected at least 4 draws"),
        ({"a": {"x": Z}, "b": {"x": Z, "y": Z[:9]}}, {}, ValueError, r"results\['b'\]: expected at least 4 draws"),
        ({"a": {"x": Z}, "b": {}}, {}, ValueError, r"results\['b'\]: expected at least 4 draws"),
    ],
)
def test_what_is_refused(results, options, error, said):
    with pytest.raises(error, match=said):
        autovi.compare(results, **options)


def test_chains_that_have_not_run_are_refused():
    waiting = MCMC(NUTS(model), num_warmup=5, num_samples=5, progress_bar=False)
    with pytest.raises(ValueError, match=r"results\['b'\]: it has no draws; call its run first"):
        autovi.compare({"a": {"mean": Z}, "b": waiting})
    nameless = types.SimpleNamespace(get_samples=lambda group_by_chain: Z)
    with pytest.raises(ValueError, match=r"results\['b'\]: expected draws by the names of sites, got ndarray"):
        autovi.compare({"a": {"mean": Z}, "b": nameless})
