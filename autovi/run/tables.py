"""Tables: all that belongs to an element of a subsampled plate, in one row of one array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.model.sites import Site
from autovi.program.rows import gather, scatter


class Visits(NamedTuple):
    """How often a row took part in the present running mean, and in which step it last did."""

    times: jax.Array
    last: jax.Array


class Row(NamedTuple):
    """What a table holds for an element: parameters, their running mean, the optimizer's memory of them, visits."""

    params: Any
    mean: Any
    memory: Any
    visits: Visits


class Leaf(NamedTuple):
    """Shape and type of a leaf of one row."""

    shape: tuple[int, ...]
    dtype: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """A `Row` for every element of a site's full batch shape.

    A step that sees a few of a million rows waits for memory once for each array it looks into: so a row is the bits of
    all its leaves, side by side.
    """

    words: jax.Array  # [*full batch shape, words of a row], 32 bits each
    made: Any = field(metadata={"static": True})  # the structure of a row
    leaves: tuple[Leaf, ...] = field(metadata={"static": True})

    @classmethod
    def of(cls, site: Site, rows: Row) -> Table:
        """The table of these rows, which have the site's full batch shape in front."""
        depth = len(table_shape(site))
        arrays, made = jax.tree.flatten(rows)
        leaves = tuple(Leaf(x.shape[depth:], x.dtype) for x in arrays)
        return cls(_packed(arrays, depth), made, leaves)

    @property
    def rows(self) -> Row:
        """All rows."""
        return self._unpacked(self.words)

    def seen(self, site: Site, indices: Mapping[str, Any]) -> Row:
        """The rows of a step's elements."""
        return self._unpacked(gather(site, self.words, indices))

    def put(self, site: Site, rows: Row, indices: Mapping[str, Any]) -> Table:
        """The table with the rows of a step's elements replaced."""
        words = _packed(jax.tree.leaves(rows), self.words.ndim - 1)
        return Table(scatter(site, self.words, words, indices), self.made, self.leaves)

    def _unpacked(self, words: jax.Array) -> Row:
        arrays, start = [], 0
        for leaf in self.leaves:
            width = prod(leaf.shape) * _words_of(leaf.dtype)
            arrays.append(_from_words(words[..., start : start + width], leaf))
            start += width
        return jax.tree.unflatten(self.made, arrays)


def table_shape(site: Site) -> tuple[int, ...]:
    """The shape of the rows of a table: the site's batch shape at full plates."""
    return site.full(site.batch_shape)


def _packed(arrays: list[Any], depth: int) -> jax.Array:
    return jnp.concatenate([_to_words(x).reshape(*x.shape[:depth], -1) for x in arrays], axis=-1)


def _words_of(dtype: Any) -> int:
    return 2 if jnp.dtype(dtype).itemsize == 8 else 1


def _wide(dtype: Any) -> Any:
    """A type of 32 or 64 bits that holds the values of a type."""
    if jnp.dtype(dtype).itemsize >= 4:
        return dtype
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.int32


def _to_words(array: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(array.astype(_wide(array.dtype)), jnp.uint32)


def _from_words(words: jax.Array, leaf: Leaf) -> jax.Array:
    batch = words.shape[:-1]
    split = (2,) if _words_of(leaf.dtype) == 2 else ()
    bits = words.reshape(*batch, *leaf.shape, *split)
    return jax.lax.bitcast_convert_type(bits, _wide(leaf.dtype)).astype(leaf.dtype)
