"""Draws from a model given draws of its latent sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from autovi.distributions import registry
from autovi.distributions.densities import log_density
from autovi.model.execution import Record, execute, place_in_scan, unobserved
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
    sites whose shape is not that of their value (new elements of a plate, further steps of a scan), from their prior
    given the rest.

    `lengths` are those of subsampled plates, here at full size.
    """
    taken: set[str] = set()

    def latent(msg: dict[str, Any]) -> Any:
        fn, name = msg["fn"], msg["name"]
        if msg["infer"].get("obs") is not None:
            return _in_place_of_data(msg)
        index = place_in_scan(msg)
        if name not in values:
            return None
        fitted = values[name] if index is None else values[name][0]
        value = fitted if index is None else _at_step(msg, values[name], index)
        if jnp.shape(fitted) != fn.shape():
            _check_new_elements(msg, jnp.shape(value))
            return None
        taken.add(name)
        return value

    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    records = execute(unobserved(model), args, kwargs, rng_key, latent=latent, params=params, indices=indices)
    anew = lambda r: r.name not in taken or jnp.shape(r.value) != jnp.shape(values[r.name])  # noqa: E731
    return {r.name: r.value for r in _kept(records) if anew(r)}


def simulate(
    model: Callable,
    inputs: Inputs,
    lengths: Mapping[str, int],
    arrays: Mapping[str, Any],
    rng_keys: jax.Array,
    part: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of everything in the model from the prior, one for each key, `part` of them at a time; and the observed
    values.

    Parameter sites are where they start, the same in all draws.

    Raises:
        ValueError: a distribution without a sampler; the message names its site.
    """
    seen: list[str] = []

    def latent(msg: dict[str, Any]) -> Any:
        seen.append(msg["name"])
        if msg["infer"].get("obs") is not None:
            return _in_place_of_data(msg)
        if registry.lookup(msg["fn"]).observation_only:
            raise ValueError(
                f"site {msg['name']!r}: {type(registry.strip(msg['fn'])).__name__} has no sampler, so that its prior "
                "cannot be drawn from; give it a proper prior"
            )
        return None

    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    run = lambda fn, key, params: execute(  # noqa: E731
        fn, args, kwargs, key, latent=latent, params=params, indices=indices
    )

    def one(params: Mapping[str, Any], rng_key: jax.Array) -> dict[str, Any]:
        return {r.name: r.value for r in _kept(run(unobserved(model), rng_key, params))}

    try:
        start = run(model, rng_keys[0], {})
        params = {r.name: r.value for r in start.values() if r.kind == "param"}
        draws = jax.lax.map(partial(one, params), rng_keys, batch_size=part)
        return draws, {r.name: _whole(r) for r in _kept(start) if r.observed}
    except NotImplementedError as error:
        raise ValueError(f"site {seen[-1]!r}: its distribution has no sampler, so that it cannot be drawn") from error


def log_likelihood(
    model: Callable,
    inputs: Inputs,
    lengths: Mapping[str, int],
    arrays: Mapping[str, Any],
    values: Mapping[str, Any],
    rng_key: jax.Array,
) -> jax.Array:
    """log p(y | z) of all observations together, in nats, where latent sites have these `values`, each on its own
    scale and of its whole shape. Masks count, and scales do not."""

    def latent(msg: dict[str, Any]) -> Any:
        index = place_in_scan(msg)
        value = values.get(msg["name"])
        return value if value is None or index is None else value[index]

    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    records = execute(model, args, kwargs, rng_key, latent=latent, indices=indices)
    observed = [r for r in records.values() if r.kind == "sample" and r.observed and not r.infer.get("is_auxiliary")]
    return sum((jnp.sum(log_density(r.fn, r.value)) for r in observed if r.fn is not None), jnp.zeros(()))


def _at_step(msg: dict[str, Any], values: jax.Array, step: jax.Array) -> jax.Array:
    """A site's value at one step of a scan: after the last step of the fit it is drawn from its prior given the step
    before, so that a longer scan goes on from the end of the fitted one."""
    there = values[jnp.minimum(step, values.shape[0] - 1)]
    if jnp.shape(there) != tuple(msg["fn"].shape()):
        return there
    further = msg["fn"](rng_key=msg["kwargs"]["rng_key"])
    return jnp.where(step < values.shape[0], there, further).astype(there.dtype)


def _whole(record: Record) -> jax.Array:
    """A site's value, repeated where one stands for all elements."""
    assert record.fn is not None
    value = jnp.asarray(record.value)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, record.fn.shape()))


def _kept(records: Mapping[str, Record]) -> list[Record]:
    return [r for r in records.values() if r.kind in ("sample", "deterministic") and not r.infer.get("is_auxiliary")]


def _in_place_of_data(msg: dict[str, Any]) -> Any:
    """A draw for each observation, of which there may be more than the distribution alone says."""
    fn, observed = msg["fn"], msg["infer"]["obs"]
    shape = jnp.shape(observed)[: max(jnp.ndim(observed) - fn.event_dim, 0)]
    return fn.expand(jnp.broadcast_shapes(shape, fn.batch_shape))(rng_key=msg["kwargs"]["rng_key"])


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
