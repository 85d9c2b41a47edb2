"""Which axes of sites the labels of the data speak of: those that a column of codes indexes, and those that the columns
of a matrix are multiplied with. Read from the traced program, element by element, so that no label is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Literal

from autovi.analysis.primitives import INNER_PROGRAM, position_maps, shape_of
from autovi.model.graph import Graph
from autovi.model.traced import data_input

Axis = tuple[str, int]  # of a site by name, or of a data array by path
NOWHERE: frozenset[Axis] = frozenset()
# The same codes in other places.
_MOVING = frozenset(
    "broadcast_in_dim reshape squeeze copy transpose stop_gradient rev slice gather dynamic_slice".split()
)


class Codes(NamedTuple):
    """A column of codes: its path among the data, how many categories it has, and its values if the program holds them
    as a constant that can be told from all others."""

    path: str
    size: int
    values: np.ndarray | None = None


class _Known(NamedTuple):
    """What is known of a value: the axes of sites and of data that each of its axes is, whose codes it holds, whose
    codes plus their count (as a negative index is written), which column of the data it is, the parts that stand in it
    beside one another, and the number that it is."""

    sites: tuple[frozenset[Axis], ...]
    data: tuple[frozenset[Any], ...]
    codes: frozenset[str] = frozenset()
    shifted: frozenset[str] = frozenset()
    column: str | None = None
    parts: tuple[Any, ...] = ()
    number: Any = None


def indexed_axes(graph: Graph, columns: Iterable[Codes]) -> dict[str, set[Axis]]:
    """By path of a column of codes, the axes of sites that it indexes: those of which element k is of category k."""
    walk = _Walk(graph, list(columns), ())
    return {path: walk.with_companions(axes) for path, axes in walk.indexed.items()}


def multiplied_axes(graph: Graph, matrices: Iterable[Axis], columns: Iterable[str]) -> dict[Any, set[Axis]]:
    """By axis of a data array, the axes of sites that are summed or multiplied with it element by element.

    An axis along which the model puts `columns` (paths of data) side by side has the tuple of their paths as its key.
    """
    return _Walk(graph, [], matrices, columns).met


class _Walk:
    """One pass over the program, calls opened."""

    def __init__(self, graph: Graph, columns: list[Codes], tracked: Iterable[Axis], stacked: Iterable[str] = ()):
        self.columns = {c.path: c for c in columns}
        self.tracked, self.stacked = set(tracked), set(stacked)
        self.together: list[frozenset[Axis]] = []  # axes of sites that are one axis
        self.indexed: dict[str, set[Axis]] = {}
        self.met: dict[Axis, set[Axis]] = {}
        self.sites: dict[Any, list[str]] = {}
        for name, var in graph.outputs.items():
            if name.startswith("value:") and not isinstance(var, Literal):
                self.sites.setdefault(var, []).append(name.removeprefix("value:"))
        inputs = {var: name for name, var in graph.inputs.items()}
        paths = {data_input(path): path for path in {*self.columns, *self.stacked, *(path for path, _ in self.tracked)}}
        env = {var: self._of_site(var, self._input(var, paths.get(name))) for var, name in inputs.items()}
        env |= {var: self._constant(var, value) for var, value in graph.constants.items()}
        self._run(graph.eqns, env, top=True)

    def _input(self, var: Any, path: str | None) -> _Known:
        known = _nothing(var)
        if path is None:
            return known
        axes = [frozenset({(path, d)} & self.tracked) for d in range(len(shape_of(var)))]
        column = path if path in self.stacked else None
        return known._replace(data=tuple(axes), codes=frozenset({path} & set(self.columns)), column=column)

    def with_companions(self, axes: set[Axis]) -> set[Axis]:
        """These axes, and those of other sites whose element k is made of their element k."""
        found, before = set(axes), -1
        while len(found) != before:
            before = len(found)
            found.update(*(group for group in self.together if group & found))
        return found

    def _constant(self, var: Any, value: Any) -> _Known:
        """A constant that equals the codes of one column is that column, in a program that holds its data."""
        known = _nothing(var)
        if getattr(value, "dtype", np.dtype(float)).kind not in "iu":
            return known
        flat = np.ravel(value)
        held = {p: c.values for p, c in self.columns.items() if c.values is not None}
        same = [p for p, values in held.items() if np.array_equal(flat, np.ravel(values))]
        return known._replace(codes=frozenset(same)) if len(same) == 1 else known

    def _of_site(self, var: Any, known: _Known) -> _Known:
        names = self.sites.get(var, ())
        own = [frozenset((name, d) for name in names) for d in range(len(shape_of(var)))]
        if not names:
            return known
        known = known._replace(sites=tuple(a | b for a, b in zip(known.sites, own, strict=True)))
        self.together += known.sites
        return known

    def _run(self, eqns: Iterable[Any], env: dict[Any, _Known], top: bool = False) -> None:
        def read(atom: Any) -> _Known:
            if isinstance(atom, Literal):
                return _nothing(atom)._replace(number=atom.val if np.ndim(atom.val) == 0 else None)
            return env[atom]

        for eqn in eqns:
            operands = [read(v) for v in eqn.invars]
            inner = eqn.params.get(INNER_PROGRAM.get(eqn.primitive.name, ""))
            if inner is None:
                results = self._equation(eqn, operands)
            else:
                jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                below = dict(zip(jaxpr.invars, operands, strict=True))
                filled = [*consts, *[None] * (len(jaxpr.constvars) - len(consts))]
                below |= {v: self._constant(v, c) for v, c in zip(jaxpr.constvars, filled, strict=True)}
                self._run(jaxpr.eqns, below)
                results = [below[v] if not isinstance(v, Literal) else _nothing(v) for v in jaxpr.outvars]
            for var, known in zip(eqn.outvars, results, strict=True):
                env[var] = self._of_site(var, known) if top else known

    def _equation(self, eqn: Any, operands: list[_Known]) -> list[_Known]:
        name = eqn.primitive.name
        if name == "gather":
            self._note_gather(eqn, operands)
        if name == "dot_general":
            (left, right), _ = eqn.params["dimension_numbers"]
            for one, other in zip(left, right, strict=True):
                self._note_meeting([(operands[0], one), (operands[1], other)])
        results = [self._moved(eqn, operands, k, maps) for k, maps in enumerate(position_maps(eqn))]
        return [known._replace(**self._codes_of(eqn, operands)) for known in results]

    def _moved(self, eqn: Any, operands: list[_Known], k: int, maps: list[Any]) -> _Known:
        """The axes of one output, put together from those of the operands that they are."""
        rank = len(shape_of(eqn.outvars[k]))
        sources: list[list[tuple[_Known, int]]] = [[] for _ in range(rank)]
        for known, places in zip(operands, maps, strict=True):
            for d, e in enumerate(places or ()):
                if e is not None:
                    sources[e].append((known, d))
        if len(operands) > 1 and eqn.primitive.name != "dot_general":
            for axis in sources:
                self._note_meeting(axis)
        union = lambda kind: tuple(  # noqa: E731
            frozenset().union(*(getattr(known, kind)[d] for known, d in axis)) for axis in sources
        )
        return _Known(union("sites"), union("data"))

    def _codes_of(self, eqn: Any, operands: list[_Known]) -> dict[str, Any]:
        name = eqn.primitive.name
        first = operands[0] if operands else None
        if first is None:
            return {}
        if name in _MOVING or (name == "convert_element_type" and np.issubdtype(eqn.params["new_dtype"], np.integer)):
            kept = ("codes", "shifted", "column", "parts", "number")
            return {field: getattr(first, field) for field in kept}
        if name == "convert_element_type":
            return {"column": first.column}
        if name in ("concatenate", "stack"):  # columns, or indices along several axes
            return {"parts": tuple(operands), **self._side_by_side(eqn, operands)}
        if name == "clamp":
            return {"codes": operands[1].codes}
        if name == "add":
            pairs = [(operands[0], operands[1].number), (operands[1], operands[0].number)]
            return {"shifted": frozenset(p for k, n in pairs for p in k.codes if n == self.columns[p].size)}
        if name == "select_n":
            either = [known.codes | known.shifted for known in operands[1:]]
            plain = frozenset().union(*(known.codes for known in operands[1:]))
            return {"codes": plain.intersection(*either)}
        return {}

    def _side_by_side(self, eqn: Any, operands: list[_Known]) -> dict[str, Any]:
        axis = eqn.params["axis"] if eqn.primitive.name == "stack" else eqn.params["dimension"]
        columns = tuple(known.column for known in operands)
        rank = len(shape_of(eqn.outvars[0]))
        whole = any(len(shape_of(v)) == rank and shape_of(v)[axis] != 1 for v in eqn.invars)
        if None in columns or whole:
            return {}
        return {"data": tuple(frozenset({columns} if d == axis else ()) for d in range(rank))}

    def _note_gather(self, eqn: Any, operands: list[_Known]) -> None:
        """Which of the operand's axes does a column of codes, or one of several beside one another, run along?"""
        operand, numbers = operands[0], eqn.params["dimension_numbers"]
        parts = operands[1].parts or (operands[1],)
        if len(parts) != len(numbers.start_index_map):
            return
        shape = shape_of(eqn.invars[0])
        for axis, index in zip(numbers.start_index_map, parts, strict=True):
            for path in index.codes:
                if self.columns[path].size == shape[axis] and eqn.params["slice_sizes"][axis] == 1:
                    self.indexed.setdefault(path, set()).update(operand.sites[axis])

    def _note_meeting(self, axes: list[tuple[_Known, int]]) -> None:
        data = frozenset().union(*(known.data[d] for known, d in axes))
        sites = frozenset().union(*(known.sites[d] for known, d in axes))
        for axis in data:
            self.met.setdefault(axis, set()).update(sites)


def _nothing(atom: Any) -> _Known:
    rank = len(shape_of(atom))
    return _Known((NOWHERE,) * rank, (NOWHERE,) * rank)
