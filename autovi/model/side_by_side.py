"""The steps of a scan side by side: its body, once, over arrays of what each step is given.

What the steps carry from one to the next is computed before. A leaf that does not depend on chosen sites is an array
of its values at all steps: counters are counted, what is made of each step alone is shifted, and the rest is left to a
scan that computes nothing else. A leaf that depends on chosen sites is made in each step anew, from the sites' values
at the steps before; one that is a state is an array of values too, which the step may take from the variable's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

from autovi.model.carried import Leaf, Steps
from autovi.model.graph import Values

Read = Callable[[Any], Any]  # a variable outside of the scan -> its value
Node = Callable[[str, int], jax.Array]  # a chosen site or a state, how many steps before -> its values, [T, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """A scan, and those of its results that are wanted."""

    steps: Steps
    results: tuple[Any, ...]

    @property
    def stacked(self) -> list[Any]:
        """The results that have an entry for each step."""
        ends = {leaf.result for leaf in self.steps.leaves}
        return [v for v in self.results if v not in ends]

    @property
    def final(self) -> list[Leaf]:
        """The leaves of the carry that are wanted as they are after the last step."""
        return [leaf for leaf in self.steps.leaves if leaf.result in self.results]

    @cached_property
    def atoms(self) -> list[Any]:
        """The wanted results in the body."""
        return [self.steps.made_by(v) for v in self.results]

    @cached_property
    def lags(self) -> dict[str, int]:
        """How many steps before its own a step looks back at each of the sites and states."""
        lags = dict.fromkeys([*self.steps.sites.values(), *self.steps.states.values()], 0)
        for steps, atoms in ((self.steps, self.atoms), (self.through, [leaf.after for leaf in self.steps.states])):
            made = [atoms, *([leaf.after for leaf in leaves] for leaves in steps.memory(atoms))]
            for before, of in enumerate(made):
                used = steps.used(of, steps.cut)
                now = [*steps.sites_of(used), *(steps.states[leaf] for leaf in steps.states_after(used))]
                then = [steps.states[leaf] for leaf in steps.states_before(used)]
                lags |= {n: max(lags[n], before) for n in now}
                lags |= {n: max(lags[n], before + 1) for n in then}
        return lags

    @cached_property
    def through(self) -> Steps:
        """The steps, in which states are made of those before."""
        return self.steps.with_states(self.steps.states, through=True)


TOO_EARLY = "autovi: too early for "


def side_by_side(plan: Plan, read: Read, node: Node) -> tuple[Values, dict[str, jax.Array]]:
    """The wanted results of a scan, the steps being computed one beside the other, and what each step makes of the
    states before it."""
    beside = SideBySide(plan, read, node)
    return beside.results(), beside.next_states()


def shifted(value: jax.Array, lag: int, backward: bool = False) -> jax.Array:
    """The entries `lag` steps before, [T, ...]; the first one stands for those that are not there."""
    if lag == 0:
        return value
    lag = min(lag, value.shape[0])
    if backward:
        return jnp.concatenate([value[lag:], *[value[-1:]] * lag])
    return jnp.concatenate([*[value[:1]] * lag, value[: value.shape[0] - lag]])


def too_early(order: jax.Array, lag: int) -> jax.Array:
    """Which steps have no step so many before them. The equation has a name: see `analysis/narrow.py`."""
    return checkpoint_name(order < lag, f"{TOO_EARLY}{lag}")


class SideBySide:
    """`fixed` are values of the body's variables that are the same at all steps, `rows` those that differ, [T, ...]."""

    def __init__(self, plan: Plan, read: Read, node: Node):
        self.plan, self.steps, self.read, self.node = plan, plan.steps, read, node
        steps = self.steps
        self.fixed: Values = {v: read(a) for v, a in steps.shared.items()}
        self.fixed |= {leaf.before: read(leaf.start) for leaf in steps.leaves if leaf.stays}
        self.rows: Values = {v: read(a) for v, a in steps.stacked.items()}
        order = lax.iota(jnp.int32, steps.length)
        self.order = order[::-1] if steps.reverse else order
        self.ends: dict[Leaf, Any] = {leaf: read(leaf.start) for leaf in steps.leaves if leaf.stays}
        # Nothing is left of where these start, once they have been made anew as often as they are.
        spans = {leaf: span for leaf, span in steps.spans.items() if leaf not in steps.states}
        long = [leaf for leaf, span in spans.items() if span is not None and span > 1]
        self.forgotten: Values = {leaf.before: _typed(read(leaf.start), leaf.before) for leaf in long}
        self._carry_what_is_needed()

    def results(self) -> Values:
        """The results by the scan's variables."""
        steps, stacked = self.steps, self.plan.stacked
        atoms = [steps.made_by(v) for v in stacked]
        made = self._over_steps(atoms)
        moved = [leaf for leaf in self.plan.final if leaf in steps.moved]
        last = self._last([leaf.after for leaf in moved])
        ends = dict(zip(moved, last, strict=True)) | self.ends
        return dict(zip(stacked, made, strict=True)) | {leaf.result: ends[leaf] for leaf in self.plan.final}

    def next_states(self) -> dict[str, jax.Array]:
        """The states after each step, [T, ...], made of those before."""
        leaves = self.steps.states
        made = self._over_steps([leaf.after for leaf in leaves], self.plan.through) if leaves else []
        return dict(zip(leaves.values(), made, strict=True))

    # --- leaves that do not depend on the sites ---------------------------------------------------------------------

    def _carry_what_is_needed(self) -> None:
        steps, needed = self.steps, self._needed()
        for leaf, by in steps.grows_by.items():
            if leaf in needed:
                start = self.read(leaf.start)
                self.rows[leaf.before] = start + self.order.astype(start.dtype) * by
                self.ends[leaf] = start + steps.length * by
        for leaf in steps.direct:
            if leaf in needed:
                after = self._over_steps([leaf.after])[0]
                start = _typed(self.read(leaf.start), leaf.before)[None]
                parts = [after[1:], start] if steps.reverse else [start, after[:-1]]
                self.rows[leaf.before] = jnp.concatenate(parts)
                self.ends[leaf] = after[0 if steps.reverse else -1]
        self._loop([leaf for leaf in steps.looped if leaf in needed])

    def _needed(self) -> set[Leaf]:
        """The leaves that do not depend on the sites and that what is wanted is made of."""
        steps = self.steps
        states = [leaf.after for leaf in steps.states]
        memory = [*steps.memory(self.plan.atoms), *self.plan.through.memory(states)]
        atoms = [*self.plan.atoms, *states, *(leaf.after for of in memory for leaf in of)]
        atoms += [leaf.after for leaf in self.plan.final]
        used = set(steps.used(atoms))
        direct = {leaf for leaf in steps.leaves if leaf.before in used} | set(self.plan.final)
        return (direct | {up for leaf in direct for up in steps.upstream(leaf)}) - set(steps.moved)

    def _loop(self, leaves: list[Leaf]) -> None:
        """Computes leaves one step after the other, and nothing else."""
        if not leaves:
            return
        after = [leaf.after for leaf in leaves]
        before = [leaf.before for leaf in leaves]
        rows = self._rows([v for v in self.steps.used(after) if v not in before], 0)

        def step(carry: list[Any], slices: Values) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
            new = self._evaluate(after, {**slices, **dict(zip(before, carry, strict=True))})
            new = [_typed(x, v) for x, v in zip(new, before, strict=True)]
            return new, (carry, new)

        start = [_typed(self.read(leaf.start), leaf.before) for leaf in leaves]
        keys = list(rows)
        end, (earlier, later) = lax.scan(
            lambda carry, xs: step(carry, dict(zip(keys, xs, strict=True))),
            start,
            list(rows.values()),
            length=self.steps.length,
            reverse=self.steps.reverse,
        )
        self.rows |= dict(zip(before, earlier, strict=True))
        self.rows |= {v: x for v, x in zip(after, later, strict=True) if not isinstance(v, Literal)}
        self.ends |= dict(zip(leaves, end, strict=True))

    # --- the body at a step -----------------------------------------------------------------------------------------

    def _over_steps(self, atoms: Sequence[Any], steps: Steps | None = None) -> list[Any]:
        """Variables of the body at all steps, [T, ...]. What does not differ from step to step is computed once."""
        memory, rows, early = self._given(atoms, steps or self.steps)

        def step(_: Any, slices: list[list[Any]], early: list[Any]) -> list[Any]:
            given = [dict(zip(row, of, strict=True)) for row, of in zip(rows, slices, strict=True)]
            return self._at_step(atoms, memory, given, early)

        return jax.vmap(step)(self.order, [list(row.values()) for row in rows], early)

    def _last(self, atoms: Sequence[Any]) -> list[Any]:
        """The same at the last step alone."""
        memory, rows, early = self._given(atoms, self.steps)
        place = 0 if self.steps.reverse else -1
        return self._at_step(
            atoms, memory, [{v: x[place] for v, x in r.items()} for r in rows], [e[place] for e in early]
        )

    def _given(self, atoms: Sequence[Any], steps: Steps) -> tuple[list[list[Leaf]], list[Values], list[jax.Array]]:
        """The leaves that are made anew for each step before, what that takes (first what the step itself takes), and
        whether a step is too early to have them."""
        memory = steps.memory(atoms)
        made = [atoms, *([leaf.after for leaf in leaves] for leaves in memory)]
        rows = [self._rows(steps.used(of, steps.cut), lag) for lag, of in enumerate(made)]
        return memory, rows, [too_early(self.order, lag) for lag in range(1, len(memory) + 1)]

    def _rows(self, used: Iterable[Any], lag: int) -> Values:
        """What the body reads `lag` steps before, of all that differs from step to step."""
        carried = {leaf.before for leaf in self.steps.moved if leaf not in self.steps.states}
        return {v: self._row(v, lag) for v in used if v not in self.fixed and v not in carried}

    def _row(self, v: Any, lag: int) -> jax.Array:
        steps = self.steps
        for leaf in steps.states_before([v]):
            start = _typed(self.read(leaf.start), leaf.before)
            there = self.node(steps.states[leaf], lag + 1)
            early = too_early(self.order, lag + 1).reshape(-1, *[1] * start.ndim)
            return jnp.where(early, start, there)
        for leaf in steps.states_after([v]):
            return self.node(steps.states[leaf], lag)
        if v not in steps.reads:
            return shifted(self.rows[v], lag, steps.reverse)
        array = steps.reads[v]
        if array in steps.sites:
            return self.node(steps.sites[array], lag)[: steps.length, None]
        return shifted(self.fixed[array][: steps.length], lag, steps.reverse)[:, None]

    def _at_step(
        self, atoms: Sequence[Any], memory: list[list[Leaf]], rows: list[Values], early: list[jax.Array]
    ) -> list[Any]:
        carried = self.forgotten
        for lag in range(len(memory), 0, -1):
            leaves = memory[lag - 1]
            new = self._evaluate([leaf.after for leaf in leaves], {**rows[lag], **carried})
            carried = dict(self.forgotten)
            for leaf, after in zip(leaves, new, strict=True):
                start = self.read(leaf.start)
                cases = (_typed(after, leaf.before), _typed(start, leaf.before))
                carried[leaf.before] = lax.select_n(early[lag - 1], *cases)
        return self._evaluate(atoms, {**rows[0], **carried})

    def _evaluate(self, atoms: Sequence[Any], given: Values) -> list[Any]:
        known = {**self.fixed, **given}
        made = self.steps.body.evaluate(atoms, known.__contains__, known.__getitem__)
        return [read_atom(v, made) for v in atoms]


def read_atom(atom: Any, made: Values) -> Any:
    """The value of a variable or a literal of a program."""
    aval = atom.aval
    return jnp.asarray(atom.val, aval.dtype) if isinstance(atom, Literal) else made[atom]


def _typed(value: Any, like: Any) -> Any:
    """The value in the type of a variable of the program."""
    return value if value.dtype == like.aval.dtype else jnp.asarray(value, like.aval.dtype)
