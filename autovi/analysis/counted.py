"""Which elements of a masked latent site count: those that their own density or anything else feels.

The log q of an element counts, with its Jacobian and, where it is summed out, the sum over its values, if its own log
density is not masked or another term feels it: under a mask it is then a latent value with a flat prior. What nothing
feels has no part in the bound, and is drawn from its prior.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.analysis.dependence import analyse_graph
from autovi.analysis.liveness import live
from autovi.model.graph import Graph, Values, like_traced
from autovi.model.inputs import Inputs
from autovi.model.lags import lagged
from autovi.model.sites import Sites
from autovi.model.traced import KEY, Traced, data_input

FELT_BY = ("p:", "distribution:", "density:", "drawn:")  # outputs of the graph that a site drives


def counts_of(site: str) -> str:
    """The key of a site's counting elements among the values of a program."""
    return f"counts:{site}"


def masked_sites(traced: Traced) -> tuple[str, ...]:
    """The masked latent sites, in order of execution."""
    return tuple(n for n in traced.sites.latents if f"mask:{n}" in traced.graph.outputs)


def counted(traced: Traced, varying: Collection[Any], values: Values) -> dict[str, jax.Array]:
    """Masked latent site -> its counting elements, of its batch shape, by `counts_of`.

    A site whose mask is among the `varying` variables is left out: all of it counts; and one whose counting elements
    are among the `values`. These are those of the other inputs; what is evaluated on the way is added.
    """
    graph = traced.graph
    found: dict[str, jax.Array] = {}
    sites = [n for n in masked_sites(traced) if counts_of(n) not in values]
    if not sites:
        return found
    # What a node is made into may be held by another variable, so that the node's own has no value.
    nodes = [v for name, v in graph.inputs.items() if name.startswith("node:")]
    varying = graph.downstream(nodes).union(varying)

    def fixed(var: Any) -> Any:
        if var in varying:
            return None
        if var not in values:
            values.update(graph.evaluate([var], values.__contains__, values.__getitem__))
        return values[var]

    def mask_of(name: str) -> Any:
        mask = graph.outputs[f"mask:{name}"]
        if isinstance(mask, Literal):
            return jnp.asarray(mask.val)
        if traced.sites.samples[name].from_scan and _is_constant(graph, f"mask:{name}"):
            known = _anything(graph) | values
            return graph.evaluate([mask], known.__contains__, known.__getitem__)[mask]
        return fixed(mask)

    masked = [o.removeprefix("mask:") for o in graph.outputs if o.startswith("mask:")]
    masks = {name: mask_of(name) for name in masked}
    for name in sites:
        own = masks[name]
        if own is None:
            continue
        if traced.sites.samples[name].from_scan:
            felt = _felt_in_scan(traced, name, masks, fixed)
        else:
            felt = live(graph, _ends(graph, name), graph.outputs[f"value:{name}"], fixed)
        found[counts_of(name)] = own | jnp.any(felt, axis=tuple(range(own.ndim, felt.ndim)))
    return found


def _ends(graph: Graph, site: str) -> dict[Any, jax.Array]:
    """All that a site may drive, besides its own density."""
    own = (f"p:{site}", f"density:{site}", f"drawn:{site}")
    outputs = {o: v for o, v in graph.outputs.items() if o.startswith(FELT_BY) and o not in own}
    others = [v for o, v in outputs.items() if not o.startswith(f"distribution:{site}:") and not isinstance(v, Literal)]
    return {var: jnp.ones(var.aval.shape, bool) for var in others}


def _is_constant(graph: Graph, output: str) -> bool:
    """Does an output depend on no latent value, though it comes out of a scan that others go into?"""
    return not analyse_graph(graph, [n for n in graph.inputs if n.startswith("node:")], [output])[output]


def _anything(graph: Graph) -> Values:
    """Some value of every input, for outputs that do not depend on them."""
    found = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items() if ":" in n and n != KEY}
    key = graph.inputs[KEY]
    return found | {key: like_traced(jax.random.key(0), key)}


