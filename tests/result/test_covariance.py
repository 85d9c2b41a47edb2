"""Covariances: of correlated normals exactly, where mean field is too small by a known factor."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import autovi

RHO = 0.98
RIGHT = np.array([[4.0, 2 * RHO], [2 * RHO, 1.0]])


def correlated():
    x = numpyro.sample("x", dist.MultivariateNormal(jnp.array([1.0, -2.0]), covariance_matrix=jnp.asarray(RIGHT)))
    numpyro.deterministic("sum", x.sum())
    numpyro.deterministic("double", 2 * x)


def at(fit, loc, sd):
    """The fit with this mean-field normal."""
    ((block, leaves),) = fit.raw_params["guide"].items()
    wanted = {n: np.broadcast_to(loc if n == "loc" else np.log(sd), v.shape) for n, v in leaves.items()}
    params = {n: jnp.asarray(v, jnp.float32) for n, v in wanted.items()}
    return replace(fit, state=fit.state._replace(average={"guide": {block: params}, "param": {}}))


@pytest.fixture(scope="module")
def fit():
    """The optimum of mean field: the right means, the conditional standard deviations."""
    made = autovi.fit(correlated, guide="mean_field", num_steps=20, init="prior", progress_bar=False)
    return at(made, [1.0, -2.0], np.sqrt(np.diag(RIGHT) * (1 - RHO**2)))


def test_linear_response_is_exact_where_mean_field_is_too_small_by_the_known_factor(fit):
    plain, found = fit.covariance("x", corrected=False), fit.covariance("x", corrected="linear_response")
    assert list(found.index) == list(found.columns) == ["x[0]", "x[1]"] and isinstance(found, pd.DataFrame)
    factor = np.sqrt(np.diag(plain)) / np.sqrt(np.diag(RIGHT))
    # A standard deviation of 1,000 draws is known to 1 / sqrt(2,000).
    np.testing.assert_allclose(factor, (1 - RHO**2) ** 0.5, rtol=5 / 2000**0.5)
    np.testing.assert_allclose(found, RIGHT, rtol=1e-3)
    assert found.attrs["how"] == "linear response of the mean-field optimum"


def test_deterministic_sites_and_labels_are_there(fit):
    found = fit.covariance(corrected="linear_response")
    assert list(found.index) == ["x[0]", "x[1]", "sum", "double[0]", "double[1]"]
    assert found.loc["sum", "sum"] == pytest.approx(RIGHT.sum(), rel=1e-3)
    assert found.loc["sum", "double[1]"] == pytest.approx(2 * RIGHT[1].sum(), rel=1e-3)
    np.testing.assert_allclose(found, found.T, rtol=1e-12)


def test_which_it_is_follows_the_weights(fit):
    assert fit.chosen is fit.wider  # the tail of q's own has the shape rho, as far as enough of them tell
    assert "wider than q" in fit.covariance().attrs["how"]
    np.testing.assert_allclose(fit.covariance("x"), RIGHT, rtol=0.3)
    narrow = replace(fit)
    narrow.__dict__["wider"] = None  # as in many dimensions, where they help as little
    assert not narrow.resampled
    assert narrow.covariance().attrs["how"] == "linear response of the mean-field optimum"
    assert narrow.covariance(corrected=True).attrs["how"] == "draws resampled by importance, as asked for"
    assert narrow.covariance(corrected=False).attrs["how"].startswith("drawn from q: a k-hat of ")
    wide = at(fit, [1.0, -2.0], 1.3 * np.sqrt(np.diag(RIGHT)))
    assert wide.resampled and "resampled by importance" in wide.covariance().attrs["how"]
    np.testing.assert_allclose(wide.covariance("x"), RIGHT, rtol=0.3)  # 1,000 draws, 5 standard errors
    with_names = wide.covariance(["s*", "x"])
    assert set(with_names.index) == {"x[0]", "x[1]", "sum"}


def test_a_positive_site_is_on_its_own_scale():
    """log z is normal, so that linear response is exact there and the variance that of a log normal."""

    def model():
        z = numpyro.sample("z", dist.LogNormal(jnp.zeros(()), 0.3))
        numpyro.sample("w", dist.Normal(2.0 * jnp.log(z), 0.5))

    made = autovi.fit(model, guide="mean_field", num_steps=2000, num_draws=20_000, init="prior", progress_bar=False)
    found = made.covariance(corrected="linear_response")
    variance = np.expm1(0.09) * np.exp(0.09)
    assert found.loc["z", "z"] == pytest.approx(variance, rel=0.06)  # of 20,000 draws of a skewed variable
    assert found.loc["w", "w"] == pytest.approx(4 * 0.09 + 0.25, rel=5e-3)


def test_what_is_not_possible_is_said(fit):
    with pytest.raises(ValueError, match=r"^corrected: expected one of .*'linear_response', True, False\], got 'x'"):
        fit.covariance(corrected="x")
    with pytest.raises(ValueError, match=r"^names: expected sites or globs of \['x', 'sum', 'double'\], got \['y'\]"):
        fit.covariance(["y"])
    joint = autovi.fit(correlated, guide="full_rank", num_steps=20, init="prior", progress_bar=False)
    with pytest.raises(ValueError, match="block 'x' is not mean field; corrected=True weighs draws"):
        joint.covariance(corrected="linear_response")
    assert "linear response" not in joint.covariance().attrs["how"]

    def discrete():
        numpyro.sample("k", dist.Bernoulli(0.3))
        numpyro.sample("a", dist.Normal())

    other = autovi.fit(discrete, guide="mean_field", num_steps=20, init="prior", progress_bar=False)
    with pytest.raises(ValueError, match="site 'k' is not in the guide"):
        other.covariance(corrected="linear_response")
    assert other.covariance().loc["k", "k"] == pytest.approx(0.21, abs=5 * 0.02)


def test_a_point_that_is_no_optimum_has_no_linear_response(fit):
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 10.0))
        numpyro.factor("wells", -jnp.square(jnp.square(x) - 4.0))

    made = autovi.fit(model, guide="mean_field", num_steps=5, init="prior", progress_bar=False)
    between = at(made, 0.0, 0.1)
    with pytest.raises(ValueError, match="not concave where the fit ended"):
        between.covariance(corrected="linear_response")
    assert "linear response" not in between.covariance().attrs["how"]
