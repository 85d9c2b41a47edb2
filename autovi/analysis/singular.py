"""Which operations below a site have an infinite derivative somewhere, and stand before a `where`."""

from __future__ import annotations

from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from autovi.model.graph import Graph

SINGULAR = frozenset(
    {"sqrt", "rsqrt", "cbrt", "log", "log1p", "pow", "div", "asin", "acos", "acosh", "atanh", "erf_inv"}
)


def singular_operations(graph: Graph, site: str) -> set[str]:
    """The operations on values that depend on a site and that a `where` may leave unused."""
    if f"node:{site}" not in graph.inputs:
        return set()
    below = graph.downstream([graph.inputs[f"node:{site}"]])
    used = [eqn for eqn in graph.eqns if any(v in below for v in eqn.invars if not isinstance(v, Literal))]
    wanted = {v for eqn in used if _holds(eqn, {"select_n"}) for v in eqn.invars if not isinstance(v, Literal)}
    found: set[str] = set()
    for eqn in reversed(used):
        if any(v in wanted for v in eqn.outvars):
            found |= {name for name in SINGULAR if _holds(eqn, {name})}
            wanted |= {v for v in eqn.invars if not isinstance(v, Literal)}
    return found


def _holds(item: Any, names: set[str]) -> bool:
    """Is an operation of these names in an equation, or in the programs inside of it?"""
    if isinstance(item, ClosedJaxpr):
        item = item.jaxpr
    if isinstance(item, Jaxpr):
        return any(_holds(eqn, names) for eqn in item.eqns)
    if hasattr(item, "primitive"):
        return item.primitive.name in names or any(_holds(param, names) for param in item.params.values())
    return isinstance(item, tuple | list) and any(_holds(part, names) for part in item)
