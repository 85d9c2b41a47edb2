"""One-sided Gauss-Legendre integrals of a density away from a draw.

The implicit gradient of a draw z is `-(1/p(z)) int_{-inf}^z s(t) p(t) dt`, s the score of the parameter, or the same
over the other side with the other sign, since the score has mean zero. On the side away from the mass the ratio
p(t)/p(z) only falls, and if s keeps its sign there, nothing cancels: few nodes give the last digits of the number type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@cache
def gauss_legendre(num_nodes: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return tuple(zip(((1 + nodes) / 2).tolist(), (weights / 2).tolist(), strict=True))


def num_nodes(dtype: jnp.dtype, single: int = 16) -> int:
    """How many nodes a smooth one-sided integrand needs to come to rounding error: `single` in single precision."""
    return single if jnp.finfo(dtype).bits <= 32 else 40


def cutoff(dtype: jnp.dtype) -> float:
    """How many nats below its value at the draw a density no longer counts."""
    return 17.0 if jnp.finfo(dtype).bits <= 32 else 38.0


def integrate(integrand: Callable[[Array], Array], length: Array, nodes: int | None = None) -> Array:
    """`int_0^length integrand(t) dt`, elementwise; `length` of a floating dtype and of the result's shape.

    The length is a constant to derivatives: it says how far to look, the integrand does not care.
    """
    length = jax.lax.stop_gradient(length)
    rule = np.asarray(gauss_legendre(nodes or num_nodes(length.dtype)))

    def add(total: Array, row: Array) -> Array:
        return total + row[1] * integrand(length * row[0])

    return accumulate(add, jnp.zeros_like(length), rule) * length


def accumulate(add: Callable[[Any, Array], Any], start: Any, rows: np.ndarray, together: int = 6) -> Any:
    """`add` applied to the totals `start` and to each of the rows of nodes and weights, one after the other.

    A loop over groups of at most `together` rows, each group written out: XLA makes one vectorized loop over the draws
    of a group. An axis of nodes costs ten times as much per draw, and all nodes written out cost twice the time to
    compile. Reverse mode computes a group anew, so that memory does not grow with the nodes.
    """
    size = next(size for size in range(together, 0, -1) if len(rows) % size == 0)

    @jax.checkpoint
    def group(totals: Any, rows: Array) -> tuple[Any, None]:
        for row in rows:
            totals = add(totals, row)
        return totals, None

    dtype = jax.tree.leaves(start)[0].dtype
    return jax.lax.scan(group, start, jnp.asarray(rows.reshape(-1, size, rows.shape[1]), dtype))[0]


def reach(fall: Callable[[Array], tuple[Array, Array]], first: Array, rounds: int = 4) -> Array:
    """Where a convex increasing `fall`, 0 at 0, reaches the cutoff; never short of it.

    `fall(length)` gives the nats that the log density has lost at that distance, and its slope. Newton's method from a
    point `first` beyond the solution comes down to it from above, so stopping early only looks too far.
    """
    target = cutoff(first.dtype)
    length = first
    for _ in range(rounds):
        lost, slope = fall(length)
        # Rounding may put `lost` below the target at the solution: never step outwards, nor over a flat piece.
        length = length - jnp.maximum(lost - target, 0.0) / jnp.maximum(slope, jnp.finfo(first.dtype).tiny)
    return jax.lax.stop_gradient(length)
