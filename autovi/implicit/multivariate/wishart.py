"""Cholesky factors of Wishart and inverse Wishart matrices by Bartlett's decomposition, with implicit gradients.

A is lower triangular with independent entries: standard normals below the diagonal, on it square roots of chi-squares,
through which alone the degrees of freedom act. The scale is explicit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.numerics.matrices import events_first, events_last, inverse_lower, lower_triangle, matmul, spread
from autovi.implicit.numerics.sampling import clip_straight_through
from autovi.implicit.univariate.gamma import log_gamma_slope, log_ratio


def draw_wishart_cholesky(rng_key: Array, fn: dist.WishartCholesky, shape: tuple[int, ...]) -> Array:
    """Draws L = S A of a `WishartCholesky`, S = scale_tril, A_ii^2 ~ chi2(concentration - i), i from 0.

    Returns `shape + (p, p)`. Where the last pivot is too small, its square is the smallest positive number, and its
    gradient that of its logarithm.

    Source: Bartlett (1933), "On the theory of statistical regression"; Anderson (2003), "An Introduction to
    Multivariate Statistical Analysis", 7.2.
    """
    scale, degrees = _scale(fn), _wishart_degrees(fn)
    tiny = 2 * jnp.finfo(scale.dtype).tiny
    ratio, normal = _bartlett(rng_key, degrees, tiny / _diagonal(scale) ** 2, shape)
    diagonal = jnp.sqrt(spread(degrees, shape)) * jnp.exp(0.5 * ratio)
    return matmul(scale, _lower(diagonal, normal))


def wishart_cholesky_velocity(fn: dist.WishartCholesky, value: Array, moving: dist.WishartCholesky) -> Array:
    """dL = dS A + S diag(dA_ii), A = S^-1 L."""
    scale, degrees = _scale(fn), _wishart_degrees(fn)
    diagonal = _diagonal(value) / _diagonal(scale)
    grown = diagonal * _log_diagonal_velocity(diagonal, degrees, moving.concentration)
    return matmul(moving.scale_tril, matmul(inverse_lower(scale), value)) + scale * grown[..., None, :]


def draw_inverse_wishart_cholesky(rng_key: Array, fn: dist.InverseWishartCholesky, shape: tuple[int, ...]) -> Array:
    """Draws L = S A^-1 of an `InverseWishartCholesky`, S = scale_tril, A_ii^2 ~ chi2(concentration - p + 1 + i).

    Returns `shape + (p, p)`. With few degrees of freedom A_00 may be so small that L L^T or its gradient would
    overflow: it stays above that, and its gradient is that of its logarithm.
    """
    scale, degrees = _scale(fn), _inverse_wishart_degrees(fn)
    size, info = scale.shape[-1], jnp.finfo(scale.dtype)
    # Room below the largest number for what multiplies 1 / A_00^2: the scale, the gradient's slope, the other rows.
    floor = info.tiny / info.eps**2 * jnp.maximum(1.0, jnp.max(scale**2, (-2, -1)))
    ratio, normal = _bartlett(rng_key, degrees, floor[..., None], shape)
    reciprocal = jnp.exp(-0.5 * ratio) / jnp.sqrt(spread(degrees, shape))
    # A = diag(A) U: the rows of U divide by A_ii with i > 0 only, the small A_00 acts on a column by itself.
    unit = _lower(jnp.ones_like(reciprocal), normal * reciprocal[np.tril_indices(size, -1)[0]])
    return matmul(scale, inverse_lower(unit)) * events_last(reciprocal)[..., None, :]


def inverse_wishart_cholesky_velocity(
    fn: dist.InverseWishartCholesky, value: Array, moving: dist.InverseWishartCholesky
) -> Array:
    """dL = (dS - L diag(dA_ii)) A^-1, A^-1 = S^-1 L; columns divided by L_ii first, so that none overflows."""
    scale, degrees = _scale(fn), _inverse_wishart_degrees(fn)
    pivot = _diagonal(value)
    columns = value / pivot[..., None, :]
    growth = _log_diagonal_velocity(_diagonal(scale) / pivot, degrees, moving.concentration)
    moved = moving.scale_tril - columns * (_diagonal(scale) * growth)[..., None, :]
    return matmul(moved, matmul(inverse_lower(scale), columns)) * pivot[..., None, :]


def _bartlett(rng_key: Array, degrees: Array, floor: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """log(A_ii^2 / degrees), of shape `(p,) + shape`, and the normals below the diagonal, row by row.

    A_ii^2 is lifted to at least `floor`, without notice to its gradient.
    """
    size = degrees.shape[-1]
    normal_key, gamma_key = jax.random.split(rng_key)
    ratio = log_ratio(gamma_key, spread(degrees / 2, shape), (size,) + shape)
    ratio = clip_straight_through(ratio, spread(jnp.log(floor / degrees), shape), jnp.inf)
    normal = jax.random.normal(normal_key, (size * (size - 1) // 2,) + shape, degrees.dtype)
    return ratio, normal


def _log_diagonal_velocity(diagonal: Array, degrees: Array, moving: Array) -> Array:
    """d log A_ii: half that of the chi-square, which is twice a gamma variable with half the degrees for shape."""
    if moving.dtype == jax.dtypes.float0:  # integer degrees of freedom
        return jnp.zeros_like(diagonal)
    degrees = spread(degrees, diagonal.shape[:-1])
    slope = log_gamma_slope(2 * jnp.log(events_first(diagonal)) - jnp.log(degrees), degrees / 2)
    return 0.25 * events_last(slope) * moving[..., None]


def _scale(fn: dist.WishartCholesky | dist.InverseWishartCholesky) -> Array:
    return jnp.asarray(fn.scale_tril, jnp.result_type(fn.concentration, fn.scale_tril, float))


def _wishart_degrees(fn: dist.WishartCholesky | dist.InverseWishartCholesky) -> Array:
    scale = _scale(fn)
    return jnp.asarray(fn.concentration, scale.dtype)[..., None] - jnp.arange(scale.shape[-1], dtype=scale.dtype)


def _inverse_wishart_degrees(fn: dist.InverseWishartCholesky) -> Array:
    return _wishart_degrees(fn)[..., ::-1]


def _diagonal(matrix: Array) -> Array:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _lower(diagonal: Array, below: Array) -> Array:
    """The lower triangular `shape + (p, p)` of a diagonal `(p,) + shape` and the entries below it, row by row."""
    size = len(diagonal)
    matrix = lower_triangle(below, size, -1).at[np.diag_indices(size)].set(diagonal, unique_indices=True)
    return events_last(matrix, 2)
