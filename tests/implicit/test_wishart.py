"""Wishart and inverse Wishart draws: law, gradient per draw and in expectation, second derivatives, edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import Z, assert_mean, jit
from scipy import special, stats

from autovi.implicit import reparameterize, sample
from autovi.implicit.numerics.matrices import inverse_lower

SCALE_TRIL = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.4, 0.7]])
SCALE = SCALE_TRIL @ SCALE_TRIL.T
SIZE = 3
CHOLESKY = (dist.WishartCholesky, dist.InverseWishartCholesky)
P_VALUE = 1e-8


def degrees_of(cls: type, concentration: float) -> np.ndarray:
    """Of the chi-squares on Bartlett's diagonal."""
    i = np.arange(SIZE)
    return concentration - (i if cls is dist.WishartCholesky else SIZE - 1 - i)


def bartlett(cls: type, value: np.ndarray) -> np.ndarray:
    """A of L = S A, or of L = S A^-1; columns are scaled before inversion, since the first may be huge."""
    if cls is dist.WishartCholesky:
        return np.linalg.solve(np.broadcast_to(SCALE_TRIL, value.shape), value)
    pivot = np.diagonal(value, 0, -2, -1)
    return np.linalg.inv(value / pivot[..., None, :]) @ SCALE_TRIL / pivot[..., None]


