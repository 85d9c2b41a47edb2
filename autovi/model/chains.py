"""Sites of a scan whose distributions depend on their own earlier draws: they are drawn inside of the graph.

The nodes of all other sites are inputs, drawn one after the other from their distributions. Those of a chain would have
to be there before their distributions are: so the function is run once more with their draws made at each step, from a
key. What is downstream takes the draws as nodes, as of any other site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.model.execution import Record, execute, place_in_scan, unmasked
from autovi.model.graph import Graph, placeholder

Chains = Mapping[str, tuple[str, ...]]  # a site -> the sites of its chain, itself among them


def key_input(site: str) -> str:
    """The name of the input that a chained site is drawn from."""
    return f"noise:{site}"


def flow_input(site: str) -> str:
    """The name of the input that says how much of the gradient goes through a chained site's draws, none or all."""
    return f"flow:{site}"


def draw_output(site: str) -> str:
    """The name of the output that has a chained site's draw."""
    return f"draw:{site}"


def chains_of(graph: Graph, sites: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The sites whose distribution depends on themselves, directly or through others, and which these are."""
    above = {n: _above(graph, n, sites) for n in sites}
    for through in sites:  # Warshall's closure
        for n in sites:
            if through in above[n]:
                above[n] = above[n] | above[through]
    chained = [n for n in sites if n in above[n]]
    return {n: tuple(m for m in chained if m in above[n] and n in above[m]) for n in chained}


def _above(graph: Graph, site: str, sites: Collection[str]) -> frozenset[str]:
    made = f"distribution:{site}:"
    wanted = [v for o, v in graph.outputs.items() if o.startswith(made)]
    inputs = {v: n for n, v in graph.inputs.items()}
    _, used = graph.needed(wanted, lambda var: var in inputs or var in graph.constants)
    names = {inputs[v].removeprefix("node:") for v in used if v in inputs and inputs[v].startswith("node:")}
    return frozenset(names & set(sites))


def drawn_in_steps(
    function: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    rng_key: jax.Array,
    chains: Collection[str],
    latent: Callable[[dict[str, Any]], Any],
    **bound: Any,
) -> dict[str, jax.Array]:
    """The draws of the chained sites, as outputs; all others are as `latent` says."""
    keys = {n: placeholder(key_input(n), (), rng_key.dtype) for n in chains}
    flows = {n: placeholder(flow_input(n), (), jnp.result_type(float)) for n in chains}

    def chained(msg: dict[str, Any]) -> Any:
        name, step = msg["name"], place_in_scan(msg)
        if name not in keys or step is None:
            return latent(msg)
        shape = tuple(msg["kwargs"].get("sample_shape") or ())
        value = unmasked(msg["fn"])(rng_key=jax.random.fold_in(keys[name], step), sample_shape=shape)
        return _with_flow(value, flows[name])

    records: dict[str, Record] = execute(function, args, kwargs, rng_key, latent=chained, **bound)
    return {draw_output(n): records[n].value for n in chains}


def _with_flow(value: jax.Array, flow: jax.Array) -> jax.Array:
    """The value, and that share of its gradient. Where draws of one site are scored, what later ones make of them must
    not carry a gradient through them, and which are is not known when the function is traced."""
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    still = jax.lax.stop_gradient(value)
    return jnp.where(flow > 0, value, still)
