"""A guide function run with its sites' draws taken by their estimators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.analysis.structure import delta_value
from autovi.distributions import registry
from autovi.model.execution import Drawn, Record, execute, mask_of, unmasked
from autovi.objective.nodes import Drawer, Node, draw_node, guide_term, weighted
from autovi.plan.plan import Plan


def run_guide(
    guide: Callable,
    arguments: tuple[tuple, Mapping[str, Any]],
    plan: Plan,
    rng_key: jax.Array,
    params: Mapping[str, Any],
    indices: Mapping[str, Any],
    draw: Drawer,
) -> tuple[dict[str, Node], dict[str, Any], dict[str, jax.Array]]:
    """Every site of a guide function as drawn, the value of every site, and -log q of every site, scaled and masked.

    Delta sites pass their value on, gradient and all; what they add to log q is their `log_density`. Sites that the
    plan sums out of the model are run and forgotten.
    """
    nodes: dict[str, Node] = {}
    blocks = {b.name for b in plan.blocks}

    def latent(msg: dict[str, Any]) -> Any:
        name, fn = msg["name"], unmasked(msg["fn"])
        value = delta_value(fn)
        if value is not None:
            return value
        if name not in blocks:
            return None
        nodes[name] = draw_node(name, fn, draw)
        return Drawn(nodes[name].draw.value, nodes[name].draw.aux)

    args, kwargs = arguments
    records = execute(guide, args, kwargs, rng_key, latent=latent, params=params, indices=indices)
    drawn = {n: r for n, r in records.items() if r.kind == "sample" and not r.observed and n not in plan.marginal}
    terms = {f"q:{n}": _term(r, nodes.get(n), plan) for n, r in drawn.items()}
    return nodes, {n: r.value for n, r in drawn.items()}, terms


def _term(record: Record, node: Node | None, plan: Plan) -> jax.Array:
    assert record.fn is not None
    scale = 1.0 if record.scale is None else record.scale
    if node is not None:
        return guide_term(node, plan.estimator_of(record.name), scale, mask_of(record.fn))
    log_density = registry.strip(record.fn).log_density * jnp.ones(record.fn.batch_shape)
    return weighted(-log_density, scale, mask_of(record.fn))
