"""What a program's outputs depend on, read from its jaxpr without computing anything: for functions and for graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from autovi.analysis.interpreter import MutableStateError, Value, is_inexact, run
from autovi.analysis.paths import Dependence, Since, joined, joined_since
from autovi.analysis.primitives import shape_of
from autovi.model.graph import Graph

__all__ = ["Dependence", "Since", "analyse", "analyse_graph", "analyse_variable", "joined", "joined_since"]

REFS = frozenset({"ref"})  # of programs that write to references, of which nothing is known


def analyse(
    fn: Callable[..., dict[str, Any]], tracked: dict[str, Any], *untracked: Any
) -> dict[str, dict[str, Dependence]]:
    """For each output of `fn(tracked, *untracked)`, the tracked inputs it may depend on, and how.

    `fn` returns a dictionary of arrays; the leaves of `tracked` (one array each) and `untracked` are arrays
    or `jax.ShapeDtypeStruct`. `fn` is traced once and nothing is computed. An input that is missing from an
    output's dictionary cannot influence it.

    Control flow and nested functions are followed; unknown primitives are taken to mix all positions and to
    jump. Under `while` and across the steps of `scan` a carried value keeps only what every step keeps.

    Raises TypeError if an entry of `tracked` or of the result is not one array.

    Example:
        >>> out = analyse(lambda t: {"y": t["mu"][t["z"]]}, {"mu": jnp.zeros(3), "z": jnp.zeros(5, int)})
        >>> out["y"]["z"].aligned, out["y"]["mu"].aligned
        ((0,), (None,))
    """
    _expect_arrays("tracked", tracked)
    closed, out_tree = jax.make_jaxpr(fn, return_shape=True)(tracked, *untracked)
    _expect_arrays("the result of fn", out_tree)
    names, out_names = sorted(tracked), sorted(out_tree)
    atoms = dict(zip(names, closed.jaxpr.invars[: len(names)], strict=True))
    sources = [Value({n: Dependence(tuple(range(len(shape_of(v)))))}) for n, v in atoms.items()]
    rest = [Value() for _ in closed.jaxpr.invars[len(names) :]]
    try:
        outs = run(closed, [*sources, *rest])
    except MutableStateError:
        lost = {n: Dependence((None,) * len(shape_of(v)), REFS, rules=REFS) for n, v in atoms.items()}
        outs = [Value(lost) for _ in out_names]
    report = dict(zip(out_names, outs, strict=True))
    floating = {n for n, v in atoms.items() if is_inexact(v)}
    return {
        out: {n: p if n in floating else Dependence(p.aligned, later=p.later) for n, p in value.paths.items()}
        for out, value in report.items()
    }


def analyse_graph(graph: Graph, tracked: Iterable[str], outputs: Iterable[str]) -> dict[str, dict[str, Dependence]]:
    """The same for named inputs and outputs of a graph, which is not traced again."""
    return _analysed(graph, {n: graph.inputs[n] for n in tracked}, outputs)


def analyse_variable(graph: Graph, variable: Any, outputs: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """How outputs of a graph are aligned with a variable that it makes, as if that were an input."""
    found = _analysed(graph, {"it": variable}, outputs)
    nowhere = (None,) * len(shape_of(variable))
    return {o: by["it"].aligned if "it" in by else nowhere for o, by in found.items()}


def _analysed(graph: Graph, tracked: dict[str, Any], outputs: Iterable[str]) -> dict[str, dict[str, Dependence]]:
    names, variables, out_names = list(tracked), list(tracked.values()), list(outputs)
    among = set(variables)
    others = [v for v in graph.inputs.values() if v not in among]
    wanted = [graph.outputs[n] for n in out_names]
    free = [*others, *graph.constants]
    eqns = [eqn for eqn in graph.eqns if not among.intersection(eqn.outvars)]
    jaxpr = graph.part([*variables, *free], wanted, eqns)
    known = [Value({n: Dependence(tuple(range(len(shape_of(v)))))}) for n, v in zip(names, variables, strict=True)]
    try:
        outs = run(jaxpr, [*known, *(Value() for _ in free)])
    except MutableStateError:
        pairs = zip(names, variables, strict=True)
        lost = {n: Dependence((None,) * len(shape_of(v)), REFS, rules=REFS) for n, v in pairs}
        outs = [Value(lost) for _ in out_names]
    floating = {n for n, v in zip(names, variables, strict=True) if is_inexact(v)}
    return {
        out: {n: p if n in floating else Dependence(p.aligned, later=p.later) for n, p in value.paths.items()}
        for out, value in zip(out_names, outs, strict=True)
    }


def _expect_arrays(what: str, tree: Any) -> None:
    if not isinstance(tree, dict):
        raise TypeError(f"{what}: expected a dict of arrays, got {type(tree).__name__}")
    for name, entry in tree.items():
        if not jax.tree_util.all_leaves([entry]):
            raise TypeError(f"{what}: expected one array under {name!r}, got {type(entry).__name__}")
