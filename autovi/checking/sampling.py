"""Many gradient estimates of one step, by one compiled program for each plan, and how long one takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jax.flatten_util import ravel_pytree

from autovi.compiling import LIGHT_WORK, compiler_options, numbers_of, work_of
from autovi.model.traced import data_input
from autovi.program.program import Program
from autovi.run.engine import Engine
from autovi.run.loop import trained
from autovi.run.state import init_estimators

# Numbers that one call of a program gives back, and how many estimates that may be.
RETURNED, FEWEST, MOST = 2**20, 64, 2048
WARM_UP = 1000  # steps that train what an estimator has of parameters, q standing still
MAX_NUMBERS = 500  # of one array, that are looked at


class Point(NamedTuple):
    """Where gradients are taken: what is differentiated, {"guide": ..., "param": ...}, or {"argument": ...} of arrays
    by path, and what is not."""

    params: Mapping[str, Any]
    constants: Mapping[str, Any]
    arrays: Mapping[str, Any]

    def taken(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The engine's parameters and arrays at other values of what is differentiated."""
        of_engine = {"guide": params.get("guide", {}), "param": params.get("param", {}), "constants": self.constants}
        return of_engine, {**self.arrays, **params.get("argument", {})}


class Array(NamedTuple):
    """An array of parameters, and where the numbers of it that are looked at stand in a row of estimates."""

    kind: str  # "guide", "param" or "argument"
    owner: str  # the block, the parameter site or the path
    name: str  # as a user knows it
    leaf: str  # the input of the graph, but of a block's
    size: int
    start: int
    stop: int


def arrays_of(params: Mapping[str, Any]) -> list[Array]:
    """The arrays of a tree of parameters, in the order of its leaves."""
    found: list[Array] = []
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        kind, owner, *rest = (_key(step) for step in path)
        leaf = data_input(owner) if kind == "argument" else f"param:{owner}{jax.tree_util.keystr(path[2:])}"
        name = ".".join(rest) if kind == "guide" else "".join([owner, *(f"[{step!r}]" for step in rest)])
        start = found[-1].stop if found else 0
        size = int(np.size(array))
        found.append(Array(kind, owner, name, leaf, size, start, start + min(size, MAX_NUMBERS)))
    return found


def _key(step: Any) -> Any:
    return getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))


def _looked_at(size: int) -> np.ndarray:
    return np.arange(size) if size <= MAX_NUMBERS else np.linspace(0, size - 1, MAX_NUMBERS).astype(int)


def rows(engine: Engine, point: Point, own: Any, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A row of the objective's gradient for every key, of those numbers that are looked at, and its estimates."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            taken, arrays = point.taken(params)
            value, info = engine.estimate(taken, own, arrays, key)
            return value, info.elbo

        grads, value = jax.grad(loss, has_aux=True)(point.params)
        leaves = [jnp.ravel(g)[_looked_at(g.size)] for g in jax.tree.leaves(grads)]
        return -jnp.concatenate(leaves), value

    return jax.lax.map(one, keys)


def fault(engine: Engine, point: Point) -> str | None:
    """What is said where the gradient cannot be traced under a plan; None where it can."""
    own, keys = engine.estimator_params(), jax.random.split(jax.random.key(0), 1)
    try:
        jax.eval_shape(lambda *args: rows(engine, *args), point, own, keys)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def chunk_of(point: Point) -> int:
    """How many estimates one call of a program makes."""
    columns = arrays_of(point.params)[-1].stop if jax.tree.leaves(point.params) else 1
    return int(np.clip(RETURNED // max(columns, 1), FEWEST, MOST))


class Sampler:
    """The estimates under one plan, batch after batch, in which one follows the other as in a fit.

    `seconds` is the least time of an estimate, `numbers` roughly how many one computes.
    """

    def __init__(self, engine: Engine, point: Point, rng_key: jax.Array):
        self.engine, self.point = engine, point
        self.own = _trained_own(engine, point, rng_key)
        self.seconds = math.inf
        self.chunk = chunk_of(point)
        self._run, self.numbers = engine.kept(("check", "rows", self.chunk), self._compiled)

    def _compiled(self) -> Any:
        keys = jax.random.split(jax.random.key(0), self.chunk)
        fn = lambda *args: rows(self.engine, *args)  # noqa: E731
        traced = jax.jit(fn).trace(self.point, self.own, keys)
        # All alike, whatever their work, so that their times compare.
        work = work_of(traced.jaxpr)
        run = traced.lower().compile(compiler_options(work if math.isinf(work) else LIGHT_WORK))
        return run, numbers_of(traced.jaxpr) / self.chunk

    def batch(self, keys: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """A row for each of `chunk` keys, and the estimates of the objective."""
        start = perf_counter()
        found = jax.block_until_ready(self._run(self.point, self.own, keys))
        self.seconds = min(self.seconds, (perf_counter() - start) / self.chunk)
        return np.asarray(found[0]), np.asarray(found[1])


def _trained_own(engine: Engine, point: Point, rng_key: jax.Array) -> Any:
    """The estimators' own parameters after `WARM_UP` steps at parameters that stand still."""
    own, states = init_estimators(engine.program, rng_key)
    if not jax.tree.leaves(own):
        return own
    program = engine.program

    def run(point: Point, own: Any, states: Any, keys: jax.Array) -> Any:
        params, everything = point.taken(point.params)

        def step(learned: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
            arrays, indices = engine.source.next(everything, jnp.zeros((), jnp.int32), key)
            grads = jax.grad(lambda own: engine.estimate(params, own, arrays, key, indices)[0])(learned[0])
            seen, slopes = (program.seen_estimators(tree, indices) for tree in (learned[0], grads))
            good = jnp.all(jnp.isfinite(ravel_pytree(slopes)[0]))
            return trained(program, *learned, seen, slopes, indices, good), None

        return jax.lax.scan(step, (own, states), keys)[0][0]

    keys = jax.random.split(rng_key, WARM_UP)
    warm = engine.kept(("check", "own"), lambda: jax.jit(run, compiler_options=compiler_options()))
    return warm(point, own, states, keys)


def node_parameters(program: Program, block: str, arrays: list[Array]) -> list[Array]:
    """The arrays whose gradient is taken by the estimator of a block: those that its distribution depends on, by way of
    blocks above it too, and those of the model in terms below it."""
    above = [block, *(b.name for b in program.plan.blocks if program.is_below(block, b.name))]
    graph = program.traced.graph

    def variables(names: Iterable[str]) -> set[Any]:
        found = (graph.outputs.get(name) for name in names)
        return {v for v in found if v is not None and not isinstance(v, Literal)}

    def distributions(nodes: Iterable[str]) -> set[Any]:
        kinds = tuple(f"{kind}:{n}:" for n in nodes for kind in ("distribution", "draw"))
        return variables(o for o in graph.outputs if o.startswith(kinds))

    of_above, of_any = distributions(above), distributions(program.order)
    below = variables(o for term in program.downstream(block) for o in program.outputs_of(term))

    def concerned(array: Array) -> bool:
        if array.kind == "guide":
            return array.owner in above
        reached = graph.downstream([graph.inputs[array.leaf]] if array.leaf in graph.inputs else [])
        return bool(reached & of_above) or (not reached & of_any and bool(reached & below))

    return [a for a in arrays if concerned(a)]
