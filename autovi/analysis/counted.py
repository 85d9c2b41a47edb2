"""Which elements of a masked latent site count: those that their own density or anything else feels.

The log q of an element counts, with its Jacobian and, where it is summed out, the sum over its values, if its own log
density is not masked or another term feels it: under a mask it is then a latent value with a flat prior. What nothing
feels has no part in the bound, and is drawn from its prior.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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

    A site whose mask is among the `varying` variables is left out: all of it counts. `values` are those of the other
    inputs; what is evaluated on the way is added.
    """
    graph = traced.graph
    found: dict[str, jax.Array] = {}
    if not masked_sites(traced):
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

    for name in masked_sites(traced):
        own = mask_of(name)
        if own is None:
            continue
        if traced.sites.samples[name].from_scan:
            found[counts_of(name)] = _counted_in_scan(traced, name, own, mask_of)
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


def _counted_in_scan(traced: Traced, name: str, own: jax.Array, mask_of: Callable[[str], Any]) -> jax.Array:
    """A step counts if something is not masked in it or after it, as far as can be seen from outside of the scan."""
    graph, samples = traced.graph, traced.sites.samples
    below = _below(traced, name)
    felt = own
    for other in (n for n in samples if n != name and graph.outputs.get(f"p:{n}") in below):
        mask = mask_of(other) if f"mask:{other}" in graph.outputs else None
        if mask is None or not samples[other].from_scan:
            return jnp.ones_like(own)
        if mask.shape != own.shape:
            mask = jnp.any(mask, axis=tuple(range(1, mask.ndim))).reshape(-1, *[1] * (own.ndim - 1))
        felt = felt | mask
    return jax.lax.cummax(felt.astype(int), axis=0, reverse=name not in traced.backward).astype(bool)


def _below(traced: Traced, name: str) -> set[Any]:
    """What depends on a site of a scan, through the states that are made of it too."""
    graph, seen, below = traced.graph, [name], set()
    for n in seen:  # which grows
        below |= graph.downstream([graph.inputs[f"node:{lagged(n, k)}"] for k in range(traced.lags.get(n, 0) + 1)])
        seen += [c for c in traced.states if c not in seen and graph.outputs[f"p:{c}"] in below]
    return below


def partly_masked(traced: Traced, inputs: Inputs) -> frozenset[str]:
    """The masked latent sites of which not all elements count, or may not."""
    names, graph = masked_sites(traced), traced.graph
    if not names or any(isinstance(array, jax.ShapeDtypeStruct) for array in inputs.arrays.values()):
        return frozenset(names)
    there = {data_input(path): jnp.asarray(array) for path, array in inputs.arrays.items()}
    values = {graph.inputs[name]: array for name, array in there.items() if name in graph.inputs}
    varying = graph.downstream([v for v in graph.inputs.values() if v not in values])
    counts = counted(traced, varying, dict(values))
    return frozenset(n for n in names if counts_of(n) not in counts or not bool(jnp.all(counts[counts_of(n)])))


def masked_in_part(sites: Sites, partly: Collection[str]) -> Sites:
    """The sites, of which only these are said to be masked: where all elements count, a mask is a flat prior."""
    return replace(sites, samples={n: replace(s, masked=n in partly) for n, s in sites.samples.items()})
