"""Chains: variables that are felt some steps later, summed out along the axis of steps.

The message after step t is a table over the values of the last steps, as far back as they are felt. A step multiplies
it by the step's factors and sums out what is felt no more: the forward algorithm. On an accelerator, where each step
of a loop is a launch or several, and the states are few, the steps are dealt to blocks that go forward side by side,
each with a table from its first state to its last (a product of matrices is associative; Särkkä and García-Fernández,
2021, "Temporal Parallelization of Bayesian Smoothers"): of T steps only about 2 sqrt(T) come one after the other. A CPU
takes a step in 90 ns, and blocks were 1.3 to 2 times slower there (2 states, 200 and 2,000 steps).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import jax
import jax.numpy as jnp

from autovi.elimination.along import taken_along
from autovi.elimination.factors import Factor, contracted, product, sizes_of, without
from autovi.elimination.network import Network
from autovi.elimination.semirings import Counted, Semiring
from autovi.model.lags import lagged

MIN_BLOCKED = 64  # steps from which on blocks pay
BLOCK = "%block"  # the axis of blocks
MAX_BLOCKED = 512  # entries of a product of two tables from state to state, all elements of a step together


def summed_over_steps(factors: Sequence[Factor], local: Collection[str], semiring: Semiring) -> list[Factor]:
    """The factors without the variables that are felt in their own step alone, all steps side by side."""
    left = list(factors)
    for variable in sorted(local):
        having = [f for f in left if variable in f.axes]
        left = [f for f in left if variable not in f.axes]
        left.append(contracted(having, {variable}, semiring))
    return left


def chained(
    network: Network,
    factors: Sequence[Factor],
    chains: Sequence[str],
    time: str,
    semiring: Semiring,
    lanes: int = 1,
) -> Factor:
    """The factors without the variables that are chained along `time`; `lanes` particles are side by side."""
    after = [lagged(v, lag) for v in chains for lag in range(network.lags[v])]
    older = {lagged(v, lag): lagged(v, lag + 1) for v in chains for lag in range(network.lags[v])}
    oldest = {lagged(v, network.lags[v]) for v in chains}
    if network.backward.issuperset(chains):
        factors = [f.turned(time) for f in factors]
    message = _before(network, after, factors)
    early = max(len(f.first) for f in factors)
    for step in range(early):
        message = contracted([message.renamed(older), *_at_first(factors, time, step)], oldest, semiring)
    steps = Steps.of(factors, time, network.sizes[time]).part(early, network.sizes[time])
    if all(lag == 1 for lag in (network.lags[v] for v in chains)) and _pays(network, factors, after, time):
        length = isqrt(steps.length)
        rest = steps.length % length
        message = steps.part(0, rest).through(message, older, oldest, semiring, lanes)
        steps, older, oldest = steps.part(rest, steps.length).in_blocks(length, older, semiring, lanes)
    message = steps.through(message, older, oldest, semiring, lanes)
    sources = frozenset().union(*(f.sources for f in factors))
    return contracted([message], set(after), semiring)._replace(sources=sources).whole(network.sizes)


def _at_first(factors: Sequence[Factor], time: str, step: int) -> list[Factor]:
    """The factors of one of the first steps."""
    found = []
    for f in factors:
        if step < len(f.first):
            found.append(Factor(f.first[step], without(f.axes, {time})))
        else:
            found.append(f.at(time, step) if time in f.axes else f)
    return found


def _pays(network: Network, factors: Sequence[Factor], after: Sequence[str], time: str) -> bool:
    """Are steps side by side faster than one after the other?"""
    if jax.default_backend() == "cpu":
        return False
    states = prod(network.sizes[network.variables[a]] for a in after)
    beside = {a for f in factors for a in f.axes} - set(network.variables) - {time}
    return network.sizes[time] >= MIN_BLOCKED and states**3 * prod(network.sizes[a] for a in beside) <= MAX_BLOCKED


def _before(network: Network, after: Sequence[str], factors: Sequence[Factor]) -> Factor:
    """The message before the first step. What is felt of the time before is in the factors of the first steps, whatever
    the lagged values are: one of them stands for all."""
    dtype = jnp.result_type(*(f.table for f in factors))
    table = jnp.full([network.sizes[network.variables[a]] for a in after], -jnp.inf, dtype)
    return Factor(table.at[(0,) * len(after)].set(0.0), tuple(after))


@dataclass(frozen=True)
class Steps:
    """The factors of each step: those that differ between steps, with these in front, and those that are the same."""

    moving: tuple[Factor, ...]
    still: tuple[Factor, ...]
    length: int

    @classmethod
    def of(cls, factors: Sequence[Factor], time: str, length: int) -> Steps:
        """The factors taken apart along an axis."""
        differ = [time in f.axes and (f.sizes[time] > 1 or length == 1) for f in factors]
        rests = [(f, without(f.axes, {time})) for f, moves in zip(factors, differ, strict=True) if moves]
        moving = tuple(Factor(f.along((time, *rest)), rest) for f, rest in rests)
        still = [f for f, moves in zip(factors, differ, strict=True) if not moves]
        return cls(moving, tuple(f.at(time, 0) if time in f.axes else f for f in still), length)

    def part(self, start: int, end: int) -> Steps:
        """Some of the steps."""
        moving = tuple(f._replace(table=f.table[start:end]) for f in self.moving)
        return Steps(moving, self.still, end - start)

    def at(self, tables: Sequence[jax.Array]) -> list[Factor]:
        """The factors of one step, from its rows of those that differ."""
        return [Factor(t, f.axes) for t, f in zip(tables, self.moving, strict=True)] + list(self.still)

    def through(
        self, message: Factor, older: Mapping[str, str], oldest: Collection[str], semiring: Semiring, lanes: int
    ) -> Factor:
        """A message taken through all steps: each makes its variables `older`, and sums out the `oldest`."""
        if not self.length:
            return message
        first = self.at([f.table[0] for f in self.moving])
        sizes = sizes_of([*first, message])
        axes = tuple(dict.fromkeys([*message.axes, *(a for a in sizes if a not in oldest)]))

        def moved(table: jax.Array, factors: Sequence[Factor], semiring: Semiring) -> jax.Array:
            made = contracted([Factor(table, axes).renamed(older), *factors], oldest, semiring)
            return jnp.broadcast_to(made.along(axes), table.shape)

        def step(table: jax.Array, now: tuple[list[jax.Array], Any]) -> tuple[jax.Array, None]:
            return moved(table, self.at(now[0]), semiring.at_step(now[1], self.length)), None

        start = jnp.broadcast_to(message.along(axes), [sizes[a] for a in axes])
        rows = [f.table for f in self.moving], semiring.steps(self.length)
        counted = Counted()
        jax.eval_shape(lambda table: moved(table, first, counted), start)
        held = sum(prod(shape) for _, _, shape, _ in counted.sums)
        return Factor(taken_along(step, start, rows, self.length, held, lanes), axes)

    def in_blocks(
        self, length: int, older: Mapping[str, str], semiring: Semiring, lanes: int
    ) -> tuple[Steps, dict[str, str], set[str]]:
        """Blocks of so many steps, each as one step from the states at its start, and what these are called."""
        count = self.length // length
        dealt = [f.table.reshape(count, length, *f.table.shape[1:]) for f in self.moving]
        moving = [Factor(jnp.moveaxis(t, 1, 0), (BLOCK, *f.axes)) for t, f in zip(dealt, self.moving, strict=True)]
        inside = Steps(tuple(moving), self.still, length)
        start = {new: f"{old}^" for old, new in older.items()}
        whole = product([f.renamed(start) for f in inside.at([f.table[0] for f in moving])])
        whole = inside.part(1, length).through(whole, older, set(older.values()), semiring, lanes)
        return Steps.of([whole], BLOCK, count), {v: f"{v}^" for v in older}, set(start.values())
