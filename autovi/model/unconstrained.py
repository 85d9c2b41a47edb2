"""From values of a model's latent sites to NumPyro's unconstrained scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.distributions import registry
from autovi.distributions.supports import bijection_to
from autovi.model.execution import Record, execute, place_in_scan
from autovi.model.inputs import Inputs


def unconstrained(
    model: Callable,
    inputs: Inputs,
    lengths: Mapping[str, int],
    arrays: Mapping[str, Any],
    params: Mapping[str, Any],
    values: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """The continuous latent sites of one draw through the inverse of `biject_to(support)`, as NumPyro's samplers hold
    them. The model runs on all `values`, discrete ones too: the support of a site may depend on those before it.

    `lengths` are those of subsampled plates, here at full size. What lies on the edge of a support is not finite.
    """

    def latent(msg: dict[str, Any]) -> Any:
        index, name = place_in_scan(msg), msg["name"]
        if name not in values:
            return None
        return values[name] if index is None else values[name][index]

    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    records = execute(model, args, kwargs, jax.random.key(0), latent=latent, params=params, indices=indices)
    found = {n: _inverse(r) for n, r in records.items() if r.kind == "sample" and not r.observed and n in values}
    return {n: x for n, x in found.items() if x is not None}


def _inverse(record: Record) -> jax.Array | None:
    assert record.fn is not None
    transform = None if registry.is_discrete(record.fn) else bijection_to(record.fn.support)
    return None if transform is None else jnp.asarray(transform.inv(jnp.asarray(record.value)))
