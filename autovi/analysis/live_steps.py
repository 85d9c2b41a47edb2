"""The operands of a scan that live elements of its results may feel, step by step from the last one back.

Of a step, its body says what is felt: of what it puts out, and of what it carries on, by the steps after it. What a
step reads that does not change, such as its mask, decides; where that is carried, as the counter of `t < length`, the
steps are gone through once with it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from autovi.analysis.primitives import shape_of
from autovi.model.graph import Graph, scan_counts

Masks = list[Array | None]
Backward = Callable[[Graph, dict[Any, Array], frozenset[Any], Callable[[Any], Any]], dict[Any, Array]]


def steps_felt(eqn: Any, outs: Masks, moving: Sequence[bool], fixed: Sequence[Any], backward: Backward) -> Masks:
    """Which elements of every operand of a scan are felt.

    Args:
        eqn: the scan.
        outs: which elements of each result are live; None: none.
        moving: of each operand, whether it changes with what is asked for.
        fixed: the array of each operand that does not change and is known, None of others.
        backward: `liveness`'s rule for the equations of a graph.
    """
    return _Scan(eqn, tuple(moving), tuple(fixed), backward).felt(outs)


@dataclass(frozen=True, eq=False)
class _Scan:
    eqn: Any
    moving: tuple[bool, ...]
    fixed: tuple[Any, ...]
    backward: Backward

    @cached_property
    def body(self) -> ClosedJaxpr:
        body = self.eqn.params["jaxpr"]
        return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, [])

    @cached_property
    def graph(self) -> Graph:
        body = self.body
        constants = dict(zip(body.jaxpr.constvars, body.consts, strict=True))
        return Graph(body, list(body.jaxpr.eqns), constants, {}, dict(enumerate(self.outs)))

    @cached_property
    def ins(self) -> list[Any]:
        return list(self.body.jaxpr.invars)

    @cached_property
    def outs(self) -> list[Any]:
        return list(self.body.jaxpr.outvars)

    @cached_property
    def parts(self) -> tuple[slice, slice, slice]:
        """Where among the operands constants, carried values and those sliced by step are."""
        consts, carried = scan_counts(self.eqn)
        return slice(0, consts), slice(consts, consts + carried), slice(consts + carried, None)

    @cached_property
    def inside(self) -> frozenset[Any]:
        """What changes within a step: also what is carried from a step in which it does."""
        _, carried, _ = self.parts
        entering = {v for v, moves in zip(self.ins, self.moving, strict=True) if moves}
        while True:
            reached = self.graph.downstream(entering)
            pairs = zip(self.ins[carried], self.outs, strict=False)
            more = {i for i, o in pairs if i not in entering and not isinstance(o, Literal) and o in reached}
            if not more:
                return frozenset(reached)
            entering |= more

    @cached_property
    def settled(self) -> dict[Any, int]:
        """The carried values that are known at every step -> their place among the operands."""
        consts, carried, sliced = self.parts
        known = {v for p in (consts, sliced) for v, x in zip(self.ins[p], self.fixed[p], strict=True) if x is not None}
        found = {
            v: i for i, v in enumerate(self.ins) if carried.start <= i < carried.stop and self.fixed[i] is not None
        }
        while True:
            given = known | set(found)
            lost = [v for v, i in found.items() if not self._follows(self.outs[i - carried.start], given)]
            if not lost:
                return found
            for v in lost:
                del found[v]

    def _follows(self, out: Any, given: set[Any]) -> bool:
        """Is a result of a step made of what is given?"""
        if isinstance(out, Literal) or out in given:
            return True
        if out in self.inside:
            return False
        try:
            self.graph.needed([out], lambda v: v in given or v in self.graph.constants)
        except KeyError:
            return False
        return True

    def _read(self, out: Any, given: dict[Any, Any]) -> Any:
        """A variable of a step, from those given; None where these do not suffice."""
        if isinstance(out, Literal):
            return jnp.asarray(out.val)
        if out in given:
            return given[out]
        if not self._follows(out, set(given)):
            return None
        return self.graph.evaluate([out], given.__contains__, given.__getitem__)[out]

    @cached_property
    def sliced(self) -> tuple[list[Any], list[Array]]:
        """The variables of a step of which all values are known, and these, one after the other."""
        consts, carried, by_step = self.parts
        there = {v: x for v, x in zip(self.ins[by_step], self.fixed[by_step], strict=True) if x is not None}
        if self.settled:
            names = list(there)

            def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
                given = {
                    **self.held,
                    **dict(zip(names, row, strict=True)),
                    **dict(zip(self.settled, carry, strict=True)),
                }
                new = [self._read(self.outs[i - carried.start], given) for i in self.settled.values()]
                return [jnp.asarray(n, c.dtype) for n, c in zip(new, carry, strict=True)], carry

            start = [jnp.asarray(self.fixed[i], v.aval.dtype) for v, i in self.settled.items()]
            _, before = lax.scan(step, start, [there[v] for v in names], self.length, self.eqn.params["reverse"])
            there |= dict(zip(self.settled, before, strict=True))
        return list(there), list(there.values())

    @cached_property
    def held(self) -> dict[Any, Any]:
        """The constants that are known."""
        consts, _, _ = self.parts
        return {v: x for v, x in zip(self.ins[consts], self.fixed[consts], strict=True) if x is not None}

    @property
    def length(self) -> int:
        return int(self.eqn.params["length"])

    def felt(self, outs: Masks) -> Masks:
        """By operand: what is carried from the end to the start, constants being felt if a step feels them."""
        consts, carried, by_step = self.parts
        num = carried.stop - carried.start
        off = lambda v, front=(): jnp.zeros((*front, *shape_of(v)), bool)  # noqa: E731
        ends = [off(o) if m is None else m for o, m in zip(self.ins[carried], outs[:num], strict=True)]
        ys = [off(o, (self.length,)) if m is None else m for o, m in zip(self.outs[num:], outs[num:], strict=True)]
        names, rows = self.sliced

        def step(state: Any, row: Any) -> Any:
            carry, so_far = state
            out, values = row
            alive = self._one_step([*carry, *out], {**self.held, **dict(zip(names, values, strict=True))})
            of = lambda part: [alive.get(v, off(v)) for v in self.ins[part]]  # noqa: E731
            return (of(carried), jax.tree.map(jnp.logical_or, so_far, of(consts))), of(by_step)

        start = (ends, [off(v) for v in self.ins[consts]])
        forward = bool(self.eqn.params["reverse"])  # from the last step that runs to the first
        (at_start, of_consts), steps = lax.scan(step, start, (ys, rows), self.length, reverse=not forward)
        found = [*of_consts, *at_start, *steps]
        return [mask if moves else None for mask, moves in zip(found, self.moving, strict=True)]

    def _one_step(self, masks: list[Array], given: dict[Any, Any]) -> dict[Any, Array]:
        ends: dict[Any, Array] = {}
        for out, mask in zip(self.outs, masks, strict=True):
            if not isinstance(out, Literal):
                ends[out] = ends[out] | mask if out in ends else mask
        fixed = lambda v: None if v in self.inside else self._read(v, given)  # noqa: E731
        return self.backward(self.graph, ends, self.inside, fixed)
