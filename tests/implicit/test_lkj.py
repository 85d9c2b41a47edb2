"""LKJ draws by both methods: law, gradient per draw and in expectation, second derivatives, edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import assert_mean, jit
from scipy import special, stats

from autovi.implicit import reparameterize, sample

METHODS = ("onion", "cvine")
P_VALUE = 1e-8


def pivots(concentration: Any, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """The squared diagonal entries are independent Beta(b_i, i / 2), b_i = concentration + (d - 1 - i) / 2."""
    i = np.arange(1, dimension)
    return concentration + (dimension - 1 - i) / 2, i / 2


def log_det_mean(concentration: Any, dimension: int, order: int = 0) -> float:
    """E log det R, or a derivative of it in the concentration: E log Beta(b, a) = digamma(b) - digamma(a + b)."""
    b, a = pivots(concentration, dimension)
    function = special.digamma if order == 0 else lambda x: special.polygamma(order, x)
    return np.sum(function(b) - function(a + b))


def beta_slopes(x: np.ndarray, a: np.ndarray, b: np.ndarray, da: float, db: float) -> np.ndarray:
    """dx of a Beta(a, b) draw, -dF / density, by fourth-order differences of SciPy's distribution function."""
    h = 1e-3 * np.minimum(a if da else b, b if db else a)
    cdf = lambda k: special.betainc(a + k * h * da, b + k * h * db, x)  # noqa: E731
    difference = (8 * (cdf(1) - cdf(-1)) - (cdf(2) - cdf(-2))) / (12 * h)
    return -difference / stats.beta.pdf(x, a, b)


def exact_onion(value: np.ndarray, concentration: float) -> np.ndarray:
    """dL for concentration moving by 1: the squared diagonal is Beta(b, a), the directions of the rows stay."""
    dimension = value.shape[-1]
    b, a = pivots(concentration, dimension)
    diagonal = np.diagonal(value, 0, -2, -1)[..., 1:]
    rest = np.sum(np.tril(value, -1) ** 2, -1)[..., 1:]
    # Either is exact where it is small: float32 rows have unit length but for rounding.
    moved = beta_slopes(np.where(rest < 0.5, 1 - rest, diagonal**2), b, a, 1, 0)
    tangent = np.tril(value, -1)
    tangent[..., 1:, :] *= (-moved / (2 * rest))[..., None]
    i = np.arange(1, dimension)
    tangent[..., i, i] = moved / (2 * diagonal)
    return tangent


