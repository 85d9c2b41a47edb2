"""Draws from a model given draws of its latent sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.model.execution import execute, unobserved
from autovi.model.inputs import Inputs


def predict(
    model: Callable,
    inputs: Inputs,
    lengths: Mapping[str, int],
    arrays: Mapping[str, Any],
    params: Mapping[str, Any],
    values: Mapping[str, Any],
    rng_key: jax.Array,
) -> dict[str, Any]:
    """One draw of everything in the model that `values` does not hold: observed sites anew, deterministics, and latent
    sites whose shape is not that of their value (new elements of a plate), from their prior given the rest.

    `lengths` are those of subsampled plates, here at full size.
    """
    taken: set[str] = set()

    def latent(msg: dict[str, Any]) -> Any:
        fn, name = msg["fn"], msg["name"]
        observed = msg["infer"].get("obs")
        if observed is not None:
            shape = jnp.shape(observed)[: max(jnp.ndim(observed) - fn.event_dim, 0)]
            return fn.expand(jnp.broadcast_shapes(shape, fn.batch_shape))(rng_key=msg["kwargs"]["rng_key"])
        index = msg["infer"].get("_scan_current_index")
        if name not in values:
            return None
        value = values[name] if index is None else values[name][index]
        if jnp.shape(value) != fn.shape():
            _check_new_elements(msg, jnp.shape(value))
            return None
        taken.add(name)
        return value

    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    records = execute(unobserved(model), args, kwargs, rng_key, latent=latent, params=params, indices=indices)
    kept = [r for r in records.values() if r.kind in ("sample", "deterministic") and not r.infer.get("is_auxiliary")]
    return {r.name: r.value for r in kept if r.name not in taken}


def _check_new_elements(msg: dict[str, Any], fitted: tuple[int, ...]) -> None:
    """A latent site may have another shape than in the fit only where a plate has other elements."""
    shape, event_dim = tuple(msg["fn"].shape()), msg["fn"].event_dim
    dims = {frame.dim - event_dim for frame in msg["cond_indep_stack"]}
    same_rank = len(shape) == len(fitted)
    if not same_rank or any(shape[d] != fitted[d] and d not in dims for d in range(-len(shape), 0)):
        raise ValueError(
            f"new_data: site {msg['name']!r} has shape {shape} with these data and {fitted} in the fit; only the size "
            "of a plate may differ. Do the new data have the same columns?"
        )
