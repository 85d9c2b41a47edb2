"""A NumPyro model function as a target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from autovi.distributions import registry
from autovi.distributions.supports import bijection_to
from autovi.model.execution import Record, execute, place_in_scan
from autovi.model.inputs import Inputs
from autovi.model.predictive import log_likelihood, predict, simulate
from autovi.model.sites import Sites, feasible
from autovi.model.target import NOTHING, Given, Target, unchecked
from autovi.model.traced import Traced
from autovi.model.tracing import trace_numpyro
from autovi.model.unconstrained import unconstrained


@dataclass(frozen=True)
class NumPyroModel(Target):
    """log p(x, z) of the sample sites of a function."""

    function: Callable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def trace(
        self,
        guide: Callable | None,
        inputs: Inputs,
        lengths: Mapping[str, int],
        relaxed: Collection[str] = (),
        check_guide: Callable[[Sites], Any] = unchecked,
        noncentred: Collection[str] = (),
    ) -> tuple[Traced, Inputs]:
        return trace_numpyro(self.function, guide, inputs, lengths, relaxed, check_guide, noncentred)

    def prior(
        self,
        guide: Callable | None,
        inputs: Inputs,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        given: Given = NOTHING,
    ) -> dict:
        args, kwargs = inputs.rebuild(dict(arrays))
        values, lengths = given
        indices = {n: jnp.arange(length) for n, length in lengths.items()}

        def latent(msg: dict[str, Any]) -> Any:
            index = place_in_scan(msg)
            if msg["name"] in values:
                return values[msg["name"]] if index is None else values[msg["name"]][index]
            return _improper(msg)

        records = execute(self.function, args, kwargs, rng_key, latent=latent, indices=indices)
        guided = {} if guide is None else execute(guide, args, kwargs, rng_key)
        drawn = {n: r.value for n, r in guided.items() if r.fn is not None}
        left = {n: r for n, r in records.items() if r.kind == "sample" and not r.observed and n not in drawn}
        nodes = {n: _as_node(r, guide is None) for n, r in left.items()}
        outside = {n: jnp.where(_inside(left[n]), nodes[n], jnp.nan) for n in values if n in nodes}
        return {**nodes, **outside, **drawn}

    def predict(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        params: Mapping[str, Any],
        values: Mapping[str, Any],
        rng_key: jax.Array,
    ) -> dict[str, Any]:
        return predict(self.function, inputs, lengths, arrays, params, values, rng_key)

    def unconstrained(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        params: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> dict[str, Any]:
        return unconstrained(self.function, inputs, lengths, arrays, params, values)

    def simulate(
        self, inputs: Inputs, lengths: Mapping[str, int], arrays: Mapping[str, Any], rng_keys: jax.Array, part: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return simulate(self.function, inputs, lengths, arrays, rng_keys, part)

    def log_likelihood(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        values: Mapping[str, Any],
        rng_key: jax.Array,
    ) -> jax.Array:
        return log_likelihood(self.function, inputs, lengths, arrays, values, rng_key)


def _improper(msg: dict[str, Any]) -> Any:
    """A site without a sampler starts at the origin; the others are drawn."""
    return feasible(msg) if registry.lookup(msg["fn"]).observation_only else None


def _inside(record: Record) -> jax.Array:
    assert record.fn is not None
    return jnp.all(record.fn.support(record.value))


def _as_node(record: Record, unconstrained: bool) -> jax.Array:
    assert record.fn is not None
    value = jnp.asarray(record.value)
    if registry.is_discrete(record.fn):
        return value.astype(int)
    transform = bijection_to(record.fn.support) if unconstrained else None
    if transform is None:
        return value
    plain = transform.inv(value)
    return jnp.where(jnp.isfinite(plain), plain, 0.0)
