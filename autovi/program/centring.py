"""Between the nodes of sites in partly non-centred coordinates and their unconstrained values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.distributions.coordinates import Coordinates, PseudoData
from autovi.model.graph import like_traced
from autovi.model.traced import KEY, pseudo_inputs
from autovi.program.program import Program


def nodes_at(
    program: Program, params: Mapping[str, Any], arrays: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The nodes at which the latent sites have some unconstrained values, to start there.

    Args:
        program: one of the shapes of `values`: `Engine.full` where those are at full plates.
        params: as a step has them; `params["constants"]` says how centred each site is.
        values: unconstrained values of the latent sites by name, all that the locations and scales depend on.

    Returns:
        The same, those of non-centred sites in the coordinates of `params`.
    """
    # Where all sites are centred, the values are the nodes: one evaluation gives all locations and scales at them.
    found = coordinates_at(program, {**params, "constants": {}}, arrays, values)
    pseudo_data = _pseudo_data(program, params)
    moved = {n: found[n].node(jnp.asarray(values[n]), pseudo_data[n]) for n in found if n in values}
    return {**{n: jnp.asarray(v) for n, v in values.items()}, **moved}


def values_at(
    program: Program, params: Mapping[str, Any], arrays: Mapping[str, Any], nodes: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The unconstrained values that the latent sites have at some nodes: the inverse of `nodes_at`."""
    found, pseudo_data = coordinates_at(program, params, arrays, nodes), _pseudo_data(program, params)
    moved = {n: found[n].value(jnp.asarray(nodes[n]), pseudo_data[n]) for n in found if n in nodes}
    return {**{n: jnp.asarray(v) for n, v in nodes.items()}, **moved}


def _pseudo_data(program: Program, params: Mapping[str, Any]) -> dict[str, PseudoData]:
    values, inputs = program.traced.pseudo_data(params.get("constants", {})), program.traced.graph.inputs
    return {n: PseudoData(*(values[inputs[i]] for i in pseudo_inputs(n))) for n in program.traced.noncentred}


def coordinates_at(
    program: Program, params: Mapping[str, Any], arrays: Mapping[str, Any], nodes: Mapping[str, Any]
) -> dict[str, Coordinates]:
    """The coordinates of the non-centred sites at some nodes, which are values where `params` bring no pseudo-data."""
    traced, graph = program.traced, program.traced.graph
    known = program.known(params, arrays, {n: jnp.arange(p.length) for n, p in program.sites.plates.items()})
    known |= {graph.inputs[f"node:{n}"]: jnp.asarray(v) for n, v in nodes.items()}
    known[graph.inputs[KEY]] = like_traced(jax.random.key(0), graph.inputs[KEY])
    named = {n: traced.coordinates[n] for n in sorted(traced.noncentred)}
    wanted = [graph.outputs[o] for o in jax.tree.leaves(named)]
    known |= graph.evaluate(wanted, known.__contains__, known.__getitem__) | graph.constants

    def read(output: str) -> Any:
        var = graph.outputs[output]
        return jnp.asarray(var.val) if isinstance(var, Literal) else known[var]

    return jax.tree.map(read, named)
