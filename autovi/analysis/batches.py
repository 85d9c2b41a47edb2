"""Do the rows of a batch factor? Subsampling scales the sum of a batch's terms, which is right for terms of one row.

Where the rows of a batch meet (they are centred, ranked, one predicts the next), the terms of a batch are not a part of
those of the full data. The dependence graph says which terms may be so, and a second batch which of them are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.dependence import analyse_graph
from autovi.compiling import compiler_options
from autovi.model.graph import Graph, like_traced
from autovi.model.inputs import Inputs
from autovi.model.sites import Plate, Site
from autovi.model.traced import KEY, Traced, data_input

NODE = 0.3  # the value of all nodes and parameters: inside of most supports
TOLERANCE = 1e-4  # relative: rows that are computed in another order may differ by rounding


def check_rows_factor(traced: Traced, inputs: Inputs) -> None:
    """Raises unless the terms in each subsampled plate are terms of single rows.

    Raises:
        ValueError: names the site, the plate, and what a batch changes there.
    """
    for plate in traced.sites.subsampled.values():
        for term, site in _suspects(traced, plate).items():
            if _rows_meet(traced, inputs, plate, term, site):
                raise ValueError(
                    f"site {site.name!r}: its density for one row of the subsampled plate {plate.name!r} depends on "
                    "which other rows are in the batch (a mean, a rank or a neighbour within the batch?), so that a "
                    "batch does not stand for the data; compute such quantities from all the data before the fit, or "
                    "fit without subsampling"
                )


def _suspects(traced: Traced, plate: Plate) -> dict[str, Site]:
    """The terms in a plate that may not be elementwise in its rows."""
    graph, source = traced.graph, f"plate:{plate.name}"
    if source not in graph.inputs:
        return {}
    sites = {t: s for t, s in _terms(traced).items() if plate in s.plates and t in graph.outputs}
    found = analyse_graph(graph, [source], sites)
    place = lambda term: len(graph.shape(term)) + plate.dim  # noqa: E731
    return {t: s for t, s in sites.items() if source in found[t] and found[t][source].aligned[0] != place(t)}


def _terms(traced: Traced) -> Mapping[str, Site]:
    guide = {} if traced.guide_sites is None else traced.guide_sites.latents
    return {f"p:{n}": s for n, s in traced.sites.samples.items()} | {f"q:{n}": s for n, s in guide.items()}


def _rows_meet(traced: Traced, inputs: Inputs, plate: Plate, term: str, site: Site) -> bool:
    """Does the term of a row change with what the first or the last row of the batch is?"""
    shape = traced.graph.shape(term)
    dim = len(shape) + plate.dim
    if plate.length < 2 or shape[dim] != plate.length:
        return False
    evaluate = jax.jit(lambda arrays, rows: _evaluated(traced, plate, term, arrays, rows))
    first = np.arange(plate.length)
    compiled = evaluate.lower(inputs.traced(), first).compile(compiler_options(work=0))
    rows_of = lambda batch: np.asarray(compiled(inputs.traced(), batch))  # noqa: E731
    before = rows_of(first)
    for place in (0, -1):
        others = np.delete(first, place)
        for row in (plate.size - 1, (plate.length + plate.size) // 2):
            batch = first.copy()
            batch[place] = row
            now, then = (x.take(others, axis=dim) for x in (rows_of(batch), before))
            if not np.allclose(now, then, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                return True
    return False


def _evaluated(traced: Traced, plate: Plate, term: str, arrays: Mapping[str, Any], rows: jax.Array) -> jax.Array:
    graph = traced.graph
    known: dict[Any, Any] = {
        v: jnp.full(v.aval.shape, NODE).astype(v.aval.dtype) for n, v in graph.inputs.items() if ":" in n
    }
    for name, other in traced.sites.plates.items():
        if f"plate:{name}" in graph.inputs:
            known[graph.inputs[f"plate:{name}"]] = jnp.arange(other.length)
    known |= {graph.inputs[n]: jnp.asarray(a) for p, a in arrays.items() if (n := data_input(p)) in graph.inputs}
    key = graph.inputs[KEY]
    known |= {key: like_traced(jax.random.key(0), key), graph.inputs[f"plate:{plate.name}"]: rows}
    return _value(graph, term, known)


def _value(graph: Graph, term: str, known: dict[Any, Any]) -> jax.Array:
    wanted = graph.outputs[term]
    return graph.evaluate([wanted], known.__contains__, known.__getitem__)[wanted]
