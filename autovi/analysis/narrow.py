"""Evaluates a part of a graph without repeating what is the same: along a dimension in which an array is constant it
has size 1.

Where all elements of a site are set to one value, much of what is downstream is the same for all elements and all steps
of a scan: a table of transitions for one step is that for every step. XLA would compute it as often as there are
elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from autovi.analysis.primitives import ELEMENTWISE
from autovi.model.graph import Graph, Values
from autovi.model.side_by_side import TOO_EARLY, read_atom

CALLS = ("jit", "pjit", "closed_call")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_prod")


def evaluate_narrow(
    graph: Graph,
    wanted: Iterable[Any],
    known: Callable[[Any], bool],
    read: Callable[[Any], Any],
    step: int | None = None,
) -> Values:
    """As `Graph.evaluate`, where known arrays, and what is returned, may have size 1 along dimensions in which they are
    constant. With a `step`, all steps of scans that stand side by side have as many steps before them as that one."""
    ends = [v for v in wanted if not isinstance(v, Literal)]
    anew = graph.downstream(_too_early(graph)) if step is not None else set()

    def there(v: Any) -> bool:
        """Is it to be read as it is? What was made of fewer numbers is made of them again."""
        if v in graph.constants:
            return True
        return known(v) and v not in anew and not _is_repeated(graph.maker(v), known, graph)

    places, used = graph.needed(ends, there)
    values: Values = {v: read(v) if known(v) else graph.constants[v] for v in used}
    _Narrow(graph, step).run([graph.eqns[i] for i in places], values)
    return values


def _too_early(graph: Graph) -> list[Any]:
    named = [eqn for eqn in graph.eqns if eqn.primitive.name == "name"]
    return [eqn.outvars[0] for eqn in named if eqn.params["name"].startswith(TOO_EARLY)]


def _is_repeated(eqn: Any, known: Callable[[Any], bool], graph: Graph) -> bool:
    """Is it the equation that repeats an array which is known?"""
    if eqn is None or eqn.primitive.name != "broadcast_in_dim" or len(eqn.invars) != 1:
        return False
    (operand,) = eqn.invars
    return isinstance(operand, Literal) or known(operand) or operand in graph.constants


@dataclass(frozen=True)
class _Narrow:
    graph: Graph
    step: int | None

    def run(self, eqns: Sequence[Any], values: Values) -> None:
        for eqn in eqns:
            args = [read_atom(v, values) for v in eqn.invars]
            values.update(zip(eqn.outvars, self._applied(eqn, args), strict=True))

    def _applied(self, eqn: Any, args: list[Any]) -> Sequence[Any]:
        name = eqn.primitive.name
        if name == "name" and self.step is not None and eqn.params["name"].startswith(TOO_EARLY):
            lag = int(eqn.params["name"].removeprefix(TOO_EARLY))
            return [jnp.full((1,) * args[0].ndim, self.step < lag)]
        if name == "broadcast_in_dim" and len(args) == 1:
            return [_broadcast(eqn, args[0])]
        if name in CALLS:
            return self._called(eqn, args)
        if all(jnp.shape(x) == v.aval.shape for x, v in zip(args, eqn.invars, strict=True)):
            return _whole(self.graph, eqn, args)
        if name in ELEMENTWISE and len(eqn.outvars) == 1:
            return [_elementwise(eqn, args)]
        made = RULES[name](eqn, args) if name in RULES else None
        return _whole(self.graph, eqn, args) if made is None else [made]

    def _called(self, eqn: Any, args: list[Any]) -> Sequence[Any]:
        inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        values: Values = dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
        values |= dict(zip(inner.jaxpr.invars, args, strict=True))
        self.run(inner.jaxpr.eqns, values)
        return [read_atom(v, values) for v in inner.jaxpr.outvars]


def _whole(graph: Graph, eqn: Any, args: list[Any]) -> Sequence[Any]:
    """The equation as it is, of arrays of its own shapes."""
    full = [_full(x, v) for x, v in zip(args, eqn.invars, strict=True)]
    operands = [v for v in eqn.invars if not isinstance(v, Literal)]
    unique = list(dict.fromkeys(operands))
    known = {v: x for v, x in zip(eqn.invars, full, strict=True) if not isinstance(v, Literal)}
    part = graph.part(unique, list(eqn.outvars), [eqn])
    return jaxpr_as_fun(ClosedJaxpr(part, []))(*(known[v] for v in unique))


def _full(x: Any, var: Any) -> Any:
    return x if jnp.shape(x) == var.aval.shape else jnp.broadcast_to(x, var.aval.shape)


def _broadcast(eqn: Any, x: Any) -> Any:
    shape = [1] * len(eqn.params["shape"])
    for place, d in enumerate(eqn.params["broadcast_dimensions"]):
        shape[d] = x.shape[place]
    return lax.broadcast_in_dim(x, shape, eqn.params["broadcast_dimensions"])


def _elementwise(eqn: Any, args: list[Any]) -> Any:
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in args))
    alone = [v.aval.shape == () for v in eqn.invars]  # a predicate, or a bound, may be one for all
    if any(alone) and eqn.outvars[0].aval.shape:
        shape = jnp.broadcast_shapes(shape, (1,) * len(eqn.outvars[0].aval.shape))
    args = [x if one else jnp.broadcast_to(x, shape) for x, one in zip(args, alone, strict=True)]
    return eqn.primitive.bind(*args, **eqn.params)


def _squeezed(eqn: Any, args: list[Any]) -> Any:
    return lax.squeeze(args[0], eqn.params["dimensions"])


def _transposed(eqn: Any, args: list[Any]) -> Any:
    return lax.transpose(args[0], eqn.params["permutation"])


def _reshaped(eqn: Any, args: list[Any]) -> Any:
    """Where dimensions of size 1 come or go alone."""
    old, new = eqn.invars[0].aval.shape, eqn.params["new_sizes"]
    if eqn.params.get("dimensions") is not None or [n for n in old if n != 1] != [n for n in new if n != 1]:
        return None
    sizes = iter(m for m, n in zip(args[0].shape, old, strict=True) if n != 1)
    return args[0].reshape([1 if n == 1 else next(sizes) for n in new])


def _reduced(eqn: Any, args: list[Any]) -> Any:
    full, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    x = jnp.broadcast_to(args[0], [full[d] if d in axes else n for d, n in enumerate(args[0].shape)])
    return eqn.primitive.bind(x, **eqn.params)


def _concatenated(eqn: Any, args: list[Any]) -> Any:
    along = eqn.params["dimension"]
    others = jnp.broadcast_shapes(*((*x.shape[:along], 1, *x.shape[along + 1 :]) for x in args))
    shape = lambda v: [v.aval.shape[d] if d == along else n for d, n in enumerate(others)]  # noqa: E731
    return lax.concatenate([jnp.broadcast_to(x, shape(v)) for x, v in zip(args, eqn.invars, strict=True)], along)


def _gathered(eqn: Any, args: list[Any]) -> Any:
    """Of indices that are the same along some of their dimensions, one row for all."""
    numbers, (operand, indices) = eqn.params["dimension_numbers"], args
    pairs = list(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    to, at = list(eqn.invars[0].aval.shape), list(indices.shape)
    at[-1] = eqn.invars[1].aval.shape[-1]
    for mine, theirs in pairs:
        to[mine] = at[theirs] = max(operand.shape[mine], indices.shape[theirs])
    if prod(at) == prod(eqn.invars[1].aval.shape):
        return None
    return eqn.primitive.bind(jnp.broadcast_to(operand, to), jnp.broadcast_to(indices, at), **eqn.params)


RULES: dict[str, Callable[[Any, list[Any]], Any]] = {
    "squeeze": _squeezed,
    "transpose": _transposed,
    "reshape": _reshaped,
    "concatenate": _concatenated,
    "gather": _gathered,
    **dict.fromkeys(REDUCTIONS, _reduced),
}
