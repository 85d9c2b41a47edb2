"""The costs that may jump, as functions of one long vector: compiled once, whichever site moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.analysis.bounded_loops import bounded, has_loops, work
from autovi.analysis.jump_test import Jumps, jumps_between
from autovi.analysis.trial_values import MAX_PAIRS
from autovi.compiling import LIGHT_WORK, QUICK_WORK, compiler_options, work_of

MAX_TERMS = 4
GRID = 33
EVALUATIONS = GRID + MAX_TERMS * 132  # that the test of one segment takes

Evaluate = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


class Segments:
    """The suspected terms along segments of the suspects: `ends` says whether they can be computed there, `jumps` runs
    the test. Segment `i` of a site goes from its trial value `i` to its trial value `MAX_PAIRS + i`.

    `suspects` maps every suspected site to its suspected terms; `evaluate` gives all terms from the values of all nodes
    and the data. The position of all suspects together is one vector, of which a segment moves the part of one site.
    Terms that are not suspected of that site are held at zero. So one compiled program serves all sites.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        suspects: Mapping[str, Mapping[str, Any]],
        values: Mapping[str, Array],
        arrays: Mapping[str, Array],
    ) -> None:
        self.nodes = sorted(suspects)
        self.terms = sorted({t for terms in suspects.values() for t in terms})
        self._suspects = suspects
        self._shapes = {n: values[n].shape[1:] for n in self.nodes}
        self._places = np.cumsum([0, *(prod(self._shapes[n]) for n in self.nodes)])
        parts = [jnp.reshape(values[n], (2 * MAX_PAIRS, -1)) for n in self.nodes]
        self._positions = jnp.concatenate(parts, axis=1)
        self._others = {n: v for n, v in values.items() if n not in suspects}
        self._arrays = arrays
        one = self._positions[0], {n: v[0] for n, v in self._others.items()}, arrays
        program, shapes = jax.make_jaxpr(partial(self._at, evaluate), return_shape=True)(*one)
        self.has_loops = has_loops(program)
        self.work = work(program)
        self._edges = np.cumsum([prod(shapes[t].shape) for t in self.terms])
        self._run = bounded(program)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def _at(self, evaluate: Evaluate, position: Array, others: dict[str, Any], arrays: Any) -> dict[str, Any]:
        parts = zip(self.nodes, self._places, self._places[1:], strict=False)
        moved = {n: position[a:b].reshape(self._shapes[n]) for n, a, b in parts}
        every = evaluate({**others, **moved}, arrays)
        return {t: every[t] for t in self.terms}

    def prepare(self, name: str) -> Callable[..., Any]:
        """The compiled `ends` or `jumps`, with the arguments of `_arguments` and the number of steps for loops."""
        if name not in self._compiled:
            program = {"ends": self._ends, "jumps": self._jumps}[name]
            traced = jax.jit(program).trace(*self._arguments(self.nodes[0], 0), 0)
            self._compiled[name] = traced.lower().compile(self._options(traced.jaxpr))
        return self._compiled[name]

    def _options(self, program: Any) -> dict[str, Any]:
        """To compile well what takes milliseconds would take longer than all of it; how long loops take is not known.
        Light code, not quick one: the test compares numbers that differ by little."""
        work = float(MAX_PAIRS * len(self.nodes) * EVALUATIONS) * self.work
        least = LIGHT_WORK if self.has_loops else QUICK_WORK + 1
        return compiler_options(max(least, work) if np.isfinite(work_of(program)) else np.inf)

    def ends(self, node: str, pair: int, steps: int) -> bool:
        """Do the loops end within so many steps at every point of the grid on the segment?"""
        ended, _ = self.prepare("ends")(*self._arguments(node, pair), steps)
        return bool(ended)

    def jumps(self, node: str, pair: int, steps: int) -> Jumps:
        """The jump on the segment. Points on it at which the loops do not end count as undefined."""
        return jax.tree.map(np.asarray, self.prepare("jumps")(*self._arguments(node, pair), steps))

    def term(self, jumps: Jumps) -> str:
        """The name of the term that jumps."""
        return self.terms[int(np.searchsorted(self._edges, jumps.term[0], side="right"))]

    def _arguments(self, node: str, pair: int) -> tuple[Array, Array, dict[str, Array], Any, Array]:
        i = self.nodes.index(node)
        own = slice(self._places[i], self._places[i + 1])
        start = self._positions[pair]
        end = start.at[own].set(self._positions[MAX_PAIRS + pair, own])
        # A jump in one site may show at some values of another only, so these change from pair to pair.
        others = {n: v[pair] for n, v in self._others.items()}
        suspected = jnp.asarray([t in self._suspects[node] for t in self.terms])
        return start, end, others, self._arrays, suspected

    def _ends(self, start: Array, end: Array, others: Any, arrays: Any, suspected: Array, steps: Array) -> Any:
        def one(t: Array) -> tuple[Array, Any]:
            leaves = jax.tree.leaves((start + t.astype(start.dtype) * (end - start), others, arrays))
            outs, ended = self._run(steps, *leaves)
            return ended, [jnp.sum(out) for out in outs]

        ended, sums = jax.vmap(one)(jnp.linspace(0.0, 1.0, GRID, dtype=start.dtype))
        # With the terms' sums, or the compiler would leave out what is to be timed.
        return jnp.all(ended), sums

    def _jumps(self, start: Array, end: Array, others: Any, arrays: Any, suspected: Array, steps: Array) -> Jumps:
        def terms(position: Array, others: Any) -> list[Array]:
            outs, ended = self._run(steps, *jax.tree.leaves((position, others, arrays)))
            return [jnp.where(suspected[i], jnp.where(ended, out, jnp.nan), 0.0) for i, out in enumerate(outs)]

        context = jax.tree.map(lambda x: x[None], others)
        return jumps_between(terms, start[None], end[None], context, num_points=GRID, max_terms=MAX_TERMS)
