"""Tables of log weights whose dimensions have names, and their contraction.

A name is that of a variable (a discrete site, "z", or its value some steps before, "z@1") or of an axis of elements,
along which the variables of different elements have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from opt_einsum import paths

from autovi.elimination.semirings import Semiring


class Factor(NamedTuple):
    """The log of a table; `axes` names its dimensions, `sources` the cost terms that it was made of.

    As a term comes, it may have size 1 along axes of elements in which it is the same (`whole` repeats it), and other
    tables for its `first` steps, without the axis of steps.
    """

    table: jax.Array
    axes: tuple[str, ...]
    sources: frozenset[str] = frozenset()
    first: tuple[jax.Array, ...] = ()

    def whole(self, sizes: Mapping[str, int], time: str | None = None, backward: bool = False) -> Factor:
        """The same with all elements, and the first steps along `time`, which may go `backward`, in their place."""
        table = jnp.broadcast_to(self.table, [sizes[a] for a in self.axes])
        if self.first:
            assert time is not None
            place = self.axes.index(time)
            early, length = len(self.first), sizes[time]
            start, end = (0, length - early) if backward else (early, length)
            rest = jax.lax.slice_in_dim(table, start, end, axis=place)
            shape = [n for i, n in enumerate(table.shape) if i != place]
            first = jnp.stack([jnp.broadcast_to(x, shape) for x in self.first], place)
            table = jnp.concatenate([rest, jnp.flip(first, place)] if backward else [first, rest], place)
        return self._replace(table=table, first=())

    def along(self, axes: Sequence[str]) -> jax.Array:
        """The table with these dimensions, of size 1 where it has none."""
        order = [self.axes.index(a) for a in axes if a in self.axes]
        table = jnp.transpose(self.table, order)
        return jnp.expand_dims(table, [i for i, a in enumerate(axes) if a not in self.axes])

    @property
    def sizes(self) -> dict[str, int]:
        """The lengths of its dimensions, by name."""
        return dict(zip(self.axes, self.table.shape, strict=True))

    def at(self, axis: str, index: int) -> Factor:
        """The part at one place along an axis; along one of size 1 all are the same."""
        place = self.axes.index(axis)
        index = index if self.table.shape[place] > 1 else 0
        return self._replace(
            table=jax.lax.index_in_dim(self.table, index, place, False), axes=without(self.axes, {axis})
        )

    def renamed(self, names: Mapping[str, str]) -> Factor:
        """The same with other names of dimensions."""
        return self._replace(axes=tuple(names.get(a, a) for a in self.axes))

    def turned(self, axis: str) -> Factor:
        """The same with the elements along an axis in the opposite order."""
        return self._replace(table=jnp.flip(self.table, self.axes.index(axis))) if axis in self.axes else self

    def added_up(self, axes: Collection[str]) -> Factor:
        """The product over elements: the sum of logs."""
        places = tuple(i for i, a in enumerate(self.axes) if a in axes)
        return self._replace(table=jnp.sum(self.table, places), axes=without(self.axes, axes)) if places else self


def without(axes: Sequence[str], gone: Collection[str]) -> tuple[str, ...]:
    """Those of the axes that are not gone, in order."""
    return tuple(a for a in axes if a not in gone)


def sizes_of(factors: Sequence[Factor]) -> dict[str, int]:
    """The lengths of all axes; one that is the same in all elements may have size 1 in some of the factors."""
    sizes: dict[str, int] = {}
    for factor in factors:
        for axis, n in factor.sizes.items():
            sizes[axis] = max(n, sizes.get(axis, 1))
    return sizes


def product(factors: Sequence[Factor]) -> Factor:
    """The factors multiplied: one table over all their axes."""
    axes = tuple(dict.fromkeys(a for f in factors for a in f.axes))
    table = factors[0].along(axes)
    for factor in factors[1:]:
        table = table + factor.along(axes)
    return Factor(table, axes, frozenset().union(*(f.sources for f in factors)))


def contracted(factors: Sequence[Factor], summed: Collection[str], semiring: Semiring) -> Factor:
    """The product of the factors, summed over some variables, pair by pair in an order in which it is cheap.

    The order is found by `opt_einsum` (Smith and Gray, 2018): a variable is summed out as soon as no factor is left
    that has it.
    """
    left = [_reduced(f, _alone(f, i, factors, summed), semiring) for i, f in enumerate(factors)]
    sizes = sizes_of(left)
    output = {a for f in left for a in f.axes if a not in summed}
    path = paths.auto([frozenset(f.axes) for f in left], frozenset(output), sizes) if len(left) > 1 else []
    for places in path:
        chosen = [left[i] for i in places]
        left = [f for i, f in enumerate(left) if i not in places]
        made = product(chosen)
        gone = {a for a in made.axes if a in summed and not any(a in f.axes for f in left)}
        left.append(_reduced(made, gone, semiring))
    (result,) = left
    return result


def _alone(factor: Factor, place: int, factors: Sequence[Factor], summed: Collection[str]) -> set[str]:
    others = {a for i, f in enumerate(factors) if i != place for a in f.axes}
    return {a for a in factor.axes if a in summed and a not in others}


def _reduced(factor: Factor, gone: Collection[str], semiring: Semiring) -> Factor:
    if not gone:
        return factor
    places = tuple(i for i, a in enumerate(factor.axes) if a in gone)
    semiring.seen(gone, factor.axes, factor.table.shape)
    return factor._replace(table=semiring.total(factor.table, places), axes=without(factor.axes, gone))
