"""Cholesky factors of LKJ correlation matrices from beta draws, with the implicit gradient of the concentration.

Both constructions of Lewandowski, Kurowicka and Joe (2009), "Generating random correlation matrices based on vines and
extended onion method", share out the unit length of each row by draws y ~ Beta(a, b), of which only b depends on the
concentration. They are made by the log-odds of y, so that neither y nor 1 - y loses digits.

Inside, `rows` are those of the factor from the second on, `(d - 1, d) + shape`: event axes first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.attach import attach
from autovi.implicit.numerics.matrices import events_first, events_last, lower_triangle, spread
from autovi.implicit.numerics.sampling import clip_straight_through
from autovi.implicit.univariate.beta import log_odds, log_odds_slope


def draw_lkj_cholesky(rng_key: Array, fn: dist.LKJCholesky, shape: tuple[int, ...]) -> Array:
    """Draws of an `LKJCholesky` by its sample method, of shape `shape + (d, d)`.

    A diagonal entry whose square would underflow stays above that, and keeps the gradient of its logarithm.
    """
    draw_rows = _onion_rows if fn.sample_method == "onion" else _vine_rows
    rows = draw_rows(rng_key, _concentration(fn), fn.dimension, shape)
    first = jnp.zeros_like(rows[:1]).at[0, 0].set(1)
    return events_last(jnp.concatenate([first, rows]), 2)


def lkj_cholesky_velocity(fn: dist.LKJCholesky, value: Array, moving: dist.LKJCholesky) -> Array:
    """dL with the directions of the rows fixed ("onion"), or the signs of the partial correlations ("cvine")."""
    speed = jnp.asarray(moving.concentration)
    if speed.dtype == jax.dtypes.float0:  # an integer concentration
        return jnp.zeros_like(value)
    slope = _onion_slope if fn.sample_method == "onion" else _vine_slope
    rows = events_first(value, 2)[1:]
    moved = rows * slope(_concentration(fn), rows) * speed
    return events_last(jnp.concatenate([jnp.zeros_like(moved[:1]), moved]), 2)


def _onion_rows(rng_key: Array, concentration: Array, dimension: int, shape: tuple[int, ...]) -> Array:
    """sqrt(y_i) times a direction uniform on the sphere, then sqrt(1 - y_i); section 3.2."""
    odds_key, normal_key = jax.random.split(rng_key)
    logit = _draw_logit(odds_key, *_onion_shapes(concentration, dimension, shape), shape)
    normal = jax.random.normal(normal_key, (dimension * (dimension - 1) // 2,) + shape, logit.dtype)
    # The first row has a single normal, which may be exactly 0.
    normal = lower_triangle(jnp.where(normal == 0, jnp.finfo(logit.dtype).eps, normal), dimension - 1)
    direction = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
    rows = _before(_root(_log_y(logit))[:, None] * direction)
    return rows.at[_diagonal(dimension)].set(_root(_log_y(-logit)), unique_indices=True)


def _onion_slope(concentration: Array, rows: Array) -> Array:
    """d log |L_ij|, from y_i / (1 - y_i), the squares before the diagonal over its own."""
    dimension, shape = rows.shape[1], rows.shape[2:]
    squares = rows**2
    last = squares[_diagonal(dimension)]
    below = np.tri(dimension - 1, dimension, dtype=bool).reshape((dimension - 1, dimension) + (1,) * len(shape))
    logit = _log(jnp.sum(jnp.where(below, squares, 0), axis=1)) - _log(last)
    grows, shrinks = _log_slopes(*_onion_shapes(concentration, dimension, shape), logit)
    return jnp.where(below, grows[:, None], -shrinks[:, None])


def _onion_shapes(concentration: Array, dimension: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Those of y_i: Beta(i / 2, concentration + (d - 1 - i) / 2), i = 1 .. d - 1."""
    i = jnp.arange(1, dimension, dtype=concentration.dtype)
    return spread(i / 2, shape), spread(concentration[..., None] + (dimension - 1 - i) / 2, shape)


