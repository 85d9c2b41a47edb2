"""The values of a finite site gone through one after the other: what is downstream of it, at each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.estimators.base import Branches
from autovi.program.program import Program
from autovi.program.world import Narrow, World

BUDGET = 20_000_000  # numbers that the branches evaluated together may hold, over all particles


def branches_of(
    program: Program, world: World, node: str, names: Collection[str], stopped: Collection[str], lanes: int
) -> Branches:
    """Everything downstream of a node of one particle at each of the node's values.

    `names` are the cost terms, of which those `stopped` carry no gradient. `lanes` says how many particles are
    evaluated side by side. As many branches are evaluated together as the budget allows; beyond it their values are
    computed again in the backward pass, so that memory does not grow with the number of values.
    """
    values = np.asarray(program.branch_values(node))
    shape = program.branch_shape(node)
    names, shapes = sorted(names), program.structure.shapes

    def branch(value: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        there = world.forced({node: jnp.full(shape, value)})
        narrow = there.changed({v: _once(there.read(v)) for v in program.node_variables(node)}, Narrow())
        terms = {n: _whole(t, shapes.get(n, ())) for n, t in narrow.terms(names).items()}
        return there.nodes[node].log_q, {n: jax.lax.stop_gradient(t) if n in stopped else t for n, t in terms.items()}

    together = max(1, BUDGET // max(1, lanes * program.branch_numbers(node, tuple(names))))

    def stacked(fn: Callable) -> Any:
        one = lambda value: fn(*branch(value))  # noqa: E731
        if together >= len(values):
            return jax.vmap(one)(jnp.asarray(values))
        batch = None if together == 1 else together
        return jax.lax.map(jax.checkpoint(one), jnp.asarray(values), batch_size=batch)

    def summed(fn: Callable) -> Any:
        one = lambda value: fn(*branch(value))  # noqa: E731
        if together >= len(values):
            return jax.tree.map(lambda x: jnp.sum(x, 0), jax.vmap(one)(jnp.asarray(values)))
        total: Any = None
        whole = len(values) // together * together
        several = jax.checkpoint(lambda vs: jax.tree.map(lambda x: jnp.sum(x, 0), jax.vmap(one)(vs)))
        if whole:
            groups = jnp.asarray(values[:whole]).reshape(-1, together)
            start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(several, groups[0]))
            add = lambda sums, vs: (jax.tree.map(jnp.add, sums, several(vs)), None)  # noqa: E731
            total, _ = jax.lax.scan(add, start, groups)
        if whole < len(values):
            rest = several(jnp.asarray(values[whole:]))
            total = rest if total is None else jax.tree.map(jnp.add, total, rest)
        return total

    return Branches(stacked, summed, program.structure.downstream[node])


def _once(same: jax.Array) -> jax.Array:
    """One of the numbers of an array that are all the same."""
    return jax.lax.slice(same, (0,) * same.ndim, (1,) * same.ndim)


def _whole(term: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A term of which what is the same was evaluated once, in its own shape."""
    return jnp.broadcast_to(term, jnp.broadcast_shapes(term.shape, shape))
