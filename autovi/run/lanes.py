"""Legs of one program in lanes: one compiled chunk of steps over several states, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.compiling import LIGHT_WORK, compiler_options, num_equations, numbers_of, work_of
from autovi.keys import is_key
from autovi.run.ahead import MAX_BYTES
from autovi.run.background import Compiling
from autovi.run.engine import FEW_STEPS, rounded_up
from autovi.run.loop import make_chunk
from autovi.run.running import Steps
from autovi.run.state import State
from autovi.run.stopping import CHUNK, Progress, Schedule

# More lanes are no faster for each on a CPU, whose vector registers eight fill, and on an accelerator where its cores
# are busy.
MOST_ON_CPU, MOST = 8, 64
# What all lanes may take at once: a fixed number, so that the same call makes the same lanes whatever else is going on.
BUDGET = 2**30
# On a CPU a lane saves about so much of the time of each number that a step computes, and a program of lanes takes so
# much longer to compile for each of its equations (see `benchmarks/restarts.py`).
SAVED_SECONDS, COMPILE_SECONDS = 3e-10, 1e-3


class Cost(NamedTuple):
    """What a step of one lane costs: numbers that it computes, equations of its program, bytes that it holds."""

    numbers: float
    equations: int
    bytes: float


def count_of_lanes(legs: Sequence[Steps]) -> int:
    """How many lanes are worth it for these legs of one program, a power of two; 1: they run one after another.

    A callback wants to be called as steps are made, and a checkpoint promises the same bits whatever ran beside: such
    legs have no lanes. Neither has a plan with nothing to optimize.
    """
    first = legs[0]
    if len(legs) == 1 or any(leg.watch.callback or leg.watch.journal for leg in legs):
        return 1
    if not jax.tree.leaves((first.state.params, first.state.tables)):
        return 1
    cost = first.engine.kept(("cost",), lambda: _cost(first))
    on_cpu = jax.default_backend() == "cpu"
    fits = min(MOST_ON_CPU if on_cpu else MOST, int(BUDGET / max(1.0, cost.bytes)))
    lanes = min(rounded_up(len(legs)), 1 << (max(1, fits).bit_length() - 1))
    steps = sum(leg.progress.expected_steps for leg in legs)
    pays = not on_cpu or steps * cost.numbers * SAVED_SECONDS > cost.equations * COMPILE_SECONDS
    return lanes if pays else 1


def _cost(leg: Steps) -> Cost:
    engine, schedule = leg.engine, jax.tree.map(_shape, Progress(1, 1).schedule(0))
    chunk = make_chunk(engine.program, engine.source, engine.optimizer)
    jaxpr = chunk.trace(leg.state, leg.arrays, schedule).jaxpr
    numbers = numbers_of(jaxpr) / CHUNK
    own = sum(x.nbytes for x in jax.tree.leaves((leg.state, leg.arrays)))
    # A step seldom holds all that it computes; states are there twice, before they are stacked.
    size = jnp.zeros(()).dtype.itemsize
    return Cost(numbers, num_equations(jaxpr), numbers * size + 3 * own + MAX_BYTES)


class Lanes:
    """The states of so many lanes as one, and the programs that fill, advance and read them.

    Data that are the same in all legs are held once; `own` are the names of the others.
    """

    def __init__(self, legs: Sequence[Steps], count: int):
        first = legs[0]
        self.count, self.engine = count, first.engine
        self.own = frozenset(name for name in first.arrays if not _are_equal([leg.arrays[name] for leg in legs]))
        self.shared = {n: x for n, x in first.arrays.items() if n not in self.own}
        self._key = (str(first.state.rng_key.dtype), count, self.own)
        steps = FEW_STEPS if all(leg.progress.expected_steps <= FEW_STEPS for leg in legs) else 10 * FEW_STEPS
        key = ("lanes", *self._key, steps)
        self.compiling: Compiling = self.engine.kept(key, lambda: self._compiling(first, steps))
        self._all: Any = None

    def fill(self, lane: int, leg: Steps) -> None:
        """Puts a leg's state into a lane; the leg keeps its own."""
        one = self._of(leg)
        if self._all is None:
            begin = self._small("begin", lambda one: jax.tree.map(lambda x: jnp.stack([x] * self.count), one))
            self._all = begin(one)
            return
        put = self._small("put", lambda all, lane, one: jax.tree.map(lambda a, x: a.at[lane].set(x), all, one), 0)
        self._all = put(self._all, np.int32(lane), one)

    def advance(self, chunk: Callable, schedules: Sequence[Schedule]) -> np.ndarray:
        """A chunk of steps in every lane, each by its own schedule: the losses, `(lanes, steps)`."""
        state, own = self._all
        schedule = jax.tree.map(lambda *x: np.stack(x), *schedules)
        state, losses = chunk(state, own, self.shared, schedule)
        self._all = (state, own)
        return np.asarray(losses)

    @property
    def skipped(self) -> np.ndarray:
        """How many steps changed nothing, by lane."""
        return np.asarray(self._all[0].skipped)

    def state(self, lane: int) -> State:
        """The state in a lane."""
        return self._small("take", lambda state, lane: jax.tree.map(lambda x: x[lane], state))(
            self._all[0], np.int32(lane)
        )

    def _of(self, leg: Steps) -> tuple[State, Mapping[str, Any]]:
        return leg.state, {n: x for n, x in leg.arrays.items() if n in self.own}

    def _small(self, name: str, function: Callable, *donated: int) -> Callable:
        key = ("lanes", name, *self._key)
        options = compiler_options(1)
        return self.engine.kept(key, lambda: jax.jit(function, donate_argnums=donated, compiler_options=options))

    def _compiling(self, leg: Steps, num_steps: float) -> Compiling:
        engine, count = self.engine, self.count
        one = make_chunk(engine.program, engine.source, engine.optimizer, count)

        def chunk(state: State, own: Any, shared: Any, schedule: Schedule) -> tuple[State, jax.Array]:
            return one(state, {**shared, **own}, schedule)

        lanes = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), tree)  # noqa: E731
        state, own = self._of(leg)
        schedule = lanes(Progress(1, 1).schedule(0))
        every = jax.jit(jax.vmap(chunk, in_axes=(0, 0, None, 0)), donate_argnums=0)
        traced = every.trace(lanes(state), lanes(own), self.shared, schedule)
        # Code that is compiled with all care takes three times as long to compile, and is no faster here.
        work = work_of(traced.jaxpr, num_steps / CHUNK)
        work = work if work == inf else min(work, LIGHT_WORK)  # infinite: other code would be wrong
        options = compiler_options(work, num_equations(traced.jaxpr))
        lowered = traced.lower()
        return Compiling(lambda: lowered.compile(options), traced.jaxpr)


def idle() -> Schedule:
    """The schedule of a lane that rests."""
    zeros = np.zeros(CHUNK, np.float32)
    return Schedule(zeros, zeros + 1, zeros)


def _are_equal(arrays: Sequence[Any]) -> bool:
    first, *others = arrays
    if is_key(first):
        return all(x is first for x in others)
    return all(x is first or np.array_equal(np.asarray(x), np.asarray(first)) for x in others)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
