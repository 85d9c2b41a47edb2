"""Many small matrices at once: axes in the order that compiles to fast loops, products, triangular inverses.

Event axes go first and batch axes last: the loops that XLA writes for a CPU run along the last axis, and a short one
there costs up to ten times as much per element. JAX's own triangular solver calls LAPACK once per matrix, and several
such solves in one program may wait for each other forever on a CPU with few cores (jaxlib 0.10).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.implicit.attach import attach


def events_first(x: Array, events: int = 1) -> Array:
    """`x` with its last `events` axes moved to the front."""
    return jnp.moveaxis(x, range(-events, 0), range(events))


def events_last(x: Array, events: int = 1) -> Array:
    """`x` with its first `events` axes moved to the end: the inverse of `events_first`."""
    return jnp.moveaxis(x, range(events), range(-events, 0))


def spread(x: Array, shape: tuple[int, ...]) -> Array:
    """`x`, of shape `batch + (n,)`, as `(n,) + batch` with axes put in so that it broadcasts to `(n,) + shape`."""
    missing = len(shape) - (x.ndim - 1)
    return jnp.expand_dims(events_first(x), range(1, 1 + missing))


def lower_triangle(entries: Array, size: int, diagonal: int = 0) -> Array:
    """The `(size, size) + shape` with `entries`, `(n,) + shape`, row by row up to that diagonal, as in `numpy.tril`."""
    matrix = jnp.zeros((size, size) + entries.shape[1:], entries.dtype)
    return matrix.at[np.tril_indices(size, diagonal)].set(entries, unique_indices=True)


def matmul(left: Array, right: Array) -> Array:
    """The matrix product with all digits of the number type, which accelerators drop by default."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def matvec(matrix: Array, vector: Array) -> Array:
    """The product `[..., p, p]` by `[..., p]`, likewise."""
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=jax.lax.Precision.HIGHEST)


def inverse_lower(lower: Array) -> Array:
    """The inverse of lower triangular `[..., p, p]`, by forward substitution; d X = -X dL X."""
    value = _substitute(jax.lax.stop_gradient(lower))
    return attach(value, lower, lambda lower, value, moving: -matmul(matmul(value, moving), value))


def _substitute(lower: Array) -> Array:
    """Row i of the inverse: (e_i - sum_{k<i} L_ik X_k) / L_ii."""
    rows = events_first(lower, 2)
    identity = jnp.eye(len(rows), dtype=lower.dtype).reshape((len(rows), len(rows)) + (1,) * (lower.ndim - 2))

    def fill(i: Array, inverse: Array) -> Array:
        known = jnp.sum(rows[i][:, None] * inverse, axis=0)  # rows from i on are still zero
        return inverse.at[i].set((identity[i] - known) / rows[i, i])

    return events_last(jax.lax.fori_loop(0, len(rows), fill, jnp.zeros_like(rows)), 2)
