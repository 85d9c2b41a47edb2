"""After how many steps is nothing left of an array that a loop carries? An array that holds the last values of
something, as `jnp.concatenate([new[None], last[:-1]])` makes it anew, forgets one of them at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import Literal

from autovi.model.graph import Graph

# Operations that only move entries, on arrays that say where each entry comes from.
MOVES: dict[str, Any] = {
    "broadcast_in_dim": lambda p, x: np.broadcast_to(
        np.expand_dims(x, [d for d in range(len(p["shape"])) if d not in p["broadcast_dimensions"]]), p["shape"]
    ),
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "convert_element_type": lambda p, x: x,
    "copy": lambda p, x: x,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "slice": lambda p, x: x[
        tuple(map(slice, p["start_indices"], p["limit_indices"], p["strides"] or [1] * np.ndim(x)))
    ],
    "stack": lambda p, *xs: np.stack(xs, p["axis"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
}


def steps_to_forget(body: Graph, before: Any, after: Any) -> int | None:
    """The number of steps after which no entry of `before` is an entry of `after`; None where `after` is computed from
    entries of `before`, or keeps some."""
    ids = np.arange(1, before.aval.size + 1).reshape(before.aval.shape)
    made = {v: eqn for eqn in body.eqns for v in eqn.outvars}
    origin = _origins(made, after, {before: ids})
    if origin is None or origin.shape != ids.shape:
        return None
    comes_from = np.concatenate([[0], origin.ravel()])
    here, steps = comes_from, 1
    while here.any():
        if steps > before.aval.size:
            return None
        here, steps = comes_from[here], steps + 1
    return steps


def _origins(made: dict[Any, Any], atom: Any, known: dict[Any, Any]) -> Any:
    """For each entry of a variable the entry that it was, counted from 1; 0 for what is none of them; None where it may
    be computed from some. `made` has the equations that make variables."""
    new = np.zeros(atom.aval.shape, int)
    if isinstance(atom, Literal):
        return new
    if atom not in known:
        eqn = made.get(atom)
        operands = [] if eqn is None else [_origins(made, v, known) for v in eqn.invars]
        if all(x is not None and not x.any() for x in operands):
            known[atom] = new
        else:
            known[atom] = None if any(x is None for x in operands) else _moved(eqn, atom, operands)
    return known[atom]


def _moved(eqn: Any, atom: Any, operands: list[Any]) -> Any:
    """The same for one result of an equation, by its operands'."""
    name = eqn.primitive.name
    if name in ("jit", "pjit"):
        inner = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
        made = {v: e for e in inner.eqns for v in e.outvars}
        result = inner.outvars[next(i for i, v in enumerate(eqn.outvars) if v is atom)]
        return _origins(made, result, dict(zip(inner.invars, operands, strict=True)))
    move = MOVES.get(name)
    return None if move is None else move(eqn.params, *operands)
