"""Inverses of many small triangular matrices in one vectorized loop.

JAX's own solver calls LAPACK once per matrix, and several such solves in one program may wait for each other forever on
a CPU with few cores (jaxlib 0.10).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.attach import attach
from autovi.implicit.numerics.layout import events_first, events_last


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
