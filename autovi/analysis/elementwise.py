"""Which elements of some arrays each element of an output depends on, read from the program without computing anything.

Every variable carries, for each of its elements, the set of elements of the tracked inputs that it may depend on, as
the bits of an integer. A dimension of size 1 in such an array of sets stands for any size: the sets are the same all
along it. What is picked by an index is followed where the index is a constant of the program; one that is made of data
may be any. Dependences are never missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Literal

from autovi.analysis.constants import folded
from autovi.analysis.interpreter import MutableStateError
from autovi.analysis.primitives import INNER_PROGRAM, UNUSED, position_maps, shape_of
from autovi.model.graph import Graph, scan_counts

MAX_SETS = 300_000  # of one variable; of larger ones all elements are taken to depend on the same
MAX_STEPS = 512  # of a scan that are followed one by one

Sets = np.ndarray  # of Python integers


class Value(NamedTuple):
    """What is known of a variable: the sets (None: all are empty), its entries if they are constants."""

    sets: Sets | None = None
    entries: np.ndarray | None = None


class Found(NamedTuple):
    """The sets of each output, and whether an index made of data stood in the way."""

    sets: dict[str, Sets | None]
    by_data: bool


def elements_felt(graph: Graph, tracked: Mapping[str, Sets], outputs: Iterable[str]) -> Found:
    """For each output of a graph the sets `[*shape]` of what its elements depend on, dimensions along which they are
    the same having size 1; from the sets of inputs.

    Example:
        >>> z = np.array([1, 2, 4, 8], object)  # an element each
        >>> elements_felt(graph, {"node:z": z}, ["p:pairs"]).sets  # of z[1:] + z[:-1]
        {'p:pairs': array([3, 6, 12], dtype=object)}
    """
    names = list(outputs)
    inputs = {v: n for n, v in graph.inputs.items()}
    wanted = [graph.outputs[o] for o in names]
    equations, _ = graph.needed(wanted, lambda v: v in inputs or v in graph.constants)
    values = {v: Value(tracked.get(n)) for v, n in inputs.items()}
    values |= {v: Value(None, _as_entries(c)) for v, c in graph.constants.items()}
    reader = _Reader()
    try:
        reader.through([graph.eqns[i] for i in equations], values)
    except MutableStateError:
        every = reduce(int.__or__, map(_union, tracked.values()), 0)
        return Found({n: _uniform(every, v) for n, v in zip(names, wanted, strict=True)}, False)
    return Found({n: _read(v, values).sets for n, v in zip(names, wanted, strict=True)}, reader.by_data)


def _as_entries(constant: Any) -> np.ndarray | None:
    try:
        array = np.asarray(constant)
    except Exception:  # a tracer, a random key
        return None
    return array if array.dtype.kind in "ibu" else None


def _read(atom: Any, values: Mapping[Any, Value]) -> Value:
    return Value(None, _as_entries(atom.val)) if isinstance(atom, Literal) else values[atom]


class _Reader:
    def __init__(self) -> None:
        self.by_data = False

    def through(self, eqns: Iterable[Any], values: dict[Any, Value]) -> None:
        """Adds what equations make to the values."""
        for eqn in eqns:
            if any(hasattr(v.aval, "inner_aval") for v in (*eqn.invars, *eqn.outvars)):
                raise MutableStateError
            args = [_read(v, values) for v in eqn.invars]
            values |= zip(eqn.outvars, self.equation(eqn, args), strict=True)

    def program(self, jaxpr: Any, args: Sequence[Value]) -> list[Value]:
        """The results of a program inside of an equation."""
        inner = getattr(jaxpr, "jaxpr", jaxpr)
        values = dict(zip(inner.invars, args, strict=True))
        consts = getattr(jaxpr, "consts", [None] * len(inner.constvars))
        values |= {v: Value(None, _as_entries(c)) for v, c in zip(inner.constvars, consts, strict=True)}
        self.through(inner.eqns, values)
        return [_read(v, values) for v in inner.outvars]

    def equation(self, eqn: Any, args: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name in INNER_PROGRAM:
            return self.program(eqn.params[INNER_PROGRAM[name]], args)
        if all(a.sets is None for a in args):
            entries = folded(eqn, [a.entries for a in args])
            return [Value(None, entries) for _ in eqn.outvars]
        rule = RULES.get(name, _by_position)
        found = rule(self, eqn, args)
        return [Value(_small(s, v)) for s, v in zip(found, eqn.outvars, strict=True)]


def _small(sets: Sets | None, var: Any) -> Sets | None:
    if sets is None:
        return None
    sets = np.asarray(sets, object)  # NumPy makes an integer of what has no dimension
    if sets.size <= MAX_SETS:
        return sets
    return _uniform(_union(sets), var)


def _there(value: Value, var: Any) -> Sets:
    """The sets of a variable, also where all are empty."""
    return _uniform(0, var) if value.sets is None else value.sets


def _union(sets: Sets | None) -> int:
    return 0 if sets is None else int(reduce(int.__or__, sets.reshape(-1).tolist(), 0))


def _uniform(elements: int, var: Any) -> Sets:
    return np.full((1,) * len(shape_of(var)), elements, object)


def _either(*sets: Sets | None) -> Sets | None:
    there = [s for s in sets if s is not None]
    return reduce(np.bitwise_or, there) if there else None


def _along(sets: Sets | None, rank: int, axis: int, size: int) -> Sets:
    """The sets with every element of one dimension."""
    sets = np.zeros((1,) * rank, object) if sets is None else sets
    return np.repeat(sets, size, axis) if sets.shape[axis] != size else sets


def _merged(sets: Sets, axes: Sequence[int]) -> Sets:
    """Unions along dimensions, which stay with size 1."""
    many = tuple(d for d in axes if sets.shape[d] > 1)
    return np.bitwise_or.reduce(sets, axis=many, keepdims=True) if many else sets


Rule = Callable[[_Reader, Any, list[Value]], list[Sets | None]]


def _all(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    """Every element of a result depends on everything."""
    every = reduce(int.__or__, (_union(a.sets) for a in args), 0)
    return [_uniform(every, v) for v in eqn.outvars]


def _by_position(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    """Dimensions that are kept, as `primitives` knows them, and unions over the others."""
    out = []
    for var, maps in zip(eqn.outvars, position_maps(eqn), strict=True):
        parts = []
        for a, dims in zip(args, maps, strict=True):
            if a.sets is None or dims is UNUSED:
                continue
            kept = sorted((e, d) for d, e in enumerate(dims) if e is not None)
            sets = _merged(a.sets, [d for d, e in enumerate(dims) if e is None])
            sets = np.transpose(sets, [d for _, d in kept] + [d for d, e in enumerate(dims) if e is None])
            sizes = [1] * len(shape_of(var))
            for e, d in kept:
                sizes[e] = a.sets.shape[d]
            parts.append(sets.reshape(sizes))
        out.append(_either(*parts))
    return out


def _select(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    """By a condition that is known, one case at each entry."""
    which, *cases = args
    shape = shape_of(eqn.outvars[0])
    if which.entries is None or prod(shape) > MAX_SETS:
        return _by_position(reader, eqn, args)
    there = [np.broadcast_to(_there(a, v), shape) for a, v in zip(cases, eqn.invars[1:], strict=True)]
    place = np.broadcast_to(which.entries.astype(int), shape)
    found = np.zeros(shape, object)
    for k, sets in enumerate(there):
        found = np.where(place == k, sets, found)
    return [_compressed(found)]


def _slice(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    sets, p = _there(args[0], eqn.invars[0]), eqn.params
    strides = p["strides"] or (1,) * sets.ndim
    where = zip(sets.shape, p["start_indices"], p["limit_indices"], strides, strict=True)
    return [sets[tuple(slice(None) if n == 1 else slice(lo, hi, by) for n, lo, hi, by in where)]]


def _rev(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    return [np.flip(_there(args[0], eqn.invars[0]), eqn.params["dimensions"])]


def _concatenate(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    axis, rank = eqn.params["dimension"], len(shape_of(eqn.outvars[0]))
    parts = [_along(a.sets, rank, axis, shape_of(v)[axis]) for a, v in zip(args, eqn.invars, strict=True)]
    sizes = [max(p.shape[d] for p in parts) for d in range(rank)]
    shapes = [[p.shape[d] if d == axis else sizes[d] for d in range(rank)] for p in parts]
    return [np.concatenate([np.broadcast_to(p, s) for p, s in zip(parts, shapes, strict=True)], axis)]


def _split(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    axis, sets = eqn.params["axis"], _there(args[0], eqn.invars[0])
    ends = np.cumsum(eqn.params["sizes"])[:-1]
    return [*np.split(sets, ends, axis)] if sets.shape[axis] > 1 else [sets for _ in eqn.outvars]


def _pad(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    config, shape = eqn.params["padding_config"], shape_of(eqn.invars[0])
    if any(low < 0 or high < 0 for low, high, _ in config):
        return _by_position(reader, eqn, args)
    sets, filled = _there(args[0], eqn.invars[0]), _union(args[1].sets)
    moved = [d for d, c in enumerate(config) if tuple(c) != (0, 0, 0)]
    for d in moved:
        sets = _along(sets, len(shape), d, shape[d])
    sizes = [n if d in moved else sets.shape[d] for d, n in enumerate(shape_of(eqn.outvars[0]))]
    out = np.full(sizes, filled, object)
    where = [slice(lo, lo + (n - 1) * (by + 1) + 1, by + 1) for (lo, _, by), n in zip(config, shape, strict=True)]
    out[tuple(w if d in moved else slice(None) for d, w in enumerate(where))] = sets
    return [out]


def _reshape(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    old, new, sets = shape_of(eqn.invars[0]), list(shape_of(eqn.outvars[0])), _there(args[0], eqn.invars[0])
    dims = position_maps(eqn)[0][0] or ()
    if eqn.params.get("dimensions") is not None or len(args) > 1:
        return _all(reader, eqn, args)
    if all(n == 1 for n in sets.shape):
        return [sets.reshape((1,) * len(new))]
    # Kept dimensions along which all is the same stay so.
    same = {d: e for d, e in enumerate(dims) if e is not None and sets.shape[d] == 1}
    full = [1 if d in same else n for d, n in enumerate(old)]
    for e in same.values():
        new[e] = 1
    if prod(full) > MAX_SETS:
        return _all(reader, eqn, args)
    return [_compressed(np.broadcast_to(sets, full).reshape(new))]


def _compressed(sets: Sets) -> Sets:
    """With size 1 where all along a dimension is the same."""
    for d in range(sets.ndim):
        first = np.take(sets, [0], d) if sets.shape[d] else sets
        sets = first if sets.shape[d] > 1 and bool(np.all(sets == first)) else sets
    return sets


def _cumulative(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    axis = eqn.params["axis"]
    sets = _along(args[0].sets, len(shape_of(eqn.invars[0])), axis, shape_of(eqn.invars[0])[axis])
    turn = (lambda x: np.flip(x, axis)) if eqn.params["reverse"] else (lambda x: x)
    return [turn(np.bitwise_or.accumulate(turn(sets), axis))]


def _gather(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    operand, index = args
    numbers, rank = eqn.params["dimension_numbers"], len(shape_of(eqn.outvars[0]))
    batch = [e for e in range(rank) if e not in numbers.offset_dims]
    parts = [] if operand.sets is None else [_looked_up(reader, eqn, operand.sets, index, batch)]
    if index.sets is not None:
        last = index.sets.ndim - 1
        parts.append(_in_batch(_merged(index.sets, [last])[..., 0], batch, rank))
    return [_either(*parts)]


def _looked_up(reader: _Reader, eqn: Any, sets: Sets, index: Value, batch: Sequence[int]) -> Sets:
    """The sets of the entries that a lookup takes; of those that an unknown index may take, the union."""
    numbers, sizes, shape = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], shape_of(eqn.invars[0])
    rank = len(shape_of(eqn.outvars[0]))
    if index.entries is None:
        unknown = [d for d in numbers.start_index_map if sizes[d] < shape[d]]
        reader.by_data |= index.sets is None and any(sets.shape[d] > 1 for d in unknown)
        sets = _merged(sets, unknown)
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    window = dict(zip([d for d in range(len(shape)) if d not in gone], numbers.offset_dims, strict=True))
    batched = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    spread = lambda n, axis: np.arange(n).reshape([-1 if e == axis else 1 for e in range(rank)])  # noqa: E731
    places = [np.zeros((1,) * rank, int) for _ in shape]
    for d, n in enumerate(shape):
        if sets.shape[d] == 1:
            continue
        if d in numbers.start_index_map and index.entries is not None:
            starts = index.entries[..., numbers.start_index_map.index(d)].astype(int)
            places[d] = places[d] + _in_batch(np.clip(starts, 0, n - sizes[d]), batch, rank)
        if d in window:
            places[d] = places[d] + spread(sizes[d], window[d])
        if d in batched:
            places[d] = places[d] + spread(n, batch[batched[d]])
    found = np.asarray(sets[tuple(places)], object)
    return found.reshape(np.broadcast_shapes((1,) * rank, *(p.shape for p in places)))


def _in_batch(array: np.ndarray, batch: Sequence[int], rank: int) -> np.ndarray:
    """An array over the batch dimensions of a lookup, where its result has them."""
    full = [1] * rank
    for e, n in zip(batch, array.shape, strict=True):
        full[e] = n
    return array.reshape(full)


def _dynamic_slice(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    operand, *starts = args
    shape, sizes, sets = shape_of(eqn.invars[0]), eqn.params["slice_sizes"], operand.sets
    extra = reduce(int.__or__, (_union(s.sets) for s in starts), 0)
    if sets is None:
        return [_uniform(extra, eqn.outvars[0])]
    for d, start in enumerate(starts[: len(shape)]):
        if sizes[d] == shape[d] or sets.shape[d] == 1:
            continue
        if start.entries is None:
            reader.by_data |= start.sets is None
            sets = _merged(sets, [d])
        else:
            first = int(np.clip(start.entries, 0, shape[d] - sizes[d]))
            sets = np.take(sets, np.arange(first, first + sizes[d]), d)
    return [np.bitwise_or(sets, extra)]


def _cond(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    index, *operands = args
    branches = [reader.program(b, operands) for b in eqn.params["branches"]]
    chosen = [_uniform(_union(index.sets), v) for v in eqn.outvars]
    return [_either(c, *(v.sets for v in values)) for c, *values in zip(chosen, *branches, strict=True)]


def _scan(reader: _Reader, eqn: Any, args: list[Value]) -> list[Sets | None]:
    length, body = eqn.params["length"], eqn.params["jaxpr"]
    num_consts, num_carry = scan_counts(eqn)
    if not 0 < length <= MAX_STEPS:
        return _all(reader, eqn, args)
    consts, carry, stacked = (
        args[:num_consts],
        args[num_consts : num_consts + num_carry],
        args[num_consts + num_carry :],
    )
    rows: list[list[Sets | None]] = []
    steps = range(length)[::-1] if eqn.params["reverse"] else range(length)
    for t in steps:
        made = reader.program(body, [*consts, *carry, *(_row(v, t) for v in stacked)])
        carry = made[:num_carry]
        rows.append([v.sets for v in made[num_carry:]])
    rows = rows[::-1] if eqn.params["reverse"] else rows
    ends = [v.sets for v in carry]
    return [*ends, *(_stacked(list(column)) for column in zip(*rows, strict=True))]


def _row(value: Value, step: int) -> Value:
    sets = None if value.sets is None else value.sets[0 if value.sets.shape[0] == 1 else step]
    entries = None if value.entries is None else value.entries[step]
    return Value(None if sets is None else np.asarray(sets, object), entries)


def _stacked(rows: list[Sets | None]) -> Sets | None:
    there = [r for r in rows if r is not None]
    if not there:
        return None
    shape = np.broadcast_shapes(*(r.shape for r in there))
    none = np.zeros(shape, object)
    return np.stack([none if r is None else np.broadcast_to(r, shape) for r in rows])


RULES: dict[str, Rule] = {
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], _cumulative),
    "concatenate": _concatenate,
    "cond": _cond,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "scan": _scan,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "while": _all,
}