def chi2_slope(x: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """dx/d degrees = -(dF/d degrees) / density of a chi-square, by fourth-order differences of SciPy's F."""
    h = 1e-3 * np.minimum(degrees, np.sqrt(degrees))
    cdf = lambda k: special.gammainc((degrees + k * h) / 2, x / 2)  # noqa: E731
    difference = (8 * (cdf(1) - cdf(-1)) - (cdf(2) - cdf(-2))) / (12 * h)
    return -difference / stats.chi2.pdf(x, degrees)


def exact_tangent(cls: type, value: np.ndarray, concentration: float, scale_speed: np.ndarray) -> np.ndarray:
    """dL as the degrees of freedom move by 1 and the scale by `scale_speed`, A's normals fixed."""
    solved = np.linalg.solve(np.broadcast_to(SCALE_TRIL, value.shape), value)  # A or its inverse
    is_inverse = cls is dist.InverseWishartCholesky
    diagonal = np.diagonal(solved, 0, -2, -1) ** (-1 if is_inverse else 1)
    moved = chi2_slope(diagonal**2, degrees_of(cls, concentration)) / (2 * diagonal)
    da = moved[..., None] * np.eye(SIZE)
    if is_inverse:
        return scale_speed @ solved - SCALE_TRIL @ (solved @ da @ solved)
    return scale_speed @ solved + SCALE_TRIL @ da


@pytest.mark.parametrize("size", [1, 2, 7])
def test_triangular_inverse(size: int) -> None:
    """The inverse and its derivative are NumPy's, for a batch."""
    rng = np.random.default_rng(size)
    lower, speed = np.tril(rng.normal(size=(2, 5, size, size))) + 2 * np.eye(size)
    with jax.enable_x64(True):
        inverse, moved = jit(lambda x, v: jax.jvp(inverse_lower, (x,), (v,)))(lower, speed)
    exact = np.linalg.inv(lower)
    np.testing.assert_allclose(inverse, exact, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(moved, -exact @ speed @ exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", CHOLESKY)
def test_law(cls: type) -> None:
    """A has chi-squares on its diagonal and normals below, uncorrelated, for few and many degrees of freedom."""
    n, concentration = 20000, np.array([2.3, 5.5, 60.0])
    with jax.enable_x64(True):
        fn = cls(concentration, scale_tril=jnp.asarray(SCALE_TRIL))
        draws = np.asarray(jit(lambda key: sample(key, fn, (n,)))(jax.random.key(0)))
    assert draws.shape == (n, 3, SIZE, SIZE)
    assert np.all(np.triu(draws, 1) == 0)
    rows, columns = np.tril_indices(SIZE, -1)
    for k, df in enumerate(concentration):
        a = bartlett(cls, draws[:, k])
        entries = a[:, rows, columns]
        for i, degrees in enumerate(degrees_of(cls, df)):
            assert stats.kstest(a[:, i, i] ** 2, stats.chi2(degrees).cdf).pvalue > P_VALUE
            uniform = stats.chi2.cdf(a[:, i, i] ** 2, degrees)
            entries = np.concatenate([entries, stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12))[:, None]], 1)
        for column in entries.T:
            assert stats.kstest(column, stats.norm.cdf).pvalue > P_VALUE
        correlations = np.corrcoef(entries.T)[np.tril_indices(2 * SIZE, -1)]
        assert np.max(np.abs(correlations)) * np.sqrt(n) < Z


@pytest.mark.parametrize("cls, oracle", [(dist.Wishart, stats.wishart), (dist.InverseWishart, stats.invwishart)])
def test_moments(cls: type, oracle: Any) -> None:
    """Mean and variance of the matrices are SciPy's; NumPyro's samples have the same law."""
    n, concentration = 40000, 14.0
    with jax.enable_x64(True):
        fn = cls(concentration, jnp.asarray(SCALE))
        draws = np.asarray(jit(lambda key: sample(key, fn, (n,)))(jax.random.key(1)))
        library = np.asarray(jit(lambda key: fn.sample(key, (n,)))(jax.random.key(2)))
    law = oracle(concentration, SCALE)
    assert_mean(draws, law.mean())
    assert_mean((draws - law.mean()) ** 2, law.var())
    for i, j in np.ndindex(SIZE, SIZE):
        assert stats.ks_2samp(draws[:, i, j], library[:, i, j]).pvalue > P_VALUE


@pytest.mark.parametrize("cls", CHOLESKY)
@pytest.mark.parametrize("x64, median, worst", [(True, 1e-10, 1e-8), (False, 1e-5, 1e-4)])
def test_gradient_per_draw(cls: type, x64: bool, median: float, worst: float) -> None:
    """A draw, and a value given, move as SciPy's chi-square distribution function says.

    An inverse too large for the number type is capped, but moves as if it were not.
    """
    concentrations = np.array([2.1, 2.5, 4.5, 30.0, 1000.0])
    scales = np.broadcast_to(SCALE_TRIL, (5, SIZE, SIZE))
    # The scale moves no faster than the degrees of freedom move the draws, and so hides none of their error.
    speeds = (0.3 * SCALE_TRIL + np.tril(np.full((SIZE, SIZE), 0.1))) / concentrations[:, None, None]

    def tangents(df: Any, scale: Any, df_speed: Any, scale_speed: Any) -> Any:
        draw = lambda df, s: sample(jax.random.key(3), cls(df, scale_tril=s), (200,))  # noqa: E731
        value, drawn = jax.jvp(draw, (df, scale), (df_speed, scale_speed))
        given = lambda df, s: reparameterize(cls(df, scale_tril=s), value)  # noqa: E731
        return value, drawn, jax.jvp(given, (df, scale), (df_speed, scale_speed))[1]

    with jax.enable_x64(x64):
        dtype = jnp.result_type(float)
        arguments = [jnp.asarray(x, dtype) for x in (concentrations, scales, np.ones(5), speeds)]
        value, drawn, given = (np.asarray(x, np.float64) for x in jit(tangents)(*arguments))
    for k, df in enumerate(np.asarray(arguments[0], np.float64)):
        exact = exact_tangent(cls, value[:, k], df, speeds[k])
        size = np.linalg.norm(exact, axis=(1, 2))
        free = value[:, k, 0, 0] < (1e100 if x64 else 1e10)
        assert np.mean(free) > 0.8
        for tangent, kept in ((drawn, free), (given, free | True)):
            error = (np.linalg.norm(tangent[:, k] - exact, axis=(1, 2)) / size)[kept]
            assert np.median(error) < median and np.max(error) < worst, (df, np.median(error), np.max(error))


def test_one_by_one_is_a_gamma() -> None:
    """W of size 1 moves as Gamma(df / 2, 1 / (2 V)) does, its inverse as the inverse gamma."""
    x = np.array([0.03, 0.4, 2.0, 9.0])
    df, scale = 3.4, 1.7
    exact = scale * chi2_slope(x / scale, np.full(4, df))
    with jax.enable_x64(True):
        for cls, value, expected in (
            (dist.Wishart, x, exact),
            (dist.InverseWishart, 1 / x, -exact / x**2),
        ):
            matrix = jnp.asarray(value)[:, None, None]
            start = (df, scale if cls is dist.Wishart else 1 / scale)
            along = lambda nu, v: reparameterize(cls(nu, v * jnp.eye(1)), matrix)  # noqa: B023, E731
            in_df, in_scale = jit(jax.jacfwd(along, (0, 1)))(*start)
            np.testing.assert_allclose(in_df[:, 0, 0], expected, rtol=1e-8)
            np.testing.assert_allclose(in_scale[:, 0, 0], value / start[1], rtol=1e-12)


def test_expected_gradients() -> None:
    """E log det W = sum digamma((df - i)/2) + p log 2 + log det V; E W = df V; E X = Psi / (df - p - 1)."""
    n, df = 20000, 9.5

    def wishart(df: Any, scale: Any, key: Any) -> Any:
        drawn = sample(key, dist.Wishart(df, scale))
        return jnp.linalg.slogdet(drawn)[1], drawn

    def inverse(df: Any, scale: Any, key: Any) -> Any:
        return sample(key, dist.InverseWishart(df, rate_matrix=jnp.linalg.inv(scale)))

    keys = jax.random.split(jax.random.key(4), n)
    with jax.enable_x64(True):
        scale = jnp.asarray(SCALE)
        each = lambda f: jit(jax.vmap(jax.jacrev(f, (0, 1)), (None, None, 0)))(df, scale, keys)  # noqa: E731
        (log_det_df, log_det_scale), (mean_df, mean_scale) = each(wishart)
        inverse_df, inverse_scale = each(inverse)
    halves = (df - np.arange(SIZE)) / 2
    assert_mean(log_det_df, np.sum(special.polygamma(1, halves)) / 2)
    np.testing.assert_allclose(log_det_scale, np.broadcast_to(np.linalg.inv(SCALE), (n, SIZE, SIZE)), rtol=1e-8)
    # The Cholesky factor is that of the symmetrized matrix.
    eye = np.eye(SIZE)
    symmetric = (np.einsum("ik,jl->ijkl", eye, eye) + np.einsum("il,jk->ijkl", eye, eye)) / 2
    assert_mean(mean_df, SCALE)
    assert_mean(mean_scale, df * symmetric)
    assert_mean(inverse_df, -SCALE / (df - SIZE - 1) ** 2)
    assert_mean(inverse_scale, symmetric / (df - SIZE - 1))


@pytest.mark.parametrize("cls, sign", [(dist.WishartCholesky, 1), (dist.InverseWishartCholesky, -1)])
def test_second_derivatives(cls: type, sign: int) -> None:
    """Of E log det and E tr in df and the scale; those of draws are those of values given."""
    n, df, rate = 20000, 8.5, 0.4  # the scale exp(t) grows at this rate as df moves by 1

    def law(t: Any) -> Any:
        return cls(df + t, scale_tril=jnp.exp(rate * t) * SCALE_TRIL)

    def derivatives(entries: Any) -> Any:
        along = lambda t: jax.jvp(entries, (t,), (1.0,))  # noqa: E731
        (value, first), (_, second) = jit(lambda t: jax.jvp(along, (t,), (1.0,)))(0.0)
        return np.asarray(value), np.asarray(first), np.asarray(second)

    with jax.enable_x64(True):
        value, first, second = derivatives(lambda t: sample(jax.random.key(5), law(t), (n,)))
        for drawn, given in zip((first, second), derivatives(lambda t: reparameterize(law(t), value))[1:], strict=True):
            np.testing.assert_allclose(drawn, given, rtol=1e-6, atol=1e-9)
    log_slope, log_second = (np.diagonal(x / np.where(value, value, 1), 0, -2, -1) for x in (first, second))
    trigamma_slope = special.polygamma(2, (df - np.arange(SIZE)) / 2)
    assert_mean(2 * np.sum(log_second - log_slope**2, -1), sign * np.sum(trigamma_slope) / 4)
    # E tr = g(df) exp(2 t rate) tr V with g = df or 1 / k.
    k = df - SIZE - 1
    g, slope, bend = (df, 1.0, 0.0) if sign > 0 else (1 / k, -1 / k**2, 2 / k**3)
    exact = (bend + 4 * rate * slope + 4 * rate**2 * g) * np.trace(SCALE)
    assert_mean(2 * np.sum(first**2 + value * second, (-2, -1)), exact)


@pytest.mark.parametrize("cls", CHOLESKY)
@pytest.mark.parametrize("size", [1, 3])
def test_float32_edges_are_finite(cls: type, size: int) -> None:
    """From 1e-3 above the smallest degrees of freedom to 1e4: draws, matrices and reverse-mode gradients."""
    n, concentration = 1000, size - 1 + jnp.array([1e-3, 1e-2, 0.1, 1.0, 1e2, 1e4])
    scale = jnp.tril(jnp.full((size, size), 0.3)) + jnp.eye(size)

    def loss(df: Any, scale: Any) -> Any:
        drawn = sample(jax.random.key(6), cls(df, scale_tril=scale), (n,))
        matrix = drawn @ drawn.mT
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(drawn, 0, -2, -1)))
        return log_det / n + jnp.sum(matrix / n), (drawn, matrix)

    (df_gradient, scale_gradient), (drawn, matrix) = jit(jax.grad(loss, (0, 1), has_aux=True))(concentration, scale)
    for x in (df_gradient, scale_gradient, drawn, matrix):
        assert x.dtype == jnp.float32 and np.all(np.isfinite(x))
    assert np.all(np.diagonal(matrix, 0, -2, -1) > 0) and np.all(df_gradient != 0)


