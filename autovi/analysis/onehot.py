"""Sites that take one of K values as vectors of weights w: what a program makes of them is linear in w.

What is made of a site's value through integers and booleans alone is like an index. The first floating values that come
of it, a row of a table, a branch of a `where`, a density, are v(k) at value k; weights give sum_k w_k v(k), which is
the program's own value where w is one-hot, and what comes after is a function of that. For elements of a plate each w_k
belongs to the v(k) of its own element, so that v has to be elementwise in the site.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.costs import Aligned, to_term
from autovi.analysis.interpreter import Dependence, MutableStateError, Value, run
from autovi.model.graph import Graph, Values, placeholder, trace
from autovi.model.traced import Traced


def one_hot(traced: Traced, names: Collection[str]) -> Traced:
    """The program with weights `[*batch, K]` in the place of the values of these sites, in the inputs "node:z".

    Raises:
        ValueError: something that is made of a site's value is not elementwise in it; the message names the site.
    """
    graph = traced.graph
    for name in sorted(names):
        sites = traced.sites if traced.guide_sites is None else traced.guide_sites
        values = sites.samples[name].values
        if values is None:
            raise _refused(name, "its numbers are those of an event, not elements of a plate")
        graph = _weighted(graph, name, np.asarray(values).astype(int))
    return replace(traced, graph=graph, one_hot=frozenset(names))


def _weighted(graph: Graph, name: str, values: np.ndarray) -> Graph:
    index = graph.inputs[f"node:{name}"]
    like, first = _first_floats(graph, index, name)
    aligned = _aligned(graph, index, list(first), name)

    def program() -> dict[str, Any]:
        shape = (*index.aval.shape, len(values))
        w = placeholder(f"node:{name}", shape, jnp.result_type(float))
        given = {v: placeholder(n, v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items() if v != index}
        known: Values = {**graph.constants, **given}
        known[index] = jnp.asarray(values, index.aval.dtype)[jnp.argmax(w, -1)]
        for eqn in graph.eqns:
            wanted = [v for v in eqn.outvars if graph.is_read(v)]
            chosen = [v for v in wanted if v in first]
            if chosen:
                stacked = _at_each(graph, chosen, index, like, known, values)
                known |= {v: _sum(w, x, aligned[v]) for v, x in zip(chosen, stacked, strict=True)}
            if len(chosen) < len(wanted) or not wanted:
                made = graph.apply(eqn, known)
                known |= {v: x for v, x in made.items() if v not in first}
        return {o: v.val if isinstance(v, Literal) else known[v] for o, v in graph.outputs.items()}

    return trace(program)


def _first_floats(graph: Graph, index: Any, name: str) -> tuple[set[Any], dict[Any, None]]:
    """The variables that are like an index, and the first floating ones that are made of them."""
    like: set[Any] = {index}
    first: dict[Any, None] = {}
    for eqn in graph.eqns:
        if not any(v in like for v in eqn.invars if not isinstance(v, Literal)):
            continue
        for v in eqn.outvars:
            if jnp.issubdtype(v.aval.dtype, jax.dtypes.prng_key):
                raise _refused(name, "random numbers are drawn with it as a seed")
            if jnp.issubdtype(v.aval.dtype, jnp.inexact):
                first[v] = None
            else:
                like.add(v)
    return like, {v: None for v in first if graph.is_read(v)}


def _aligned(graph: Graph, index: Any, variables: list[Any], name: str) -> dict[Any, Aligned]:
    """How the site's dimensions belong to those of the variables."""
    shape = index.aval.shape
    free = [v for v in graph.inputs.values() if v != index] + list(graph.constants)
    jaxpr = graph.part([index, *free], variables, graph.eqns)
    try:
        found = run(jaxpr, [Value({name: Dependence(tuple(range(len(shape))))}), *(Value() for _ in free)])
    except MutableStateError:
        raise _refused(name, "the model writes to references") from None
    aligned = {}
    for var, value in zip(variables, found, strict=True):
        # Of what is not known to depend on it, every weight has the same to weigh.
        whole: Aligned = tuple(None for _ in shape)
        aligned[var] = value.paths[name].aligned if name in value.paths else whole
        mixed = any(e is None and n > 1 for e, n in zip(aligned[var], shape, strict=True))
        if mixed and name in value.paths:
            made = graph.maker(var)
            raise _refused(name, f"numbers are made of several of its elements at once (by {made.primitive.name!r})")
    return aligned


def _refused(name: str, why: str) -> ValueError:
    return ValueError(
        f"site {name!r}: its estimator asks for weights of its values in the place of a value, of which the model "
        f"would have to be linear, and {why}; ask for one that takes values alone, such as 'score'"
    )


def _at_each(
    graph: Graph, variables: list[Any], index: Any, like: set[Any], known: Values, values: np.ndarray
) -> list[jax.Array]:
    """Variables `[K, ...]` with every element of the site at each of its values."""

    def at(value: jax.Array) -> list[jax.Array]:
        whole = jnp.full(index.aval.shape, value, index.aval.dtype)
        read = lambda v: whole if v == index else known[v]  # noqa: E731
        made = graph.evaluate(variables, lambda v: v == index or (v in known and v not in like), read)
        return [made[v] for v in variables]

    return jax.vmap(at)(jnp.asarray(values))


def _sum(w: jax.Array, stacked: jax.Array, aligned: Aligned) -> jax.Array:
    """sum_k w_k v(k), in which what is not finite counts where it has a weight only."""
    if all(e is None for e in aligned) and w.size != w.shape[-1]:
        return stacked[0]
    weights = to_term(jnp.moveaxis(w, -1, 0), aligned, stacked.ndim - 1, 1).astype(stacked.dtype)
    counts = jnp.isfinite(stacked) | (weights != 0)
    return jnp.sum(weights * jnp.where(counts, stacked, 0), 0)
