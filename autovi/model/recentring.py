"""Sites in the coordinates of what the model makes of them: the traced program again, with other nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.distributions.coordinates import OfImage, PseudoData
from autovi.model.centring import PARTS, named, part_outputs
from autovi.model.graph import Graph, Values, leaf_inputs, placeholder, trace
from autovi.model.images import Image, images
from autovi.model.inputs import Inputs
from autovi.model.sites import sum_rightmost
from autovi.model.traced import Traced, pseudo_inputs, weighted


def recentred(traced: Traced, sites: Collection[str], inputs: Inputs) -> Traced:
    """The program with these sites' nodes in the coordinates of their images (`images`).

    Nothing but the nodes changes: values, densities and all else are those of `traced` at the values that the nodes
    stand for, whatever the images are, as long as these do not depend on the sites' own values.
    """
    if not sites:
        return traced
    found = images(traced)
    wanted = {n: found[n] for n in sorted(sites)}
    program = lambda arrays, rng_key: _Run(traced, arrays, rng_key).outputs(wanted)  # noqa: E731
    graph = trace(program, inputs.traced(), jax.eval_shape(jax.random.key, 0))
    made = {n: named(n, OfImage(*PARTS)) for n in wanted}
    return replace(
        traced,
        graph=graph,
        noncentred=traced.noncentred | wanted.keys(),
        imaged=frozenset(wanted),
        coordinates={**traced.coordinates, **made},
    )


class _Run:
    """One evaluation of a traced program on the inputs of another: all of its own by their names, and pseudo-data."""

    def __init__(self, traced: Traced, arrays: dict[str, Any], rng_key: jax.Array):
        self.traced, self.graph = traced, traced.graph
        given = leaf_inputs(arrays, rng_key)
        self.known: Values = {
            var: given[name] if name in given else placeholder(name, var.aval.shape, var.aval.dtype)
            for name, var in self.graph.inputs.items()
        }

    def outputs(self, wanted: Mapping[str, Image]) -> dict[str, jax.Array]:
        nodes = {n: self.graph.inputs[f"node:{n}"] for n in wanted}
        placed = {n: self.known.pop(node) for n, node in nodes.items()}
        out: dict[str, jax.Array] = {}
        for name in _in_order(self.graph, wanted, nodes):
            self._evaluate(wanted[name].operands)
            node = placed[name]
            at = PseudoData(*(placeholder(i, node.shape, node.dtype) for i in pseudo_inputs(name)))
            coordinates = OfImage(*(x.astype(node.dtype) for x in wanted[name].coefficients(self.known.__getitem__)))
            self.known[nodes[name]] = coordinates.value(node, at)
            ndim = len(self.traced.sites.samples[name].batch_shape)
            log_det = sum_rightmost(jnp.broadcast_to(coordinates.log_det(at), node.shape), ndim)
            out |= {f"jacobian:{name}": weighted(log_det, self.traced.scales[name], None)}
            out |= part_outputs(name, coordinates)
        self.graph.run_effects(self.known.__contains__, self.known.__getitem__)
        others = {o: v for o, v in self.graph.outputs.items() if o not in out}
        self._evaluate(others.values())
        return {o: self._read(v) for o, v in others.items()} | out

    def _evaluate(self, wanted: Iterable[Any]) -> None:
        self.known |= self.graph.evaluate(wanted, self.known.__contains__, self.known.__getitem__)

    def _read(self, var: Any) -> jax.Array:
        if isinstance(var, Literal):
            return jnp.asarray(var.val)
        return self.known[var] if var in self.known else jnp.asarray(self.graph.constants[var])


def _in_order(graph: Graph, wanted: Mapping[str, Image], nodes: Mapping[str, Any]) -> list[str]:
    """The sites, each after those on whose values its image depends."""
    above = {n: {o for o in wanted if graph.downstream([nodes[o]]) & set(wanted[n].operands)} for n in wanted}
    order: list[str] = []
    while len(order) < len(wanted):
        order += [n for n in wanted if n not in order and above[n] <= set(order)]
    return order
