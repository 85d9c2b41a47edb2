"""A normal distribution as a map of noise."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from autovi.ladder import normal as module
from autovi.ladder.normal import Normal, behind, standard

LOC = np.array([1.0, -2.0, 0.5])
TRIANGLE = np.array([[2.0, 0.0, 0.0], [-1.0, 0.5, 0.0], [0.3, 4.0, 3.0]])
SCALES = [TRIANGLE, np.array([0.1, 2.0, 30.0])]


def test_examples_in_the_docstrings():
    tried = doctest.testmod(module)
    assert (tried.failed, tried.attempted) == (0, 4)


@pytest.mark.parametrize("scale", SCALES, ids=["triangle", "diagonal"])
def test_log_density_at_noise_is_that_of_the_draw(scale):
    normal = Normal(jnp.asarray(LOC), jnp.asarray(scale))
    noise = np.random.default_rng(0).normal(size=(4, 2, 3))
    full = np.diag(scale) if scale.ndim == 1 else scale
    np.testing.assert_allclose(normal.at(noise), LOC + noise @ full.T, rtol=1e-5)
    expected = stats.multivariate_normal(LOC, full @ full.T).logpdf(LOC + noise @ full.T)
    np.testing.assert_allclose(normal.log_density_at_noise(noise), expected, rtol=1e-5)
    np.testing.assert_allclose(normal.covariance, full @ full.T, rtol=1e-5)


@pytest.mark.parametrize("inner", SCALES, ids=["triangle", "diagonal"])
@pytest.mark.parametrize("outer", SCALES, ids=["triangle", "diagonal"])
def test_one_map_after_another(outer, inner):
    first, second = (
        Normal(jnp.asarray(LOC), jnp.asarray(inner)),
        Normal(jnp.asarray(LOC[::-1].copy()), jnp.asarray(outer)),
    )
    noise = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(second.after(first).at(noise), second.at(first.at(noise)), rtol=1e-5, atol=1e-5)


def test_behind_the_map_of_its_own_a_density_is_standard_normal_but_for_a_constant():
    normal = Normal(jnp.asarray(LOC), jnp.asarray(TRIANGLE))
    covariance = TRIANGLE @ TRIANGLE.T
    whitened = behind(lambda u: -0.5 * (u - LOC) @ jnp.linalg.solve(covariance, u - LOC), normal)
    noise = np.random.default_rng(2).normal(size=(5, 3))
    np.testing.assert_allclose(jax.vmap(whitened)(noise), -0.5 * (noise**2).sum(-1), rtol=1e-4)


def test_the_standard_normal():
    normal = standard(3, jnp.float32)
    assert normal.at(LOC).tolist() == LOC.tolist()
    assert (normal.log_det, normal.scale.dtype) == (0, jnp.float32)