def test_float32_log_det_near_the_least_degrees() -> None:
    """The gradient of E log det W stays right where the last pivot underflows."""
    df = jnp.float32(SIZE - 1 + 1e-3)
    tril = jnp.asarray(SCALE_TRIL, jnp.float32)

    def log_det(df: Any, key: Any) -> Any:
        drawn = sample(key, dist.WishartCholesky(df, scale_tril=tril))
        return 2 * jnp.sum(jnp.log(jnp.diagonal(drawn)))

    draws = jit(jax.vmap(jax.grad(log_det), (None, 0)))(df, jax.random.split(jax.random.key(7), 20000))
    assert_mean(draws, np.sum(special.polygamma(1, (np.float64(df) - np.arange(SIZE)) / 2)) / 2)


@pytest.mark.parametrize("cls", CHOLESKY)
def test_batches_integers_and_transformations(cls: type) -> None:
    """Batches of either parameter broadcast, are independent, and vmap and jit change nothing."""
    scales = jnp.stack([(k + 1.0) * jnp.asarray(SCALE_TRIL, jnp.float32) for k in range(4)])
    fn = cls(jnp.array([[5.0], [8.0]]), scale_tril=scales).expand((3, 2, 4))
    drawn = jit(lambda key: sample(key, fn, (6,)))(jax.random.key(8))
    assert drawn.shape == (6, 3, 2, 4, SIZE, SIZE)
    assert len(np.unique(np.asarray(drawn)[..., 0, 0])) == 6 * 3 * 2 * 4
    gradient = jit(jax.grad(lambda s: jnp.sum(reparameterize(cls(7, scale_tril=s), drawn))))(scales)
    # L is proportional to S.
    np.testing.assert_allclose(np.sum(gradient * scales), np.sum(np.asarray(drawn)), rtol=1e-4)
    keys = jax.random.split(jax.random.key(9), 3)
    one = lambda key: sample(key, cls(5, scale_tril=scales[0]))  # noqa: E731
    alone = jit(one)
    np.testing.assert_allclose(jit(jax.vmap(one))(keys), [alone(k) for k in keys], rtol=1e-4, atol=1e-5)