def _felt_in_scan(traced: Traced, name: str, masks: Mapping[str, Any], fixed: Callable[[Any], Any]) -> jax.Array:
    """Which elements at which steps something else feels, their values some steps before among them."""
    # A mask comes out of a scan that latent values go into.
    known = {traced.graph.outputs[f"mask:{n}"]: mask for n, mask in masks.items() if mask is not None}
    read = lambda var: known[var] if var in known else fixed(var)  # noqa: E731
    ends = _ends(traced.graph, name)
    # Its own density too: at the next steps, which are elements of the same site.
    ends |= {v: jnp.ones(v.aval.shape, bool) for v in _variables(traced.graph, [f"p:{name}"])}
    if traced.states:
        ends |= _ends_at_states(traced, ends, read)
    return _felt(traced, name, ends, read)


def _felt(traced: Traced, name: str, ends: dict[Any, jax.Array], read: Callable[[Any], Any]) -> jax.Array:
    felt = jnp.zeros((), bool)
    for lag in range(traced.lags.get(name, 0) + 1):
        there = live(traced.graph, ends, traced.graph.inputs[f"node:{lagged(name, lag)}"], read)
        felt = felt | _before(there, lag, name in traced.backward)
    return felt


def _ends_at_states(traced: Traced, ends: Mapping[Any, jax.Array], read: Callable[[Any], Any]) -> dict[Any, jax.Array]:
    """The terms that say which state is made of which values, live at the steps whose states are felt: there, or at a
    step after it."""
    own = {c: v for c in traced.states for v in _variables(traced.graph, [f"p:{c}"])}
    others = {v: mask for v, mask in ends.items() if v not in own.values()}
    felt = {}
    for c in own:
        there = _felt(traced, c, dict(others), read)
        steps = jnp.any(there, tuple(range(1, there.ndim))).astype(int)
        felt[c] = jax.lax.cummax(steps, axis=0, reverse=c not in traced.backward).astype(bool)
    found = {}
    for var in own.values():
        # One state may be made of another.
        by_step = jnp.stack([mask for mask in felt.values() if mask.shape == var.aval.shape[:1]]).any(0)
        found[var] = jnp.broadcast_to(by_step.reshape(-1, *[1] * (len(var.aval.shape) - 1)), var.aval.shape)
    return found


def _variables(graph: Graph, outputs: Iterable[str]) -> list[Any]:
    return [v for v in (graph.outputs[o] for o in outputs) if not isinstance(v, Literal)]


def _before(there: jax.Array, lag: int, backward: bool) -> jax.Array:
    """Of what is felt of values `lag` steps before `[T, ...]`, by the step that they are of."""
    if lag == 0:
        return there
    steps = jnp.arange(there.shape[0]).reshape(-1, *[1] * (there.ndim - 1))
    if backward:
        return jnp.roll(there, lag, 0) & (steps >= lag)
    return jnp.roll(there, -lag, 0) & (steps < there.shape[0] - lag)


def counted_by_data(traced: Traced, arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The same as far as the data alone tell; whatever else an element may be felt through is taken to feel it."""
    graph = traced.graph
    there = {data_input(path): jnp.asarray(array) for path, array in arrays.items()}
    values = {graph.inputs[name]: array for name, array in there.items() if name in graph.inputs}
    return counted(traced, graph.downstream([v for v in graph.inputs.values() if v not in values]), values)


def partly_masked(traced: Traced, inputs: Inputs) -> frozenset[str]:
    """The masked latent sites of which not all elements count, or may not."""
    names = masked_sites(traced)
    if not names or any(isinstance(array, jax.ShapeDtypeStruct) for array in inputs.arrays.values()):
        return frozenset(names)
    counts = counted_by_data(traced, inputs.arrays)
    return frozenset(n for n in names if counts_of(n) not in counts or not bool(jnp.all(counts[counts_of(n)])))


def masked_in_part(sites: Sites, partly: Collection[str]) -> Sites:
    """The sites, of which only these are said to be masked: where all elements count, a mask is a flat prior."""
    return replace(sites, samples={n: replace(s, masked=n in partly) for n, s in sites.samples.items()})
