"""ELBO and gradient noise of known inputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from autovi.result.diagnostics import elbo_of, gradient_summary


def test_elbo_is_mean_and_standard_error():
    elbo = elbo_of(np.array([1.0, 2.0, 4.0, 5.0]))
    assert elbo.value == pytest.approx(3.0)
    assert elbo.se == pytest.approx(np.sqrt(10 / 3) / 2)
    assert type(elbo.value) is float and type(elbo.se) is float


def test_elbo_is_summed_in_double_precision():
    """A hundred nats above -1e7, which single precision knows to a whole nat only."""
    weights = np.full(100_000, -1e7, np.float32)
    assert elbo_of(weights).value == -1e7 and elbo_of(weights).se == 0.0
    assert elbo_of(jnp.full(1000, 0.1)).value == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("weights", "value"),
    [
        ([1.5], 1.5),
        ([1.0, -np.inf], -np.inf),
        ([1.0, np.nan], np.nan),
        ([np.inf, -np.inf], np.nan),
    ],
)
def test_elbo_without_an_error(weights, value):
    elbo = elbo_of(np.array(weights))
    np.testing.assert_equal(elbo.value, value)
    assert np.isnan(elbo.se)


def test_gradient_summary_of_known_gradients():
    rng = np.random.default_rng(0)
    count = 200_000
    loc = np.array([3.0, 4.0]) + rng.normal(size=(count, 2))
    scale = rng.normal(scale=2.0, size=(count, 2, 3))
    found = gradient_summary({"a": {"loc": jnp.asarray(loc), "scale": scale}, "b": scale[:, 0]})
    assert found["a"].variance == pytest.approx(2 * 1 + 6 * 4, rel=0.01)
    assert found["a"].signal_to_noise == pytest.approx(5 / 26**0.5, rel=0.01)
    assert found["b"].variance == pytest.approx(12, rel=0.01)
    assert found["b"].signal_to_noise < 0.01


def test_noise_is_no_signal():
    """The squared mean of few estimates is freed of its bias: a gradient of mean zero has a ratio near zero."""
    rng = np.random.default_rng(1)
    ratios = [gradient_summary({"a": rng.normal(size=(64, 50))})["a"].signal_to_noise for _ in range(50)]
    assert np.mean(ratios) < 0.06  # uncorrected it would be 1/8


def test_a_gradient_without_noise():
    assert gradient_summary({"a": {"x": np.ones((10, 3))}})["a"] == (0.0, np.inf)


def test_estimates_that_are_not_finite_are_left_out():
    rows = np.array([[1.0], [np.nan], [3.0], [np.inf]])
    found = gradient_summary({"a": rows, "b": rows[1:3], "c": {}, "d": ()})
    assert found["a"].variance == pytest.approx(2.0)
    assert np.isnan(found["b"]).all()
    assert set(found) == {"a", "b"}  # what has no parameters has no gradient
