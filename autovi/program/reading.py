"""What estimators read besides costs: data, values above a site and deterministic ones, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.analysis.dependence import analyse_graph
from autovi.families.base import Layout
from autovi.model.traced import data_input
from autovi.plan.plan import Block
from autovi.program.rows import gather
from autovi.program.wiring import Wiring


class Reading(NamedTuple):
    """One thing that the estimator of a block reads. `output` is its name in the graph; None of data, whose plates are
    at full size. `shape` is that of one element's part, `apart` whether elements have parts of their own."""

    name: str
    output: str | None
    shape: tuple[int, ...]
    apart: bool


def readings(program: Wiring, block: Block) -> tuple[Reading, ...]:
    """What the estimator of a block reads.

    Raises:
        ValueError: a name that is nothing there, or of a value that depends on the block's own draw.
    """
    return tuple(_reading(program, block, name) for name in block.estimator.reads)


def _reading(program: Wiring, block: Block, name: str) -> Reading:
    graph, data, value = program.traced.graph, data_input(name), f"value:{name}"
    if data in graph.inputs:
        return _of_shape(name, None, graph.inputs[data].aval.shape, program.layout(block).batch_shape)
    who = f"site {block.name!r}: estimator {block.estimator.name!r} reads {name!r}"
    if value not in graph.outputs or name in (*program.plan.marginal, *program.plan.ancestral):
        arguments = [n[3:-2] for n in graph.inputs if n == data_input(n[3:-2])]
        values = [o.split(":", 1)[1] for o in program.outputs_for(["value"])]
        raise ValueError(
            f"{who}, which is no array of the data and no value that is drawn or computed; expected some of "
            f"{sorted({*arguments, *values} - {block.name})}"
        )
    var = graph.outputs[value]
    batch_shape = () if program.is_flat(block.name) else program.node_site(block.name).batch_shape
    found = _of_shape(name, value, jnp.shape(var.aval), batch_shape)
    # What elements share, all steps of it, holds what came of each one's draw.
    if var in program.affected(block.name) and not (found.apart and _comes_before(program, block.name, value)):
        raise ValueError(
            f"{who}, which depends on the site's own draw, so that the gradient would be biased; name data, or what "
            "comes before it"
        )
    return found


def _comes_before(program: Wiring, node: str, output: str) -> bool:
    """Does an output that follows the steps of a scan depend at each step on what a node was at earlier ones alone?"""
    graph = program.traced.graph
    nodes = [n for n in (node, *program.below(node)) if f"node:{n}" in graph.inputs]
    found = analyse_graph(graph, [f"node:{n}" for n in nodes], [output])[output]
    drawn = program.follows(node)

    def before(other: str, axis: int) -> bool:
        since = found[f"node:{other}"].since if f"node:{other}" in found else ()
        given = drawn.get(f"q:{other}", ()) if other != node else ()
        return f"node:{other}" not in found or any(
            s is not None and s.axis == axis and (s.strict or any(g is not None and g.strict for g in given))
            for s in since
        )

    depth = len(program.node_site(node).batch_shape)
    return any(all(before(other, axis) for other in nodes) for axis in range(depth))


def _of_shape(name: str, output: str | None, shape: tuple[int, ...], batch_shape: tuple[int, ...]) -> Reading:
    depth = len(batch_shape)
    apart = depth > 0 and shape[:depth] == batch_shape
    return Reading(name, output, shape[depth:] if apart else shape, apart)


def read_outputs(program: Wiring) -> tuple[str, ...]:
    """The outputs of the graph that estimators read."""
    outputs = {r.output for b in program.plan.blocks if b.estimator.reads for r in readings(program, b)}
    return tuple(sorted(o for o in outputs if o is not None))


def read_layout(program: Wiring, block: Block) -> Layout:
    """The layout of a block, with the shapes of what its estimator reads."""
    layout = program.layout(block)
    return replace(layout, reads=tuple(r.shape for r in readings(program, block))) if block.estimator.reads else layout


def read(
    program: Wiring,
    block: Block,
    values: Mapping[Any, Any],
    outputs: Mapping[str, jax.Array],
    indices: Mapping[str, Any],
    shape: tuple[int, ...],
) -> tuple[jax.Array, ...]:
    """What the estimator of a block reads in a step, each `[*shape, ...]`, `shape` that of the particles' log q:
    `values` are those that all particles share, `outputs` those of the graph, of every particle."""
    graph = program.traced.graph

    def one(reading: Reading) -> jax.Array:
        if reading.output is not None:
            found = outputs[reading.output]
            own = found if reading.apart else jnp.expand_dims(found, range(1, len(shape)))
        else:
            found = values[graph.inputs[data_input(reading.name)]]
            own = gather(program.node_site(block.name), found, indices) if reading.apart else found
        return jax.lax.stop_gradient(jnp.broadcast_to(own, (*shape, *reading.shape)))

    return tuple(map(one, readings(program, block)))
