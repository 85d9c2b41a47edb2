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

MANY = 16  # leaves of parameters, from which on they are updated as one vector


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

    def _is_vector(self, tree: Any) -> bool:
        """Adam works element by element, and of many leaves it compiles faster as one vector; a user's transformation
        sees the tree as it is."""
        return self.transform is None and len(jax.tree.leaves(tree)) > MANY

    def _vector(self, tree: Any) -> Any:
        return ravel_pytree(tree)[0] if self._is_vector(tree) else tree

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
        return ravel_pytree(whole) if self._is_vector(whole) else (whole, lambda tree: tree)

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
        before, after = (split(program, params)[0] for program, params in (old, new))
        remembered = _by_leaf(state.whole, before, self._is_vector(before))

        def filled(path: Any, leaf: jax.Array) -> jax.Array:
            found = remembered.get(jax.tree_util.keystr(path))
            inside = [step.key for step in path if isinstance(step, jax.tree_util.DictKey)]
            stays = "guide" not in inside or inside[inside.index("guide") + 1] in kept
            return found if stays and found is not None and found.shape == leaf.shape else leaf

        whole = jax.tree_util.tree_map_with_path(filled, _as_tree(fresh.whole, after, self._is_vector(after)))
        if self._is_vector(after):
            made: Any = jax.tree.structure(after)
            is_params = lambda part: bool(jax.tree.structure(part) == made)  # noqa: E731
            flat = lambda part: ravel_pytree(part)[0] if is_params(part) else part  # noqa: E731
            whole = jax.tree.map(flat, whole, is_leaf=is_params)
        return OptimizerState(whole, rows, visits)


def _as_tree(memory: Any, params: Any, is_vector: bool) -> Any:
    """An optimizer's memory with trees of parameters in the place of vectors."""
    if not is_vector:
        return memory
    vector, unravel = ravel_pytree(params)
    return jax.tree.map(lambda x: unravel(x) if jnp.shape(x) == vector.shape else x, memory)


def _by_leaf(memory: Any, params: Any, is_vector: bool) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(_as_tree(memory, params, is_vector))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


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