def exact_vine(value: np.ndarray, concentration: float) -> np.ndarray:
    """dL for concentration moving by 1: each partial correlation is 2 Beta(b, b) - 1, row by row."""
    dimension = value.shape[-1]
    tangent = np.zeros_like(value)
    for i in range(1, dimension):
        left = np.sqrt(np.cumsum(value[:, i, i::-1] ** 2, -1)[:, ::-1])  # of column j and all after it
        left_moved = np.zeros(len(value))
        for j in range(i):
            b = np.full(len(value), concentration + (dimension - 2 - j) / 2)
            partial, root = value[:, i, j] / left[:, j], left[:, j + 1] / left[:, j]
            # The distance from the nearer end of (-1, 1), halved, is a Beta(b, b) draw below 1/2.
            moved = -2 * np.sign(partial) * beta_slopes(root**2 / (1 + np.abs(partial)) / 2, b, b, 1, 1)
            tangent[:, i, j] = moved * left[:, j] + partial * left_moved
            left_moved = left_moved * root - left[:, j] * partial * moved / root
        tangent[:, i, i] = left_moved
    return tangent


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dimension", [2, 3, 5])
def test_law(method: str, dimension: int) -> None:
    """Off-diagonal entries are 2 Beta(m, m) - 1, m = c - 1 + d/2; pivots are betas; the third moment holds too."""
    n, concentration = 20000, np.array([0.4, 1.0, 6.0])
    fn = dist.LKJ(dimension, jnp.asarray(concentration, jnp.float32), method)

    @jit
    def draws(key: Any) -> Any:
        return sample(key, fn, (n,)), sample(key, fn.base_dist, (n,))

    matrices, factors = (np.asarray(x, np.float64) for x in draws(jax.random.key(0)))
    assert matrices.shape == factors.shape == (n, 3, dimension, dimension)
    assert np.all(np.triu(factors, 1) == 0)
    np.testing.assert_allclose(matrices, factors @ np.swapaxes(factors, -1, -2), atol=1e-6)
    np.testing.assert_allclose(np.diagonal(matrices, 0, -2, -1), 1, atol=2e-6)
    for k, c in enumerate(concentration):
        m = c - 1 + dimension / 2
        for i, j in zip(*np.tril_indices(dimension, -1), strict=True):
            assert stats.kstest((1 + matrices[:, k, i, j]) / 2, stats.beta(m, m).cdf).pvalue > P_VALUE
        for i, (b, a) in enumerate(zip(*pivots(c, dimension), strict=True), start=1):
            assert stats.kstest(factors[:, k, i, i] ** 2, stats.beta(b, a).cdf).pvalue > P_VALUE
        log_det = 2 * np.sum(np.log(np.diagonal(factors[:, k], 0, -2, -1)), -1)
        assert_mean(log_det, log_det_mean(c, dimension))
        assert_mean((log_det - log_det_mean(c, dimension)) ** 2, log_det_mean(c, dimension, 1))
        if dimension > 2:
            # R_23 = R_12 R_13 + a symmetric term; R_12 and R_13 are uncorrelated in their squares.
            product = matrices[:, k, 0, 1] * matrices[:, k, 0, 2] * matrices[:, k, 1, 2]
            assert_mean(product, (2 * c + dimension - 1) ** -2)


