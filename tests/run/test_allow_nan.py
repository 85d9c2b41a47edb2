"""NaN in the data: let through by name, where the model handles it, and said where it does not."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import autovi

Y = np.zeros(3)
GAPS = np.array([1.0, np.nan, 3.0])


def through(x, y):
    b = numpyro.sample("b", dist.Normal())
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def handled(x, y):
    b = numpyro.sample("b", dist.Normal())
    seen = ~(jnp.isnan(x) | jnp.isnan(y))
    with numpyro.plate("n", 3), numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Normal(b * jnp.nan_to_num(x), 1.0), obs=jnp.nan_to_num(y))


fit = functools.partial(autovi.fit, num_steps=20, num_draws=20, progress_bar=False)


def explicit(x, y, seen):
    b = numpyro.sample("b", dist.Normal())
    with numpyro.plate("n", 3), numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def test_nan_that_the_model_handles_passes(tmp_path):
    result = fit(handled, {"x": GAPS, "y": np.ones(3)}, allow_nan={"x"})
    assert result.status == "max_steps" and result.skipped_steps == 0
    same = fit(explicit, {"x": np.array([1.0, 0.0, 3.0]), "y": np.ones(3), "seen": ~np.isnan(GAPS)})
    np.testing.assert_allclose(result.losses, same.losses, rtol=1e-5)
    assert result.predict({"x": GAPS[::-1].copy(), "y": np.ones(3)})["y"].shape == (20, 3)
    result.save(tmp_path / "gaps.autovi", with_data=True)
    again = autovi.load(tmp_path / "gaps.autovi", handled)
    assert again.elbo == result.elbo
    assert again.predict({"x": GAPS, "y": np.ones(3)})["y"].shape == (20, 3)
    with pytest.raises(ValueError, match=r"data\['y'\] has 1 NaN"):
        again.predict({"x": GAPS, "y": GAPS})


@pytest.mark.parametrize("name", ["x", "y"])
def test_nan_that_reaches_a_density_is_an_error(name):
    said = (
        rf"^data\['{name}'\] has NaN, which the model lets through to site 'y', whose density is NaN there; drop those "
        r"elements, or mask them in the model \(numpyro.handlers.mask\) and put a number in their place "
        r"\(jnp.nan_to_num\)$"
    )
    with pytest.raises(ValueError, match=said):
        fit(through, {"x": np.ones(3), "y": np.ones(3), name: GAPS}, allow_nan={"x", "y"})


def test_only_the_names_in_allow_nan_may_have_nan():
    with pytest.raises(ValueError, match=r"data\['y'\] has 1 NaN .* takes them with allow_nan=\{'y'\}\)$"):
        autovi.plan(handled, {"x": GAPS, "y": GAPS}, allow_nan={"x"})
    assert autovi.plan(handled, {"x": GAPS, "y": GAPS}, allow_nan=["x", "y"])["b"].site == "b"
    with pytest.raises(ValueError, match=r"data\['x'\] has 1 infinite values, the first at \(1,\); drop them$"):
        autovi.plan(handled, {"x": [1.0, np.inf, np.nan], "y": Y}, allow_nan={"x"})


def test_nested_names_in_allow_nan():
    def nested(d, df):
        handled(d["x"] + df["late"], d["y"])

    data = {"d": {"x": GAPS, "y": Y}, "df": pd.DataFrame({"late": GAPS, "note": "text"})}
    for allowed in (["d['x']", "df['late']"], ["d", "df"]):
        assert autovi.plan(nested, data, allow_nan=allowed)["b"].site == "b"


def test_unknown_names_in_allow_nan():
    data = {"x": Y, "y": Y}
    with pytest.raises(ValueError, match=r"^allow_nan: no argument is called 'q'; the data are \['x', 'y'\]$"):
        autovi.plan(handled, data, allow_nan={"q"})
    with pytest.raises(ValueError, match=r"^allow_nan: expected a set of names, got a string; say allow_nan=\{'x'\}$"):
        autovi.plan(handled, data, allow_nan="x")


def test_nan_that_a_later_batch_brings_is_said_in_the_message():
    def model(y):
        b = numpyro.sample("b", dist.Normal())
        with numpyro.plate("n", 40, subsample_size=2) as i:
            numpyro.sample("y", dist.Normal(b, 1.0), obs=y[i])

    result = fit(model, {"y": np.where(np.arange(40) == 7, np.nan, 1.0)}, num_steps=60, allow_nan={"y"})
    assert 0 < result.skipped_steps < 20
    assert (
        "; data['y'] has NaN, which the model lets through to site 'y': drop those elements, or mask" in result.message
    )


def test_nan_among_the_constants_of_a_program():
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0 if np.asarray(x)[0] > 0 else 2.0))
        with numpyro.plate("n", 3):
            numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"^data\['x'\] has NaN, which the model may let through to site 'y', whose"):
        fit(model, {"x": GAPS, "y": np.ones(3)}, allow_nan={"x"})
