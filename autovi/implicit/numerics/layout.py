"""Event axes first, batch axes last: the loops that XLA writes for a CPU run along the last axis, and a short one there
costs up to ten times as much per element."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array


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
