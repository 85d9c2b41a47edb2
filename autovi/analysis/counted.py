"""Which elements of a masked latent site count: those that their own density or anything else feels.

The log q of an element counts, with its Jacobian and, where it is summed out, the sum over its values, if its own log
density is not masked or another term feels it: under a mask it is then a latent value with a flat prior. What nothing
feels has no part in the bound, and is drawn from its prior.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.analysis.liveness import live
from autovi.model.graph import Graph, Values
from autovi.model.inputs import Inputs
from autovi.model.sites import Sites
from autovi.model.traced import Traced, data_input

FELT_BY = ("p:", "law:", "density:", "drawn:")  # outputs of the graph that a site drives


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
    graph, found = traced.graph, {}

    def fixed(var: Any) -> Any:
        if var in varying:
            return None
        if var not in values:
            values.update(graph.evaluate([var], values.__contains__, values.__getitem__))
        return values[var]

    for name in masked_sites(traced):
        mask = graph.outputs[f"mask:{name}"]
        own = jnp.asarray(mask.val) if isinstance(mask, Literal) else fixed(mask)
        if own is not None:
            felt = live(graph, _ends(graph, name), graph.outputs[f"value:{name}"], fixed)
            found[counts_of(name)] = own | jnp.any(felt, axis=tuple(range(own.ndim, felt.ndim)))
    return found


def _ends(graph: Graph, site: str) -> dict[Any, jax.Array]:
    """All that a site may drive, besides its own density."""
    own = (f"p:{site}", f"density:{site}", f"drawn:{site}")
    outputs = {o: v for o, v in graph.outputs.items() if o.startswith(FELT_BY) and o not in own}
    others = [v for o, v in outputs.items() if not o.startswith(f"law:{site}:") and not isinstance(v, Literal)]
    return {var: jnp.ones(var.aval.shape, bool) for var in others}


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
