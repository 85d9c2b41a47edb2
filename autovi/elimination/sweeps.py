"""Tables of factors over single elements of arrays, evaluated for all elements at once.

The factors of a chain in one array differ in which elements they depend on, and not in how they are computed. Elements
get colours, so that no factor sees two of one colour. All elements of a colour are set to one value at a time: as many
evaluations as the colours have values together give the tables of all factors, however many elements there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.elimination.factors import Factor
from autovi.model.lags import lagged

Element = tuple[str, int]  # a variable of the graph (a site, "z", or its values a step before, "z@1"), and which of it
Colour = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Part:
    """A term, or what it adds up: an output of the program. `dims` are the axes of elements of its dimensions; along
    the others (None) are its cells, of which those `cells[i]` depend on the elements `scopes[i]`."""

    output: str
    term: str
    dims: tuple[str | None, ...]
    scopes: tuple[tuple[Element, ...], ...]
    cells: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Named:
    """What elements are called as variables. Those in `steps` stand at a step of a chain, along the axis `time` of this
    `length`; all elements of a chain have one name."""

    names: Mapping[Element, str]
    steps: Mapping[Element, int] = field(default_factory=dict)
    time: str | None = None
    length: int = 0

    def step(self, scope: Sequence[Element]) -> int | None:
        """The step at which the last of some elements stands; None where none is of a chain."""
        return max((self.steps[e] for e in scope if e in self.steps), default=None)

    def variable(self, element: Element, step: int | None) -> str:
        """What an element is called at a step, some steps after its own perhaps."""
        name = self.names[element]
        return name if step is None or element not in self.steps else lagged(name, step - self.steps[element])


@dataclass(frozen=True, eq=False)
class Sweep:
    """Parts that are evaluated together, and the colour of each element of the variables that they depend on: arrays
    that broadcast to the batch shape of the site. `sizes` are how many values each variable has."""

    parts: tuple[Part, ...]
    colours: Mapping[str, np.ndarray]
    named: Named
    sizes: Mapping[str, int]

    @property
    def axes(self) -> tuple[Colour, ...]:
        """The colours, in the order of the dimensions of what is evaluated."""
        return tuple((v, c) for v, of in self.colours.items() for c in range(int(of.max()) + 1))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each has."""
        return tuple(self.sizes[v] for v, _ in self.axes)

    def numbers(self, code: jax.Array) -> dict[str, jax.Array]:
        """What each element is set to in the evaluation of this number."""
        digits = jnp.stack(jnp.unravel_index(code, self.shape)) if self.shape else jnp.zeros(0, int)
        first = {v: self.axes.index((v, 0)) for v in self.colours}
        return {v: digits[first[v] + of] for v, of in self.colours.items()}

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The factors of all parts: one for each scope, or one for all scopes that are alike at their steps."""
        place = {colour: i for i, colour in enumerate(self.axes)}
        found: dict[tuple[int, tuple[str, ...]], list[Scope]] = {}
        for p, part in enumerate(self.parts):
            for elements, cells in zip(part.scopes, part.cells, strict=True):
                step = self.named.step(elements)
                listed = [(place[self._colour(e)], self.named.variable(e, step)) for e in elements]
                listed.sort(key=lambda pair: pair[0] if step is None else pair[1])
                names, colours = tuple(n for _, n in listed), tuple(c for c, _ in listed)
                found.setdefault((p, names), []).append(Scope(colours, cells, step))
        return tuple(Table(self.parts[p], names, tuple(scopes)) for (p, names), scopes in found.items())

    def _colour(self, element: Element) -> Colour:
        v, i = element
        return v, int(self.colours[v].reshape(-1)[i])

    @property
    def scopes(self) -> list[tuple[tuple[str, ...], str]]:
        """The axes of each factor, and the term that it is of."""
        return [(t.axes(self.named.time), t.part.term) for t in self.tables]

    def factors(self, evaluated: Mapping[str, jax.Array]) -> list[Factor]:
        """The factors of all parts, from their values in all evaluations `[evaluations, *shape]`."""
        found = [self._along(t, evaluated[t.part.output]) for t in self.tables if t.moves]
        alike: dict[tuple[str, tuple[int, ...]], list[Table]] = {}
        for t in self.tables:
            if not t.moves:
                alike.setdefault((t.part.output, t.scopes[0].colours), []).append(t)
        return found + [f for (o, _), tables in alike.items() for f in self._each(tables, evaluated[o])]

    def _each(self, tables: Sequence[Table], raw: jax.Array) -> list[Factor]:
        """Factors of single elements, of one part and the same colours."""
        scopes = [t.scopes[0] for t in tables]
        rows = self._rows(tables[0].part, raw, scopes[0].colours)
        rows = _added(rows, [s.cells for s in scopes], range(len(scopes)), len(scopes))
        each = jnp.split(rows, len(tables)) if len(tables) > 1 else [rows]
        return [Factor(r[0], t.axes(None), frozenset({t.part.term})) for r, t in zip(each, tables, strict=True)]

    def _along(self, table: Table, raw: jax.Array) -> Factor:
        """One factor at all steps, zero where there is none."""
        alike: dict[tuple[int, ...], list[Scope]] = {}
        for scope in table.scopes:
            alike.setdefault(scope.colours, []).append(scope)
        total: Any = 0.0
        for colours, scopes in alike.items():
            rows, steps = self._rows(table.part, raw, colours), [s.step or 0 for s in scopes]
            total = total + _added(rows, [s.cells for s in scopes], steps, self.named.length)
        return Factor(total, table.axes(self.named.time), frozenset({table.part.term}))

    def _rows(self, part: Part, raw: jax.Array, colours: tuple[int, ...]) -> jax.Array:
        """A part's cells by the values of some colours `[cells, *values, *elements]`; other colours are at their first
        value, as these cells do not depend on them."""
        raw = raw.reshape(*self.shape, *raw.shape[1:])
        raw = raw[tuple(slice(None) if a in colours else 0 for a in range(len(self.axes)))]
        values = [sorted(colours).index(c) for c in colours]
        inner = [len(values) + e for e, d in enumerate(part.dims) if d is None]
        outer = [len(values) + e for e, d in enumerate(part.dims) if d is not None]
        raw = jnp.transpose(raw, [*inner, *values, *outer])
        return raw.reshape(-1, *raw.shape[len(inner) :])


class Scope(NamedTuple):
    """Cells of a part that depend on the same elements, the colours of these, and the step of the chain."""

    colours: tuple[int, ...]
    cells: np.ndarray
    step: int | None


class Table(NamedTuple):
    """A factor: a part of a term over variables, the scopes whose cells are in it."""

    part: Part
    variables: tuple[str, ...]
    scopes: tuple[Scope, ...]

    @property
    def moves(self) -> bool:
        """Does it have an entry for each step of a chain?"""
        return self.scopes[0].step is not None

    def axes(self, time: str | None) -> tuple[str, ...]:
        """The names of its dimensions."""
        first = (time,) if self.moves and time is not None else ()
        return (*first, *self.variables, *(d for d in self.part.dims if d is not None))


def _added(rows: jax.Array, groups: Sequence[np.ndarray], places: Sequence[int], length: int) -> jax.Array:
    """The sums of groups of rows, each at its place."""
    if len(groups) == length == 1 and len(groups[0]) == len(rows):
        return jnp.sum(rows, 0, keepdims=True)
    which = np.full(len(rows), length)
    for place, group in zip(places, groups, strict=True):
        which[group] = place
    if np.array_equal(which, np.arange(length)):
        return rows
    return jax.ops.segment_sum(rows, which, length + 1)[:-1]


def slices(site: str, table: jax.Array, dims: Sequence[str], split: frozenset[str]) -> list[Factor]:
    """A table over the values of all elements of a site `[values, *elements]` as factors over each of its variables.
    `dims` are the axes of its elements, of which those `split` are told apart."""
    apart = [1 + i for i, d in enumerate(dims) if d in split]
    if not apart:
        return [Factor(table, (site, *dims))]
    rest = [i for i in range(table.ndim) if i not in apart]
    indices = list(np.ndindex(*(table.shape[i] for i in apart)))
    rows = jnp.transpose(table, [*apart, *rest]).reshape(len(indices), *(table.shape[i] for i in rest))
    axes = tuple(d for d in dims if d not in split)
    parts = jnp.split(rows, len(indices))
    return [Factor(r[0], (element_name(site, i), *axes)) for r, i in zip(parts, indices, strict=True)]


def element_name(site: str, index: Sequence[int]) -> str:
    """What an element of a site is called as a variable."""
    return f"{site}[{','.join(map(str, index))}]" if len(index) else site
