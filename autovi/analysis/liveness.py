"""Which elements of a value can some outputs feel? The masks and choices of a program, followed backward.

`dependence.py` tells which positions of an output hang on which of an input, whatever the data are. Here data decide:
`where(seen, y, z)` feels z where `seen` is off, and a masked term feels nothing where its mask is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from autovi.analysis.live_steps import steps_felt
from autovi.analysis.primitives import INNER_PROGRAM, DimMap, position_maps, shape_of
from autovi.model.graph import Graph

Read = Callable[[Any], Any]  # variable -> its array, None where it is not fixed


def live(graph: Graph, outputs: Mapping[Any, Array], wanted: Any, fixed: Read) -> Array:
    """The elements of the variable `wanted` that the live elements of some variables may depend on.

    Args:
        graph: the program.
        outputs: variable -> which of its elements are live, a boolean array of its shape.
        fixed: the arrays of variables that do not change with `wanted`, None for others.

    Returns:
        A boolean array of the shape of `wanted`: False only where no live element can depend on it.
    """
    alive = _backward(graph, outputs, frozenset(graph.downstream([wanted])), fixed)
    return alive.get(wanted, jnp.zeros(shape_of(wanted), bool))


def _backward(graph: Graph, outputs: Mapping[Any, Array], moving: frozenset[Any], fixed: Read) -> dict[Any, Array]:
    alive = {var: mask for var, mask in outputs.items() if var in moving}
    for eqn in reversed(graph.eqns):
        outs = [alive.get(var) for var in eqn.outvars]
        if all(mask is None for mask in outs):
            continue
        for atom, mask in zip(eqn.invars, _operands(eqn, outs, moving, fixed), strict=True):
            if mask is not None and not isinstance(atom, Literal) and atom in moving:
                alive[atom] = alive[atom] | mask if atom in alive else mask
    return alive


def _operands(eqn: Any, outs: list[Array | None], moving: frozenset[Any], fixed: Read) -> list[Array | None]:
    """Which elements of every operand are felt."""
    if (body := _body(eqn)) is not None:
        return _inside(eqn, body, outs, moving, fixed)
    if eqn.primitive.name == "scan":
        moves = [_moves(atom, moving, fixed) for atom in eqn.invars]
        known = [None if m else _value(atom, fixed) for atom, m in zip(eqn.invars, moves, strict=True)]
        return steps_felt(eqn, outs, moves, known, _backward)
    if eqn.primitive.name == "dynamic_slice" and outs[0] is not None:
        places = [_value(atom, fixed) for atom in eqn.invars[1:]]
        if all(place is not None for place in places):
            none = jnp.zeros(shape_of(eqn.invars[0]), bool)
            return [lax.dynamic_update_slice(none, outs[0], places), *[None] * len(places)]
    maps = position_maps(eqn)
    felt: list[Array | None] = []
    for i, atom in enumerate(eqn.invars):
        found = [
            _onto(mask & _lets_through(eqn, i, fixed), maps[k][i], shape_of(atom))
            for k, mask in enumerate(outs)
            if mask is not None and maps[k][i] is not None
        ]
        felt.append(jnp.stack(found).any(0) if found else None)
    return felt


def _lets_through(eqn: Any, i: int, fixed: Read) -> Any:
    """Where an output feels operand `i` at all: a case that is chosen, a factor whose other one is not 0."""
    name = eqn.primitive.name
    if name == "select_n" and i > 0:
        which = _value(eqn.invars[0], fixed)
        return True if which is None else which.astype(int) == i - 1
    if name in ("mul", "and"):
        other = _value(eqn.invars[1 - i], fixed)
        return True if other is None else other != 0
    return True


def _moves(atom: Any, moving: frozenset[Any], fixed: Read) -> bool:
    """Does it change with what is asked for? What comes out of a scan beside what changes may be known."""
    return not isinstance(atom, Literal) and atom in moving and fixed(atom) is None


def _value(atom: Any, fixed: Read) -> Any:
    return jnp.asarray(atom.val) if isinstance(atom, Literal) else fixed(atom)


def _onto(mask: Array, dims: DimMap | None, shape: tuple[int, ...]) -> Array:
    """Live elements of an output, moved to an operand whose dimension d is the output's `dims[d]`."""
    assert dims is not None
    kept = [e for e in dims if e is not None]
    if len(set(kept)) < len(kept):
        return jnp.broadcast_to(jnp.any(mask), shape)
    mask = jnp.any(mask, axis=tuple(e for e in range(mask.ndim) if e not in kept))
    mask = jnp.transpose(mask, [sorted(kept).index(e) for e in kept])
    return jnp.broadcast_to(jnp.expand_dims(mask, [d for d, e in enumerate(dims) if e is None]), shape)


def _body(eqn: Any) -> ClosedJaxpr | None:
    """The program that an equation calls once, on its operands as they are."""
    body = eqn.params.get(INNER_PROGRAM.get(eqn.primitive.name, ""))
    if body is None:
        return None
    body = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, [])
    matches = len(body.jaxpr.invars) == len(eqn.invars) and len(body.jaxpr.outvars) == len(eqn.outvars)
    return body if matches and not body.jaxpr.constvars else None


def _inside(
    eqn: Any, body: ClosedJaxpr, outs: list[Array | None], moving: frozenset[Any], fixed: Read
) -> list[Array | None]:
    inner = body.jaxpr
    graph = Graph(body, list(inner.eqns), {}, {str(i): v for i, v in enumerate(inner.invars)}, {})
    outside = dict(zip(inner.invars, eqn.invars, strict=True))
    enters = [v for v, atom in outside.items() if _moves(atom, moving, fixed)]
    inside = frozenset(graph.downstream(enters))
    known: dict[Any, Any] = {}

    def fixed_inside(var: Any) -> Any:
        if var in inside:
            return None
        if var in outside:
            return _value(outside[var], fixed)
        if var not in known:
            _, used = graph.needed([var], outside.__contains__)
            given = {v: _value(outside[v], fixed) for v in used}
            unknown = any(value is None for value in given.values())
            known[var] = None if unknown else graph.evaluate([var], given.__contains__, given.__getitem__)[var]
        return known[var]

    ends: dict[Any, Array] = {}
    for var, mask in zip(inner.outvars, outs, strict=True):
        if mask is not None and not isinstance(var, Literal):
            ends[var] = ends[var] | mask if var in ends else mask
    alive = _backward(graph, ends, inside, fixed_inside)
    return [alive.get(v) for v in inner.invars]
