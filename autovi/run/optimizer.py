"""Optax over the parameters of a program: all of them together, and the rows of tables one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from autovi.model.sites import Site
from autovi.program.program import Program
from autovi.program.rows import gather, scatter


class Visits(NamedTuple):
    """How often the rows of a table took part in the present running mean, and in which step they last did."""

    times: jax.Array
    last: jax.Array


class OptimizerState(NamedTuple):
    """`whole` belongs to all parameters but tables, `rows` and `visits` to the rows of tables, by block."""

    whole: Any
    rows: dict[str, Any]
    visits: dict[str, Visits]


class Pace(NamedTuple):
    """Of one step: the learning rate, the number of the step within the running mean of the parameters, and the
    emphasis e of recent ones: the n-th enters with weight (1 + e) / (n + e)."""

    rate: jax.Array
    number: jax.Array
    emphasis: jax.Array

    def weight(self, number: jax.Array) -> jax.Array:
        """The weight in the mean of what enters it as the n-th."""
        return (1 + self.emphasis) / (number + self.emphasis)


@dataclass(frozen=True)
class Optimizer:
    """The user's Optax transformation, or Adam with a learning rate that the host sets (None).

    Parameters of local sites of a subsampled plate are tables, of which a step sees some rows: the optimizer's memory
    of every row is its own, counts of steps included, and rests while the row is not seen. So a step costs the same
    however many rows there are; a transformation that looks at the norm of all gradients sees a row's alone.
    """

    transform: optax.GradientTransformation | None = None

    @property
    def base(self) -> optax.GradientTransformation:
        """The transformation whose updates are applied."""
        return optax.scale_by_adam() if self.transform is None else self.transform

    def init(self, program: Program, params: Any) -> OptimizerState:
        """The state before the first step."""
        whole, tables = split(program, params)
        rows, visits = {}, {}
        for name, table in tables.items():
            shape = table_shape(program.node_site(name))
            rows[name] = _over_rows(self.base.init, len(shape))(table)
            visits[name] = Visits(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32))
        return OptimizerState(self.base.init(self._vector(whole)), rows, visits)

    def _vector(self, tree: Any) -> Any:
        """Adam works element by element, and on one vector it compiles faster; a user's sees the tree as it is."""
        return ravel_pytree(tree)[0] if self.transform is None else tree

    def _scaled(self, updates: Any, rate: jax.Array) -> Any:
        return jax.tree.map(lambda u: -rate * u, updates) if self.transform is None else updates

    def step(
        self,
        program: Program,
        params: Any,
        average: Any,
        state: OptimizerState,
        seen: Any,
        grads: Any,
        indices: Mapping[str, Any],
        pace: Pace,
        number: jax.Array,
        good: jax.Array,
    ) -> tuple[Any, Any, OptimizerState]:
        """Parameters, their running mean and the state after a step; as before where the step is not `good`.

        `seen` are the parameters as the step saw them, with rows in the place of tables, and `grads` the gradient in
        them.
        """
        whole, tables = split(program, params)
        mean, mean_tables = split(program, average)
        whole_grads, row_grads = split(program, grads)
        _, rows = split(program, seen)
        vector, unravel = self._raveled(whole)
        updates, moved_state = self.base.update(self._vector(whole_grads), state.whole, vector)
        moved = optax.apply_updates(vector, self._scaled(updates, pace.rate))
        means = self._vector(mean)
        weight = pace.weight(pace.number)
        moved_mean = jax.tree.map(lambda a, p: a + weight * (p - a), means, moved)
        chosen = _chosen(good, (moved, moved_mean, moved_state), (vector, means, state.whole))
        whole, mean, whole_state = unravel(chosen[0]), unravel(chosen[1]), chosen[2]
        new_rows, new_visits = dict(state.rows), dict(state.visits)
        for name, grad in row_grads.items():
            site = program.node_site(name)
            tree = (tables[name], mean_tables[name], state.rows[name], state.visits[name])
            old = (rows[name], *gather(site, tree[1:], indices))
            new = self._rows(site, old, grad, pace, number)
            put = scatter(site, tree, _chosen(good, new, old), indices)
            tables[name], mean_tables[name], new_rows[name], new_visits[name] = put
        return joined(whole, tables), joined(mean, mean_tables), OptimizerState(whole_state, new_rows, new_visits)

    def _raveled(self, whole: Any) -> tuple[Any, Callable[[Any], Any]]:
        return ravel_pytree(whole) if self.transform is None else (whole, lambda tree: tree)

    def _rows(self, site: Site, old: Any, grad: Any, pace: Pace, number: jax.Array) -> Any:
        row, mean, state, visits = old
        updates, state = _over_rows(self.base.update, len(table_shape(site)))(grad, state, row)
        row = optax.apply_updates(row, self._scaled(updates, pace.rate))
        # A row that the present mean has not seen yet starts it.
        times = jnp.where(visits.last <= number - pace.number, 0, visits.times) + 1
        weight = jnp.where(pace.number <= 1, 1.0, pace.weight(times))

        def moved(a: jax.Array, p: jax.Array) -> jax.Array:
            return a + weight.reshape(weight.shape + (1,) * (p.ndim - weight.ndim)) * (p - a)

        return row, jax.tree.map(moved, mean, row), state, Visits(times, jnp.full_like(visits.last, number))

    def moved(
        self, state: OptimizerState, old: tuple[Program, Any], new: tuple[Program, Any], kept: Collection[str]
    ) -> OptimizerState:
        """The state for the parameters of another plan: what belongs to the blocks `kept` stays."""
        fresh = self.init(*new)
        rows = {n: state.rows[n] if n in kept else rows for n, rows in fresh.rows.items()}
        visits = {n: state.visits[n] if n in kept else v for n, v in fresh.visits.items()}
        before, after = (_Parts(program, split(program, params)[0]) for program, params in (old, new))
        if self.transform is not None:
            same = before.shapes == after.shapes
            return OptimizerState(state.whole if same else fresh.whole, rows, visits)

        def vector(mine: jax.Array, theirs: jax.Array) -> jax.Array:
            return after.filled(mine, before, theirs, kept) if jnp.ndim(mine) == 1 else theirs

        return OptimizerState(jax.tree.map(vector, fresh.whole, state.whole), rows, visits)


