"""Data that are indices: do they stay inside of the axes that they index? JAX takes the last element beyond the end."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jax.lax import GatherScatterMode

from autovi.analysis.primitives import shape_of
from autovi.keys import is_key
from autovi.model.graph import Graph
from autovi.model.inputs import Inputs
from autovi.model.traced import Traced, data_input


class _Lookup(NamedTuple):
    """Elements that a program takes by index: the variable with the indices, the axes they run along, their lengths
    and the indices that are the last."""

    indices: Any
    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    last: tuple[int, ...]


def check_indices(traced: Traced, inputs: Inputs) -> None:
    """Warns of data that index an axis beyond its end.

    Indices that data alone determine are computed; of subsampled plates the first elements are looked at. What asks
    for such a place in so many words (`jnp.take(..., mode="clip")`) may have it.
    """
    graph = traced.graph
    paths = {graph.inputs[n]: p for p, a in inputs.traced().items() if (n := data_input(p)) in graph.inputs}
    known = {v: jnp.asarray(inputs.arrays[p]) for v, p in paths.items() if not is_key(inputs.arrays[p])}
    known |= {v: jnp.arange(v.aval.size) for n, v in graph.inputs.items() if n.startswith("plate:")}
    unknown = graph.downstream(v for v in graph.inputs.values() if v not in known)
    found = [lookup for lookup in _lookups(graph) if lookup.indices not in unknown]
    values = graph.evaluate([lookup.indices for lookup in found], known.__contains__, known.__getitem__)
    for lookup in found:
        indices = np.asarray(values[lookup.indices])
        for k, axis in enumerate(lookup.axes):
            beyond = indices[..., k][(indices[..., k] < 0) | (indices[..., k] > lookup.last[k])]
            if beyond.size:
                names = [p for v, p in paths.items() if lookup.indices in graph.downstream([v])]
                _warn(names, int(beyond.max()), axis, lookup.lengths[k])
                return


def _lookups(graph: Graph) -> list[_Lookup]:
    found = []
    for eqn in graph.eqns:
        if eqn.primitive.name != "gather" or eqn.params["mode"] != GatherScatterMode.PROMISE_IN_BOUNDS:
            continue
        shape, sizes = shape_of(eqn.invars[0]), eqn.params["slice_sizes"]
        axes = eqn.params["dimension_numbers"].start_index_map
        if not isinstance(eqn.invars[1], Literal) and len(axes):
            lengths = tuple(shape[a] for a in axes)
            found.append(_Lookup(eqn.invars[1], axes, lengths, tuple(shape[a] - sizes[a] for a in axes)))
    return found


def _warn(names: list[str], index: int, axis: int, length: int) -> None:
    who = " and ".join(map(repr, names)) or "constants"
    warnings.warn(
        f"data: {who} index axis {axis} of an array, of length {length}, at {index}, where there is none, and JAX "
        "takes one at its end without a word; codes count from 0 (do these count from 1?). Where that is meant, say "
        'jnp.take(x, index, mode="clip")',
        UserWarning,
        stacklevel=6,
    )
