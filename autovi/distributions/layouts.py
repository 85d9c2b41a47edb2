"""Which coordinates of a vector belong together: what all of it has in common, and the elements of its plates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_RUNS = 64  # pieces of a vector that are put in order by slices; beyond, by a gather


class Index:
    """An array of integers that compares and hashes by its content: of a static field of a compiled program."""

    def __init__(self, values: Any):
        self.array = np.array(values, dtype=np.int32)  # a copy, so that nobody changes it from outside
        self.array.setflags(write=False)
        self._key = (self.array.shape, hashlib.sha256(self.array.tobytes()).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Index{self.array.shape}"


@dataclass(frozen=True)
class Above:
    """Elements of an earlier level, one for each element of this one: `element[e]` of level `level` is above e."""

    level: int
    element: Index  # (elements,)


@dataclass(frozen=True)
class Level:
    """The elements of one set of plates: element e has the d coordinates `index[e]` of the vector.

    `above` names the elements of earlier levels that an element is drawn given, as those of the plates around it.
    """

    index: Index  # (elements, d)
    above: tuple[Above, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(elements, coordinates of each)."""
        elements, size = self.index.array.shape
        return elements, size

    @cached_property
    def by_coordinate(self) -> bool:
        """Do the elements' first coordinates stand together in the vector, then the second ones, ...?"""
        return _num_runs(self.index.array.T.ravel()) < _num_runs(self.index.array.ravel())

    @property
    def order(self) -> np.ndarray:
        """Where its numbers stand in the vector, in the order of `flattened`."""
        return (self.index.array.T if self.by_coordinate else self.index.array).ravel()

    def flattened(self, values: jax.Array) -> jax.Array:
        """(elements, d) -> a vector."""
        return jnp.ravel(values.T if self.by_coordinate else values)

    def unflattened(self, vector: jax.Array) -> jax.Array:
        """A vector -> (elements, d)."""
        elements, size = self.shape
        return vector.reshape(size, elements).T if self.by_coordinate else vector.reshape(elements, size)


@dataclass(frozen=True)
class Structure:
    """The coordinates of a vector: `common` ones, and those of the elements of `levels`, outer plates first.

    Raises:
        ValueError: the coordinates are not 0, 1, ..., each once, or an element above is none.
    """

    common: Index
    levels: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        if not np.array_equal(np.sort(self.order), np.arange(len(self.order))):
            raise ValueError("structure: expected every coordinate 0, 1, ... once, in `common` or in one level")
        for k, level in enumerate(self.levels):
            for above in level.above:
                known = self.levels[above.level].shape[0] if 0 <= above.level < k else 0
                element = above.element.array
                if element.shape != level.shape[:1] or element.min() < 0 or element.max() >= known:
                    raise ValueError(
                        f"structure: level {k}: expected {level.shape[0]} elements of an earlier level above it, got "
                        f"{element.shape} of level {above.level}, which has {known}"
                    )

    @property
    def size(self) -> int:
        """How many coordinates there are."""
        return len(self.order)

    @property
    def num_common(self) -> int:
        """How many of them are common."""
        return len(self.common.array)

    def num_given(self, k: int) -> int:
        """How many numbers an element of level k is given: the common ones, and those of the elements above it."""
        return self.num_common + sum(self.levels[above.level].shape[1] for above in self.levels[k].above)

    @cached_property
    def order(self) -> np.ndarray:
        """Where the numbers stand in the vector: the common ones first, then level by level."""
        return np.concatenate([self.common.array, *(level.order for level in self.levels)])

    @cached_property
    def _place(self) -> np.ndarray:
        return np.argsort(self.order)

    def split(self, vector: jax.Array) -> list[jax.Array]:
        """A vector -> its common coordinates, and the coordinates (elements, d) of every level."""
        parts = self.cut(ordered(vector, self.order))
        return [parts[0], *(level.unflattened(part) for level, part in zip(self.levels, parts[1:], strict=True))]

    def joined(self, parts: list[jax.Array]) -> jax.Array:
        """The inverse of `split`."""
        levels = [level.flattened(part) for level, part in zip(self.levels, parts[1:], strict=True)]
        return ordered(jnp.concatenate([parts[0], *levels]), self._place)

    def cut(self, vector: jax.Array) -> list[jax.Array]:
        """A vector in any other order, cut into pieces of the same sizes."""
        sizes = [self.num_common, *(level.index.array.size for level in self.levels)]
        return jnp.split(vector, np.cumsum(sizes)[:-1])


def _runs(order: np.ndarray) -> np.ndarray:
    """Where in `order` a number does not follow on the one before."""
    return np.flatnonzero(np.diff(order) != 1) + 1


def _num_runs(order: np.ndarray) -> int:
    return len(_runs(order)) + 1


def ordered(vector: jax.Array, order: np.ndarray) -> jax.Array:
    """`vector[order]`, by slices where they are few: the derivative of a gather is a scatter, which CPUs do number by
    number."""
    if len(order) == 0 or _num_runs(order) > MAX_RUNS:
        return vector[order]
    pieces = np.split(order, _runs(order))
    return jnp.concatenate([vector[piece[0] : piece[-1] + 1] for piece in pieces])


def taken(values: jax.Array, element: np.ndarray) -> jax.Array:
    """`values[element]`, rows of an array; by repeating where plates are nested, for the sake of the derivative."""
    count, total = len(values), len(element)
    inner = int(np.argmax(element != element[0])) or total  # how often the first one stands in a row
    outer = total // (count * inner)
    if np.array_equal(element, np.tile(np.repeat(np.arange(count), inner), outer)):
        whole = jnp.broadcast_to(values[None, :, None], (outer, count, inner, *values.shape[1:]))
        return whole.reshape(total, *values.shape[1:])
    return values[element]
