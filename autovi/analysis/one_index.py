"""Looking up one row for all elements, where a site is set to the same value in every one of them.

What is summed over the values k of a site `z[n]` asks for `means[z]` with z = (k, k, ...): as it was traced a gather of
as many rows as the site has elements, and a scatter-add of as many in the backward pass. One row, broadcast, is the
same.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from autovi.analysis.primitives import COPYING, ELEMENTWISE, shape_of
from autovi.model.graph import Graph

KEEPING = ELEMENTWISE | COPYING | {"slice"}  # of elements that are alike they make elements that are
CALLS = ("jit", "pjit")


def lookups_of_one(graph: Graph, variables: Collection[Any]) -> dict[int, Any]:
    """Equations to be evaluated in the place of others, by their position in `graph.eqns`, while all elements of each
    of the `variables` are the same: gathers at indices that depend on those alone look up one row, and broadcast it."""
    alike, todo, found = set(variables), list(variables), {}
    while todo:
        for i in graph.positions(todo.pop()):
            if (other := _rewritten(graph.eqns[i], alike)) is not None:
                found[i] = other
            new = [v for v in graph.eqns[i].outvars if v not in alike and _keeps(graph.eqns[i], alike)]
            alike.update(new)
            todo.extend(new)
    return found


def _rewritten(eqn: Any, alike: Collection[Any]) -> Any:
    """The equation with its gathers replaced; None where there are none to be."""
    if eqn.primitive.name == "gather":
        return _of_one_row(eqn) if _is_alike(eqn.invars[1], alike) and _is_several(eqn) else None
    if eqn.primitive.name not in CALLS:
        return None
    inner = eqn.params["jaxpr"]
    known = {v for v, outer in zip(inner.jaxpr.invars, eqn.invars, strict=True) if _is_alike(outer, alike)}
    eqns = []
    for e in inner.jaxpr.eqns:
        eqns.append(_rewritten(e, known) or e)
        if _keeps(e, known):
            known.update(e.outvars)
    if all(new is old for new, old in zip(eqns, inner.jaxpr.eqns, strict=True)):
        return None
    rewritten = ClosedJaxpr(inner.jaxpr.replace(eqns=eqns), inner.consts)
    return eqn.replace(params={**eqn.params, "jaxpr": rewritten})


def _is_alike(atom: Any, alike: Collection[Any]) -> bool:
    return isinstance(atom, Literal) or getattr(atom.aval, "size", 0) == 1 or atom in alike


def _keeps(eqn: Any, alike: Collection[Any]) -> bool:
    """Are all elements of each output the same, since they are of each operand?"""
    if not all(_is_alike(v, alike) for v in eqn.invars):
        return False
    if eqn.primitive.name in CALLS:
        inner = eqn.params["jaxpr"].jaxpr
        known = set(inner.invars)
        return all(_keeps(e, known) and not known.update(e.outvars) for e in inner.eqns)  # type: ignore[func-returns-value]
    return eqn.primitive.name in KEEPING


def _is_several(eqn: Any) -> bool:
    """Is there more than one index vector?"""
    return max(shape_of(eqn.invars[1])[:-1], default=1) > 1 and eqn.outvars[0].aval.size > 0


def _of_one_row(eqn: Any) -> Any:
    """The equation that makes the same of the first index vector."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    operand, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    collapsed, batching = numbers.collapsed_slice_dims, numbers.operand_batching_dims
    kept = [d for d in range(len(operand)) if d not in collapsed]
    # Where each of them goes: those that are gone through together with the indices to their place among these.
    batch_out = [e for e in range(len(out)) if e not in numbers.offset_dims]
    to_out = {d: batch_out[j] for d, j in zip(batching, numbers.start_indices_batching_dims, strict=True)}
    to_out |= dict(zip([d for d in kept if d not in batching], numbers.offset_dims, strict=True))
    order = sorted(range(len(kept)), key=lambda i: to_out[kept[i]])
    look_up = partial(
        lax.gather,
        dimension_numbers=lax.GatherDimensionNumbers(tuple(range(len(kept))), collapsed, numbers.start_index_map),
        slice_sizes=tuple(operand[d] if d in batching else n for d, n in enumerate(params["slice_sizes"])),
        mode=params["mode"],
        fill_value=params["fill_value"],
    )

    @jax.jit
    def one_row(operand: jax.Array, indices: jax.Array) -> jax.Array:
        first = indices[(0,) * (indices.ndim - 1)]
        row = lax.transpose(look_up(operand, first), order)
        return lax.broadcast_in_dim(row, out, sorted(to_out[d] for d in kept))

    traced = jax.make_jaxpr(one_row)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars))
    return traced.eqns[0].replace(invars=eqn.invars, outvars=eqn.outvars)
