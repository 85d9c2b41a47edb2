"""Cost terms that are computed alike from different values, found so that they are computed together.

A model with hundreds of scalar sites written as a Python loop is hundreds of small programs of one shape. XLA compiles
each on its own, which takes longer than all the steps; one program over a vector takes no longer than one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from autovi.model.graph import Graph

FEWEST = 8  # terms that are worth it


@dataclass(frozen=True, eq=False)
class Alike:
    """Scalar terms whose parts of a graph have one shape: each is the sum of the outputs of its part.

    `inputs` holds for every term the variables that its part reads, in one order.
    """

    names: tuple[str, ...]
    template: Callable[..., Any]
    inputs: tuple[tuple[Any, ...], ...]

    def evaluate(self, read: Callable[[Any], Any], together: Callable[[Sequence[Any]], Any]) -> jax.Array:
        """All terms `[terms]`, from `read(variable)` and `together(variables)`, which stacks them."""
        columns = [list(column) for column in zip(*self.inputs, strict=True)]
        common = [all(var is column[0] for var in column) for column in columns]
        values = [read(c[0]) if same else together(c) for c, same in zip(columns, common, strict=True)]
        one = lambda *args: sum(self.template(*args))  # noqa: E731
        if all(common):  # nothing differs: one evaluation serves all
            return jnp.broadcast_to(one(*values), len(self.names))
        return jax.vmap(one, in_axes=[None if same else 0 for same in common])(*values)


def find_alike(graph: Graph, terms: Mapping[str, Collection[str]], given: Collection[Any]) -> list[Alike]:
    """Groups of scalar terms whose parts of the graph have the same shape, from the `given` variables on, and from the
    graph's inputs and constants. `terms` names the outputs that each term is the sum of."""
    known = {*given, *graph.inputs.values(), *graph.constants}
    groups: dict[Any, list[tuple[str, list[int], list[Any]]]] = {}
    for name, outputs in terms.items():
        variables = [graph.outputs[o] for o in outputs]
        if any(isinstance(v, Literal) or v in known or v.aval.shape for v in variables):
            continue
        equations, used = graph.needed(variables, known.__contains__)
        among = set(used)
        inputs = [v for v in _in_order(graph, equations) if v in among]
        groups.setdefault(_shape(graph, equations, inputs, variables), []).append((name, equations, inputs))
    return [_group(graph, parts, terms) for parts in groups.values() if len(parts) >= FEWEST]


def _in_order(graph: Graph, equations: list[int]) -> list[Any]:
    """The variables that equations read, in the order of their first use."""
    return list(dict.fromkeys(v for i in equations for v in graph.eqns[i].invars if not isinstance(v, Literal)))


def _shape(graph: Graph, equations: list[int], inputs: list[Any], outputs: list[Any]) -> Any:
    """What two parts must have in common to be computed together: all but which variables they read."""
    names = {v: ("input", i, str(v.aval)) for i, v in enumerate(inputs)}
    shape: list[Any] = []
    for i in equations:
        eqn = graph.eqns[i]
        read = tuple(("literal", repr(v.val), str(v.aval)) if isinstance(v, Literal) else names[v] for v in eqn.invars)
        shape.append((eqn.primitive.name, _settings(eqn.params), read))
        names |= {v: ("made", len(shape), str(k)) for k, v in enumerate(eqn.outvars)}
    return (*shape, *(names[v] for v in outputs))


def _settings(params: Mapping[str, Any]) -> Any:
    # JAX keeps the programs inside of equations, so that equal ones are mostly one object.
    keep = lambda v: id(v) if isinstance(v, ClosedJaxpr | Jaxpr) or callable(v) else repr(v)  # noqa: E731
    return tuple((name, keep(value)) for name, value in sorted(params.items()))


def _group(graph: Graph, parts: list[tuple[str, list[int], list[Any]]], terms: Mapping[str, Collection[str]]) -> Alike:
    name, equations, inputs = parts[0]
    outputs = [graph.outputs[o] for o in terms[name]]
    template = jaxpr_as_fun(ClosedJaxpr(graph.part(inputs, outputs, [graph.eqns[i] for i in equations]), []))
    return Alike(tuple(n for n, _, _ in parts), template, tuple(tuple(i) for _, _, i in parts))
