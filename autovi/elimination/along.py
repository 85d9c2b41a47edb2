"""A message taken along the steps of a loop, of which the backward pass does not hold more than is worth its memory."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import jax

MOST_HELD = 5_000_000  # numbers of all steps and particles, from which on steps are computed again


def taken_along(
    step: Callable[[Any, Any], tuple[Any, None]], start: Any, rows: Any, length: int, held: int, lanes: int = 1
) -> Any:
    r"""What `jax.lax.scan(step, start, rows, length)` carries at its end.

    The backward pass needs `held` numbers of every step, for each of the `lanes` particles side by side. Where these
    are many it computes steps again (Griewank and Walther, 2000, "Algorithm 799: Revolve"; Chen, Xu, Zhang and
    Guestrin, 2016, "Training Deep Nets with Sublinear Memory Cost"): in blocks of about :math:`\sqrt T` steps, so that
    it holds what goes from block to block and the numbers of one block. Rows of steps that are larger than what is
    carried are not dealt to blocks, for which they would be copied: there it holds what goes from step to step. Either
    takes up to a quarter more time.
    """
    if length * held * lanes <= MOST_HELD:
        return _scanned(step, start, rows, length)
    if _numbers(rows) > length * _numbers(start):
        return _scanned(jax.checkpoint(step, prevent_cse=False), start, rows, length)
    side = isqrt(length)
    rest = length % side
    carry = _scanned(step, start, jax.tree.map(lambda x: x[:rest], rows), rest)
    dealt = jax.tree.map(lambda x: x[rest:].reshape(-1, side, *x.shape[1:]), rows)

    def block(carry: Any, rows: Any) -> tuple[Any, None]:
        return _scanned(step, carry, rows, side), None

    return _scanned(jax.checkpoint(block, prevent_cse=False), carry, dealt, length // side)


def _scanned(step: Callable, start: Any, rows: Any, length: int) -> Any:
    return jax.lax.scan(step, start, rows, length=length)[0] if length else start


def _numbers(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