def _vine_rows(rng_key: Array, concentration: Array, dimension: int, shape: tuple[int, ...]) -> Array:
    """Each entry's square takes the share y_ij of the length left in its row, the diagonal the rest; section 2.4."""
    odds_key, sign_key = jax.random.split(rng_key)
    logit = _draw_logit(odds_key, *_vine_shapes(concentration, dimension, shape), shape)
    share, rest = (lower_triangle(_log_y(t), dimension - 1) for t in (logit, -logit))
    signs = lower_triangle(jax.random.rademacher(sign_key, logit.shape, logit.dtype), dimension - 1)
    signs = _before(signs).at[_diagonal(dimension)].set(1, unique_indices=True)
    return signs * _root(_before(share) + jnp.cumsum(_after(rest), axis=1))


def _vine_slope(concentration: Array, rows: Array) -> Array:
    """d log |L_ij|, from y_ij / (1 - y_ij), an entry's square over the sum of those after it in its row."""
    dimension, shape = rows.shape[1], rows.shape[2:]
    squares = rows**2
    left = jnp.cumsum(squares[:, ::-1], axis=1)[:, ::-1]
    logit = (_log(squares[:, :-1]) - _log(left[:, 1:]))[np.tril_indices(dimension - 1)]
    grows, shrinks = _log_slopes(*_vine_shapes(concentration, dimension, shape), logit)
    taken = jnp.cumsum(_after(lower_triangle(shrinks, dimension - 1)), axis=1)
    return _before(lower_triangle(grows, dimension - 1)) - taken


def _vine_shapes(concentration: Array, dimension: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Those of y_ij, the square of the partial correlation 2 x - 1, x ~ Beta(b, b): Beta(1/2, b).

    b = concentration + (d - 2 - j) / 2 in column j from 0, row by row.
    """
    column = jnp.asarray(np.tril_indices(dimension - 1)[1], concentration.dtype)
    b = concentration[..., None] + (dimension - 2 - column) / 2
    return spread(jnp.full_like(column, 0.5), shape), spread(b, shape)


def _draw_logit(rng_key: Array, a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    """Draws of log(y / (1 - y)), y ~ Beta(a, b), of shape `(n,) + shape`, with the gradient in b only."""
    drawn = log_odds(rng_key, a, jax.lax.stop_gradient(b), (len(b),) + shape)
    return attach(drawn, b, lambda b, value, moving: -log_odds_slope(-value, b, a) * moving)


def _log_slopes(a: Array, b: Array, logit: Array) -> tuple[Array, Array]:
    """d log sqrt(y) / db and -d log sqrt(1 - y) / db."""
    slope = -0.5 * log_odds_slope(-logit, b, a)
    return slope * jax.nn.sigmoid(-logit), slope * jax.nn.sigmoid(logit)


def _concentration(fn: dist.LKJCholesky) -> Array:
    return jnp.asarray(fn.concentration, jnp.result_type(fn.concentration, float))


def _log_y(logit: Array) -> Array:
    return -jax.nn.softplus(-logit)


def _root(log_square: Array) -> Array:
    """exp(log_square / 2), whose square is a positive number; the derivative does not see that floor."""
    floor = jnp.log(2 * jnp.finfo(log_square.dtype).tiny)
    return jnp.exp(0.5 * clip_straight_through(log_square, floor, jnp.inf))


def _log(square: Array) -> Array:
    """The logarithm of a square that may have underflown."""
    return jnp.log(jnp.maximum(square, jnp.finfo(square.dtype).tiny))


def _diagonal(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the factor's diagonal is in `rows`."""
    row = np.arange(dimension - 1)
    return row, row + 1


def _before(matrix: Array) -> Array:
    """`matrix` with a column of zeros after its last."""
    return jnp.pad(matrix, [(0, 0), (0, 1)] + [(0, 0)] * (matrix.ndim - 2))


def _after(matrix: Array) -> Array:
    """`matrix` with a column of zeros before its first."""
    return jnp.pad(matrix, [(0, 0), (1, 0)] + [(0, 0)] * (matrix.ndim - 2))
