"""Sums and products with the part that rounding takes from them: two numbers that hold twice the digits of one.

Where two large terms cancel, what is left is made of these parts. Dekker (1971), "A Floating-Point Technique for
Extending the Available Precision"; Ogita, Rump and Oishi (2005), "Accurate Sum and Dot Product".
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Exact(NamedTuple):
    """`high + low`, `high` being the sum as rounded."""

    high: Array
    low: Array

    @classmethod
    def of(cls, number: Array) -> Exact:
        """A number from which rounding took nothing."""
        return cls(number, jnp.zeros_like(number))


def two_sum(a: Array, b: Array) -> Exact:
    """a + b. Knuth's, whichever of the two is the larger."""
    # XLA would add up constants across the two: (1 + b) - 1 = b.
    total = lax.optimization_barrier(a + b)
    part = total - a
    return Exact(total, (a - (total - part)) + (b - part))


def two_product(a: Array, b: Array) -> Exact:
    """a b, for numbers of at most 1e34 in float32."""
    product = a * b
    (ah, al), (bh, bl) = _halves(a), _halves(b)
    return Exact(product, al * bl - (((product - ah * bh) - al * bh) - ah * bl))


def sum_of(array: Array) -> Exact:
    """The sum along the last axis, kept as one of length 1, and what rounding took from it."""
    low = jnp.zeros_like(array[..., :1])
    while array.shape[-1] > 1:
        odd = array.shape[-1] % 2
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, odd)])
        array, more = two_sum(array[..., ::2], array[..., 1::2])
        low += jnp.sum(more, axis=-1, keepdims=True)
    return Exact(array, low)


def _halves(a: Array) -> tuple[Array, Array]:
    """Two numbers of half the digits each, whose sum it is (Veltkamp)."""
    digits = jnp.finfo(a.dtype).nmant + 1
    shifted = a * (2.0 ** ((digits + 1) // 2) + 1.0)
    high = shifted - (shifted - a)
    return high, a - high