class _Parts:
    """Where the blocks lie in the vector of all parameters."""

    def __init__(self, program: Program, whole: Any):
        leaves = jax.tree_util.tree_leaves_with_path(whole)
        self.shapes = [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves]
        self.slices: dict[str, slice] = {}
        self.owner: dict[str, str] = {}
        offset = 0
        for path, leaf in leaves:
            name = jax.tree_util.keystr(path)
            self.slices[name] = slice(offset, offset + leaf.size)
            self.owner[name] = str(path[1].key) if path[0].key == "guide" else ""
            offset += leaf.size

    def filled(self, mine: jax.Array, other: _Parts, theirs: jax.Array, kept: Collection[str]) -> jax.Array:
        for name, place in self.slices.items():
            stays = self.owner[name] == "" or self.owner[name] in kept
            if stays and name in other.slices:
                mine = mine.at[place].set(theirs[other.slices[name]])
        return mine


def table_shape(site: Site) -> tuple[int, ...]:
    """The shape of the rows of a table: the site's batch shape at full plates."""
    return site.full(site.batch_shape)


def split(program: Program, params: Any) -> tuple[Any, dict[str, Any]]:
    """Parameters -> all but tables, and the tables by block."""
    tables = {n: v for n, v in params["guide"].items() if n in program.tables}
    return {**params, "guide": {n: v for n, v in params["guide"].items() if n not in tables}}, tables


def joined(whole: Any, tables: Mapping[str, Any]) -> Any:
    """The inverse of `split`."""
    return {**whole, "guide": {**whole["guide"], **tables}}


def _over_rows(fn: Callable, depth: int) -> Callable:
    for _ in range(depth):
        fn = jax.vmap(fn)
    return fn


def _chosen(good: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
