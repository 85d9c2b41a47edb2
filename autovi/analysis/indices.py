"""Indices among the data that lie beyond what they index, where JAX takes another element without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.model.inputs import Inputs
from autovi.model.places import place_of, with_places
from autovi.model.traced import Traced, data_input
from autovi.numbers import how_many


def check_indices(traced: Traced, inputs: Inputs, whole: Callable[[], Traced | None] = lambda: None) -> None:
    """Are all indices that the model computes from its data alone those of elements that there are?

    `a[index]` promises JAX that they are: beyond the end, values are of the last element, gradients of none. Lookups
    that say what is to happen there (`jnp.take(a, index, mode="fill")`, `a.at[index].get(mode="clip")`) promise
    nothing and are left alone, and so are those inside of functions that JAX transforms. `whole` gives the model with
    every plate at full size, where `traced` has batches; None where there is no such program.

    Raises:
        ValueError: the argument, the first index beyond, and what it is an index of.
    """
    lookups = [eqn for eqn in traced.graph.eqns if _is_promise(eqn)]
    if not lookups or any(isinstance(array, jax.ShapeDtypeStruct) for array in inputs.arrays.values()):
        return
    graph = traced.graph
    plates = {var: name for name, var in graph.inputs.items() if name.startswith("plate:")}
    data = {graph.inputs[data_input(path)]: path for path in inputs.arrays if data_input(path) in graph.inputs}
    varying = graph.downstream([var for var in graph.inputs.values() if var not in data and var not in plates])
    of_batch = graph.downstream([var for var in plates if not _is_whole(traced, plates[var])])
    read = lambda var: jnp.arange(var.aval.shape[0]) if var in plates else jnp.asarray(inputs.arrays[data[var]])  # noqa: E731
    made = {var: eqn for eqn in graph.eqns for var in eqn.outvars}
    later = False
    for eqn in lookups:
        index = eqn.invars[1]
        place = None if index in varying else place_of(eqn)
        if place is None:  # computed from latent sites, or by NumPyro
            continue
        if index in of_batch:
            later = True
            continue
        if (path := data.get(_plain(made, eqn))) is not None:  # as nearly always: nothing needs to be compiled
            paths, own = [path], np.asarray(inputs.arrays[path])[..., None]
            own = np.where(own < 0, own + eqn.invars[0].aval.shape[_axes(eqn)[0]], own)
        else:
            found = graph.evaluate([index], lambda var: var in data or var in plates, read)
            paths = [data[var] for var in found if var in data and np.issubdtype(var.aval.dtype, np.integer)]
            own = np.asarray(found[index])
        if said := _beyond(traced, inputs, eqn, own, paths):
            raise ValueError(with_places(said, place))
    if later and (at_full_size := whole()) is not None:
        check_indices(at_full_size, inputs)


def _is_promise(eqn: Any) -> bool:
    promise = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return eqn.primitive.name == "gather" and eqn.params["mode"] is promise and not isinstance(eqn.invars[1], Literal)


def _axes(eqn: Any) -> tuple[int, ...]:
    """The axes of its operand that a lookup goes along."""
    return eqn.params["dimension_numbers"].start_index_map


def _plain(made: Mapping[Any, Any], lookup: Any) -> Any:
    """The variable that is the index along one axis, but for shape, type, and negative ones counted from the end."""
    var = lookup.invars[1] if len(_axes(lookup)) == 1 else None
    size = lookup.invars[0].aval.shape[_axes(lookup)[0]]
    while not isinstance(var, Literal) and var in made:
        eqn = made[var]
        if eqn.primitive.name in ("broadcast_in_dim", "convert_element_type"):
            var = eqn.invars[0]
            continue
        if eqn.primitive.name != "select_n":
            return None
        if len(eqn.invars) != 3 or any(isinstance(v, Literal) or v not in made for v in (eqn.invars[0], eqn.invars[2])):
            return None
        below, plain, moved = made[eqn.invars[0]], eqn.invars[1], made[eqn.invars[2]]
        steps = [(e.primitive.name, e.invars[0], getattr(e.invars[-1], "val", None)) for e in (below, moved)]
        if steps != [("lt", plain, 0), ("add", plain, size)]:
            return None
        var = plain
    return None if isinstance(var, Literal) else var


def _is_whole(traced: Traced, name: str) -> bool:
    plate = traced.sites.plates.get(name.removeprefix("plate:"))
    return plate is not None and traced.graph.inputs[name].aval.shape == (plate.size,)


def _beyond(traced: Traced, inputs: Inputs, eqn: Any, index: np.ndarray, paths: list[str]) -> str:
    """What is said of the first index that is none; "" where all are indices."""
    shape = eqn.invars[0].aval.shape
    for part, axis in enumerate(_axes(eqn)):
        size, own = shape[axis], index[..., part].astype(np.int64)
        bad = (own < 0) | (own > size - eqn.params["slice_sizes"][axis])
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            first = int(own[at])
            first -= size * (first < 0)  # negative ones were counted from the end
            whose = paths[0] if len(paths) == 1 else "model"
            name = _name(traced, eqn.invars[0])
            return (
                f"{whose}: the index {first}{f' at {at}' if at else ''}{_categories(inputs, whose)} is beyond the "
                f"{how_many(size, 'element')} (0 to {size - 1}) of {name}; count from 0, or make {name} and its plate "
                "as large as there are groups. JAX would take another element in its place, without a word; where "
                f"that is meant, write jnp.clip(index, 0, {size - 1})"
            )
    return ""


def _categories(inputs: Inputs, path: str) -> str:
    names = inputs.labels[path].categories if path in inputs.labels else None
    return "" if names is None else f" (of {len(names):,} categories)"


def _name(traced: Traced, operand: Any) -> str:
    outputs = traced.graph.outputs
    names = [n for n in (*traced.sites.samples, *traced.sites.deterministics) if outputs.get(f"value:{n}") is operand]
    return repr(names[0]) if names else "what it looks up"
