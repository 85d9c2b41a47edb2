"""What of a fit is known without the data it was made from: a file need not hold them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.counted import masked_sites
from autovi.model.traced import KEY, pseudo_inputs
from autovi.program.program import Program

NEEDED = "give them to autovi.load(path, model, data=...)"


def is_absent(array: Any) -> bool:
    """Is only the shape of an array known?"""
    return isinstance(array, jax.ShapeDtypeStruct)


def stand_in(array: Any) -> Any:
    """Zeros in the place of an array of which only the shape is known; any other array as it is."""
    return np.zeros(array.shape, array.dtype) if is_absent(array) else array


def described(array: Any) -> dict[str, Any]:
    """What a file has of an array that it does not hold."""
    return {"shape": list(np.shape(array)), "dtype": str(array.dtype), "digest": digest_of(array)}


def absent(description: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    """The inverse of `described`, as far as there is one."""
    return jax.ShapeDtypeStruct(tuple(description["shape"]), np.dtype(description["dtype"]))


def digest_of(array: Any) -> str:
    """What tells an array from any other: its type, its shape and its numbers."""
    array = np.ascontiguousarray(np.asarray(array))
    content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    content.update(array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode())
    return content.hexdigest()


def needing_data(program: Program) -> frozenset[str]:
    """The latent and deterministic sites whose posterior draws cannot be made without the data: those that are summed
    out or drawn given all else, what is computed from data, and what depends on any of these."""
    graph, outputs = program.traced.graph, program.outputs_for(["value"])
    drawn = {s for block in program.plan.blocks for s in block.sites} if program.own else set(program.order)
    drawn -= set(masked_sites(program.traced))  # of which elements may be drawn from their prior, as the data say
    free = {KEY, *(f"node:{n}" for n in drawn), *(f"plate:{n}" for n in program.sites.plates)}
    free |= {leaf for param in program.traced.params.values() for leaf in param.leaves}
    free |= {name for n in program.traced.noncentred for name in pseudo_inputs(n)}
    bound = graph.downstream([var for name, var in graph.inputs.items() if name not in free])
    depends = lambda output: not isinstance(graph.outputs[output], Literal) and graph.outputs[output] in bound  # noqa: E731
    for node in () if program.own else program.order:
        leaves = range(program.traced.distributions[node].num_leaves)
        if any(depends(f"distribution:{node}:{i}") for i in leaves):
            bound |= graph.downstream([graph.inputs[f"node:{node}"]])
    apart = {o for o in outputs if program.place_of(o) is not None}  # they stand in a block's own vector
    return frozenset(o.split(":", 1)[1] for o in outputs if o not in apart and depends(o))


def undrawn(program: Program, resample: bool | None, discrete: str) -> frozenset[str]:
    """The sites that `sample` leaves out without data, of which a warning tells.

    Raises:
        ValueError: draws are asked for that the data choose.
    """
    if resample or discrete == "map":
        asked = "resample=True" if resample else "discrete='map'"
        raise ValueError(f"data: {asked} needs them; {NEEDED}")
    if lost := needing_data(program):
        said = f"data: {sorted(lost)} cannot be drawn without them and are left out; {NEEDED}"
        warnings.warn(said, UserWarning, stacklevel=4)
    return lost
