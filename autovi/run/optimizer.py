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
from autovi.run.tables import Row, Table, Visits, table_shape

MANY = 16  # leaves of parameters, from which on they are updated as one vector


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
    """The user's Optax transformation, or Adam with a learning rate that the host sets (None), whose gradients are
    scaled down to the norm `longest` where they are longer.

    Parameters of local sites of a subsampled plate are tables, of which a step sees some rows: the optimizer's memory
    of every row is its own, counts of steps included, and rests while the row is not seen. So a step costs the same
    however many rows there are; a transformation that looks at the norm of all gradients sees a row's alone.
    """

    transform: optax.GradientTransformation | None = None
    longest: float | None = None

    @property
    def base(self) -> optax.GradientTransformation:
        """The transformation whose updates are applied."""
        if self.transform is not None:
            return self.transform
        adam = optax.scale_by_adam()
        return adam if self.longest is None else optax.chain(optax.clip_by_global_norm(self.longest), adam)

    def init(self, whole: Any) -> Any:
        """The memory of all parameters but tables, before the first step."""
        return self.base.init(self._vector(whole))

    def init_table(self, site: Site, params: Any, mean: Any = None) -> Table:
        """The table of a site with these parameters, before the first step."""
        shape = table_shape(site)
        visits = Visits(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32))
        memory = _over_rows(self.base.init, len(shape))(params)
        return Table.of(site, Row(params, params if mean is None else mean, memory, visits))

    def _is_vector(self, tree: Any) -> bool:
        """Adam works element by element, and of many leaves it compiles faster as one vector; a user's transformation
        sees the tree as it is."""
        return self.transform is None and len(jax.tree.leaves(tree)) > MANY

    def _vector(self, tree: Any) -> Any:
        return ravel_pytree(tree)[0] if self._is_vector(tree) else tree

    def _scaled(self, updates: Any, rate: jax.Array) -> Any:
        return jax.tree.map(lambda u: -rate * u, updates) if self.transform is None else updates

    def step(
        self, params: Any, average: Any, memory: Any, grads: Any, pace: Pace, good: jax.Array
    ) -> tuple[Any, Any, Any]:
        """Parameters, their running mean and the memory after a step; as before where the step is not `good`. All but
        tables."""
        vector, unravel = self._raveled(params)
        updates, moved_memory = self.base.update(self._vector(grads), memory, vector)
        moved = optax.apply_updates(vector, self._scaled(updates, pace.rate))
        means = self._vector(average)
        weight = pace.weight(pace.number)
        moved_mean = jax.tree.map(lambda a, p: a + weight * (p - a), means, moved)
        chosen = _chosen(good, (moved, moved_mean, moved_memory), (vector, means, memory))
        return unravel(chosen[0]), unravel(chosen[1]), chosen[2]

    def _raveled(self, whole: Any) -> tuple[Any, Callable[[Any], Any]]:
        return ravel_pytree(whole) if self._is_vector(whole) else (whole, lambda tree: tree)

    def step_rows(self, site: Site, old: Row, grad: Any, pace: Pace, number: jax.Array, good: jax.Array) -> Row:
        """The rows of a table that step `number` saw, after it; as before where the step is not `good`."""
        updates, memory = _over_rows(self.base.update, len(table_shape(site)))(grad, old.memory, old.params)
        params = optax.apply_updates(old.params, self._scaled(updates, pace.rate))
        # A row that the present mean has not seen yet starts it.
        times = jnp.where(old.visits.last <= number - pace.number, 0, old.visits.times) + 1
        weight = jnp.where(pace.number <= 1, 1.0, pace.weight(times))

        def moved(a: jax.Array, p: jax.Array) -> jax.Array:
            return a + weight.reshape(weight.shape + (1,) * (p.ndim - weight.ndim)) * (p - a)

        mean = jax.tree.map(moved, old.mean, params)
        visits = Visits(times, jnp.full_like(old.visits.last, number))
        return _chosen(good, Row(params, mean, memory, visits), old)

    def moved(self, memory: Any, before: Any, after: Any, kept: Collection[str]) -> Any:
        """The memory for the parameters `after` of another plan: what belongs to the blocks `kept` stays."""
        remembered = _by_leaf(memory, before, self._is_vector(before))

        def filled(path: Any, leaf: jax.Array) -> jax.Array:
            found = remembered.get(jax.tree_util.keystr(path))
            inside = [step.key for step in path if isinstance(step, jax.tree_util.DictKey)]
            stays = "guide" not in inside or inside[inside.index("guide") + 1] in kept
            return found if stays and found is not None and found.shape == leaf.shape else leaf

        whole = jax.tree_util.tree_map_with_path(filled, _as_tree(self.init(after), after, self._is_vector(after)))
        if self._is_vector(after):
            made: Any = jax.tree.structure(after)
            is_params = lambda part: bool(jax.tree.structure(part) == made)  # noqa: E731
            flat = lambda part: ravel_pytree(part)[0] if is_params(part) else part  # noqa: E731
            whole = jax.tree.map(flat, whole, is_leaf=is_params)
        return whole


def _as_tree(memory: Any, params: Any, is_vector: bool) -> Any:
    """An optimizer's memory with trees of parameters in the place of vectors."""
    if not is_vector:
        return memory
    vector, unravel = ravel_pytree(params)
    return jax.tree.map(lambda x: unravel(x) if jnp.shape(x) == vector.shape else x, memory)


def _by_leaf(memory: Any, params: Any, is_vector: bool) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(_as_tree(memory, params, is_vector))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


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
