"""Sites at whose value a cost jumps: a pathwise gradient would be wrong there without a sign of it.

The traced program says where an operation could jump (`structure`), evaluation says whether it does (`jump_test`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.bounded_loops import UnboundedError, call_bounded
from autovi.analysis.segments import EVALUATIONS, GRID, Segments
from autovi.analysis.structure import Structure, cost_terms
from autovi.analysis.trial_values import MAX_PAIRS, apart, as_double, tried_at
from autovi.compiling import compiler_options
from autovi.model.inputs import Inputs
from autovi.model.sites import Sites
from autovi.model.targets import as_target
from autovi.numbers import nats

LIMIT = 10.0  # seconds that all evaluations together may take; compiling, once per precision, comes on top
MIN_PAIRS = 8  # of values between which a cost has to be followed, for a site to count as tested
BUDGET = 2_000_000_000  # numbers that the evaluations of one site may produce
# Steps that the `while` loops of one evaluation may take. The next number is for sites of which most segments need it.
STEPS = (1_000, 10_000, 100_000)
HUGE = 10_000_000_000  # numbers along one segment that are not asked for at all: about LIMIT seconds of them
LARGE = 1_000_000  # numbers in one evaluation, from which on its time is measured before hundreds are asked for


@dataclass(frozen=True)
class Discontinuities:
    """`found`: continuous site -> the cost term that jumps in it, by how much, and the operations suspected.
    `untested`: site -> the term suspected of a jump, and why it could not be tested."""

    found: Mapping[str, str] = field(default_factory=dict)
    untested: Mapping[str, str] = field(default_factory=dict)


def find_jumps(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    structure: Structure,
) -> Discontinuities:
    """The sites in which a cost jumps, and those of which that could not be found out.

    Costs nothing where no operation could jump. See `trial_values` for the segments that are tried. The evaluations end
    after `LIMIT` seconds, and the loops inside them after `STEPS`. A single segment that takes longer than predicted is
    the only thing that can exceed the limit. Of a site for which 0 has a probability of its own, as behind a hurdle,
    other values than 0 are tried: nothing is followed from there.
    """
    suspects = {n: terms for n, terms in structure.jumps.items() if terms}
    if not suspects:
        return Discontinuities()
    evaluate = cost_terms(model, guide, inputs, sites)
    key = jax.random.key(0)
    arrays = jax.device_put(inputs.traced())  # a model may index them by traced plate indices, which NumPy's cannot be

    def terms(values: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        return evaluate(*apart(values, arrays), key)[0]

    size = sum(prod(s) for s in structure.shapes.values()) + 1
    pairs = int(np.clip(BUDGET // (size * EVALUATIONS), MIN_PAIRS, MAX_PAIRS))
    try:
        values = tried_at(model, guide, inputs, arrays, sites, suspects)
        nowhere = _undefined(terms, suspects, values, arrays) if as_target(model).guided else frozenset()
        if nowhere:
            reason = "it is NaN or infinite at nearly all values tried"
            return Discontinuities({}, {n: _untested(ts, reason) for n, ts in suspects.items() if nowhere & set(ts)})
        search = _Search(terms, suspects, values, arrays, pairs)
        search.run()
    except UnboundedError as error:
        reason = f"a loop inside the operation {error} cannot be bounded"
        return Discontinuities({}, {n: _untested(terms, reason) for n, terms in suspects.items()})
    return search.said()


def _undefined(terms: Callable, suspects: Mapping[str, Any], values: Any, arrays: Any) -> frozenset[str]:
    """The suspected terms that are no number at nearly all values tried: in a loss of arguments that are not known yet
    they may be. A test would find no jump there."""

    def defined(at: dict[str, Any]) -> dict[str, jax.Array]:
        every = terms(at, arrays)
        return {t: jnp.all(jnp.isfinite(every[t])) for ts in suspects.values() for t in ts}

    one = lambda at: call_bounded(defined, STEPS[0], at)[0]  # noqa: E731
    starts = {n: v[:MAX_PAIRS] for n, v in values.items()}
    found = jax.jit(jax.vmap(one), compiler_options=compiler_options(work=0))(starts)
    return frozenset(t for t, finite in found.items() if np.sum(finite) < MIN_PAIRS)


def untested_jumps(structure: Structure) -> Discontinuities:
    """What is to be said where the functions close over values that are not known yet."""
    reason = "the function closes over values that a transformation of JAX's traces; make them arguments"
    return Discontinuities({}, {n: _untested(terms, reason) for n, terms in structure.jumps.items() if terms})


def _untested(terms: Mapping[str, Any], reason: str) -> str:
    term = min(terms)
    return f"whether the term {term!r} jumps in it, by {', '.join(sorted(terms[term]))}, was not tested: {reason}"


@dataclass
class _Suspect:
    """One site under test."""

    node: str
    waiting: list[int]  # segments to be tested
    endless: list[int] = field(default_factory=list)  # segments on which the loops took too many steps
    tested: int = 0
    double: bool = False
    jump: str | None = None

    def doubt(self, pair: int, pairs: int) -> None:
        """Start again in double precision, at the segment where single precision saw a jump."""
        self.waiting = [pair, *(p for p in range(pairs) if p != pair)]
        self.endless, self.tested, self.double = [], 0, True


class _OutOfTimeError(Exception):
    """The next evaluation is not expected to end within the limit."""


class _Search:
    """Goes round the suspects, a segment of each in turn, until all are settled or the time is up."""

    def __init__(self, terms: Callable, suspects: Mapping[str, Any], values: Any, arrays: Any, pairs: int) -> None:
        self.terms, self.suspects, self.values, self.arrays, self.pairs = terms, suspects, values, arrays, pairs
        self.sites = [_Suspect(n, list(range(pairs))) for n in suspects]
        self.spent = 0.0
        self.late = False  # was something left out for lack of time?
        self.expected: dict[Any, float] = {}  # seconds of the next evaluation, by what it is
        self.segments: dict[bool, Segments] = {}
        self.already_double = bool(jax.config.read("jax_enable_x64"))

    def run(self) -> None:
        steps_tried = STEPS if self._segments(False).has_loops else STEPS[:1]
        if GRID * self._segments(False).work > HUGE:
            self.late = True
            return
        try:
            for steps in steps_tried:
                self._go_on_to(steps)
                while active := [s for s in self.sites if self._goes_on(s, steps)]:
                    for site in active:
                        with self._precision(site.double):
                            self._step(site, steps)
        except _OutOfTimeError:
            pass

    def _go_on_to(self, steps: int) -> None:
        """Segments on which the loops did not end wait for another trial, which takes longer as it has more steps."""
        for site in self.sites:
            site.waiting, site.endless = site.waiting + site.endless, []
        fewer = [n for n in STEPS if n < steps]
        for double in (False, True):
            before = self.expected.get((double, fewer[-1], "ends"), 0.0) if fewer else 0.0
            self.expected[double, steps, "ends"] = before * steps / fewer[-1] if fewer else 0.0

    def _goes_on(self, site: _Suspect, steps: int) -> bool:
        enough = self.pairs if steps == STEPS[0] else self.pairs // 2
        return site.jump is None and bool(site.waiting) and site.tested < enough

    def _step(self, site: _Suspect, steps: int) -> None:
        """Tests the next segment of a site."""
        segments = self._segments(site.double)
        pair = site.waiting.pop(0)
        known = (site.double, steps)
        if segments.has_loops or (segments.work > LARGE and known not in self.expected):
            ended = self._timed((*known, "ends"), segments, "ends", site.node, pair, steps)
            # How long loops take depends on the values: this segment's own measurement says what its test would take.
            self.expected[known] = self.expected[*known, "ends"] * EVALUATIONS / GRID
            late = self.spent + self.expected[known] > LIMIT
            self.late |= late
            if late or not ended:
                site.endless.append(pair)
                return
        found = self._timed(known, segments, "jumps", site.node, pair, 2 * steps)
        site.tested += 1
        if not found.found[0]:
            return
        if not (site.double or self.already_double):
            # In single precision the rounding of large terms that cancel makes steps of its own.
            site.doubt(pair, self.pairs)
            return
        term = segments.term(found)
        by = ", ".join(sorted(self.suspects[site.node][term]))
        site.jump = f"the term {term!r} jumps by {nats(float(found.size[0]))} in it, by {by}"

    def _timed(self, what: Any, segments: Segments, name: str, node: str, pair: int, steps: int) -> Any:
        """The result of an evaluation, unless there is no time for it. Compiling is not counted."""
        if self.spent + self.expected.get(what, 0.0) > LIMIT:
            self.late = True
            raise _OutOfTimeError
        segments.prepare(name)
        start = perf_counter()
        result = getattr(segments, name)(node, pair, steps)
        self.expected[what] = perf_counter() - start
        self.spent += self.expected[what]
        return result

    def _precision(self, double: bool) -> AbstractContextManager[None]:
        return jax.enable_x64(True) if double else nullcontext()

    def _segments(self, double: bool) -> Segments:
        """The suspected terms in one precision, in which they must be called."""
        if double not in self.segments:
            values, arrays = self.values, self.arrays
            if double:
                values, arrays = ({n: as_double(v) for n, v in tree.items()} for tree in (values, arrays))
            self.segments[double] = Segments(self.terms, self.suspects, values, arrays)
        return self.segments[double]

    def said(self) -> Discontinuities:
        jumps = {s.node: s.jump for s in self.sites if s.jump is not None}
        untested = {}
        for site in self.sites:
            if site.jump is None and site.tested < MIN_PAIRS:
                reason = f"at most values tried, its loops take more than {STEPS[-1]:,} steps"
                if self.late:
                    reason = f"that would take more than {LIMIT:g} seconds"
                untested[site.node] = _untested(self.suspects[site.node], reason)
        return Discontinuities(jumps, untested)