@pytest.mark.parametrize("method, oracle", [("onion", exact_onion), ("cvine", exact_vine)])
@pytest.mark.parametrize("x64, median, worst", [(True, 1e-11, 1e-8), (False, 1e-6, 1e-5)])
def test_gradient_per_draw(method: str, oracle: Any, x64: bool, median: float, worst: float) -> None:
    """A draw, and a value given, move as SciPy's beta distribution function says."""
    dimension, concentrations = 4, [0.3, 1.0, 7.5, 80.0, 1000.0]

    def tangents(c: Any, speed: Any) -> Any:
        draw = lambda c: sample(jax.random.key(1), dist.LKJCholesky(dimension, c, method), (200,))  # noqa: E731
        value, drawn = jax.jvp(draw, (c,), (speed,))
        given = lambda c: reparameterize(dist.LKJCholesky(dimension, c, method), value)  # noqa: E731
        return value, drawn, jax.jvp(given, (c,), (speed,))[1]

    with jax.enable_x64(x64):
        c = jnp.asarray(concentrations, jnp.result_type(float))
        value, drawn, given = (np.asarray(x, np.float64) for x in jit(tangents)(c, jnp.ones_like(c)))
    for k, concentration in enumerate(np.asarray(c, np.float64)):
        exact = oracle(value[:, k], concentration)
        for tangent in (drawn, given):
            error = np.linalg.norm(tangent[:, k] - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
            assert np.median(error) < median and np.max(error) < worst, (k, np.median(error), np.max(error))


@pytest.mark.parametrize("method", METHODS)
def test_expected_derivatives(method: str) -> None:
    """First and second derivatives of E log det R and of E R_ij^2 = 1 / (2 c + d - 1); draws and values given agree."""
    n, dimension, concentration = 10000, 3, 1.3
    law = lambda c: dist.LKJ(dimension, c, method)  # noqa: E731

    def derivatives(entries: Any) -> Any:
        along = lambda c: jax.jvp(entries, (c,), (1.0,))  # noqa: E731
        (value, first), (_, second) = jit(lambda c: jax.jvp(along, (c,), (1.0,)))(concentration)
        return np.asarray(value), np.asarray(first), np.asarray(second)

    with jax.enable_x64(True):
        value, first, second = derivatives(lambda c: sample(jax.random.key(2), law(c), (n,)))
        for drawn, given in zip((first, second), derivatives(lambda c: reparameterize(law(c), value))[1:], strict=True):
            np.testing.assert_allclose(drawn, given, rtol=1e-5, atol=1e-7)
    # d log det = tr(R^-1 dR), d^2 log det = tr(R^-1 d^2 R) - tr((R^-1 dR)^2)
    change, bend = np.linalg.solve(value, first), np.linalg.solve(value, second)
    trace = lambda x: np.trace(x, axis1=-2, axis2=-1)  # noqa: E731
    assert_mean(trace(change), log_det_mean(concentration, dimension, 1))
    assert_mean(trace(bend - change @ change), log_det_mean(concentration, dimension, 2))
    below = np.tril_indices(dimension, -1)
    total = 2 * concentration + dimension - 1
    assert_mean((2 * value * first)[:, *below], -2 / total**2)
    assert_mean(2 * (first**2 + value * second)[:, *below], 8 / total**3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dimension", [2, 3, 10])
def test_float32_edges(method: str, dimension: int) -> None:
    """For concentrations from 1e-3 to 1e4 all is finite, by draws and by values, and d E log det is right by draws."""
    n = 2000
    concentration = jnp.array([1e-3, 1e-2, 0.1, 1.0, 1e2, 1e3, 1e4])

    def each(c: Any) -> Any:
        drawn = sample(jax.random.key(3), dist.LKJCholesky(dimension, c, method), (n,))
        return 2 * jnp.sum(jnp.log(jnp.diagonal(drawn, 0, -2, -1)), -1), drawn

    @jit
    def gradients(c: Any) -> Any:
        (_, value), (log_det, tangent) = jax.jvp(each, (c,), (jnp.ones_like(c),))
        total = lambda c: jnp.sum(reparameterize(dist.LKJCholesky(dimension, c, method), value) ** 3)  # noqa: E731
        drawn = lambda c: jnp.sum(each(c)[1] ** 3)  # noqa: E731
        return value, log_det, tangent, jax.grad(drawn)(c), jax.grad(total)(c)

    value, log_det, *others = gradients(concentration)
    assert value.dtype == jnp.float32 and np.all(np.diagonal(value, 0, -2, -1) > 0)
    np.testing.assert_allclose(np.sum(np.square(value), -1), 1, atol=2e-6)
    for x in (value, log_det, *others):
        assert np.all(np.isfinite(x))
    for k, c in enumerate(np.asarray(concentration, np.float64)):
        assert_mean(log_det[:, k], log_det_mean(c, dimension, 1))


@pytest.mark.parametrize("method", METHODS)
def test_batches_integers_and_transformations(method: str) -> None:
    """Batches broadcast and are independent, integer concentrations stand still, vmap and jit change nothing."""
    fn = dist.LKJ(3, jnp.array([[2.0], [5.0]]), method).expand((3, 2, 4))
    drawn = jit(lambda key: sample(key, fn, (6,)))(jax.random.key(4))
    assert drawn.shape == (6, 3, 2, 4, 3, 3)
    assert len(np.unique(np.asarray(drawn)[..., 1, 0])) == 6 * 3 * 2 * 4
    keys = jax.random.split(jax.random.key(5), 3)
    one = jax.jit(lambda key: sample(key, dist.LKJCholesky(3, 2, method)))
    alone = np.stack([one(key) for key in keys])
    np.testing.assert_allclose(jit(jax.vmap(one))(keys), alone, rtol=1e-4, atol=1e-5)
    scaled = jit(jax.grad(lambda t: jnp.sum(t * reparameterize(dist.LKJCholesky(3, 2, method), alone))))(1.0)
    np.testing.assert_allclose(scaled, np.sum(alone), rtol=1e-5)
