"""Sites in which a cost's derivative, as JAX computes it, is not its slope: a pathwise gradient would be wrong there.

`jax.lax.stop_gradient` takes a derivative away, and a function with a rule of its own (`jax.custom_jvp`) may have any.
The traced program says where there are such (`structure`), evaluation says whether they matter (`slope_test`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from math import prod
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.bounded_loops import UnboundedError, bounded, options_of, work
from autovi.analysis.slope_test import EVALUATIONS, POINTS, Slopes, coarsest, slopes_along
from autovi.analysis.structure import Structure, cost_terms
from autovi.analysis.trial_values import MAX_PAIRS, apart, as_double, tried_at
from autovi.model.inputs import Inputs
from autovi.model.sites import Sites
from autovi.numbers import how_many, number

LIMIT = 10.0  # seconds that all evaluations together may take; compiling comes on top
PAIRS = 32  # of values between which a cost is followed
BUDGET = 20_000_000_000  # numbers that the evaluations of one site may make
STEPS = 2_000  # that the `while` loops of one evaluation may take
MIN_POINTS = 4 * POINTS  # at which something can be said, for a site to count as tested
# Points at which the derivative has to be wrong, and the share of those known. A right one may seem wrong where a cost
# has lost all its digits, as log(1 - sigmoid(x)) has from x = 35 on, and nowhere else.
MIN_WRONG, SHARE = 4, 0.02


@dataclass(frozen=True)
class FalseSlopes:
    """`found`: continuous site -> the terms whose derivative is wrong in it, how, and the operations suspected.
    `untested`: site -> the terms suspected, and why they could not be tested."""

    found: Mapping[str, str] = field(default_factory=dict)
    untested: Mapping[str, str] = field(default_factory=dict)


def find_false_slopes(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    structure: Structure,
    settled: Collection[str] = (),
) -> FalseSlopes:
    """The sites in which a cost's derivative is wrong, and those of which that could not be found out.

    Costs nothing where no operation is suspected. It is the sum of the suspected terms that is tested, since what is
    held fixed in two terms may cancel, and each density of a guide on its own. In double precision, whatever the fit's;
    where the functions do not run in it, in single precision. `settled` are sites that need no test.
    """
    suspects = {n: terms for n, terms in structure.rules.items() if terms and n not in settled}
    if not suspects:
        return FalseSlopes()
    arrays = jax.device_put(inputs.traced())
    try:
        values = tried_at(model, guide, inputs, arrays, sites, suspects)
        evaluate = cost_terms(model, guide, inputs, sites)
        return _tested(evaluate, suspects, values, arrays)
    except UnboundedError as error:
        return _all_untested(suspects, f"a loop inside the operation {error} cannot be bounded")


def untested_slopes(structure: Structure) -> FalseSlopes:
    """What is to be said where the functions close over values that are not known yet."""
    reason = "the function closes over values that a transformation of JAX's traces; make them arguments"
    return _all_untested({n: terms for n, terms in structure.rules.items() if terms}, reason)


def _all_untested(suspects: Mapping[str, Mapping[str, Any]], reason: str) -> FalseSlopes:
    return FalseSlopes({}, {n: _untested(terms, reason) for n, terms in suspects.items()})


def _untested(terms: Mapping[str, Any], reason: str) -> str:
    return f"whether the derivative of {_named(terms)} is its slope in it, with {_by(terms)}, was not tested: {reason}"


def _named(terms: Mapping[str, Any]) -> str:
    first, *others = sorted(terms)
    return f"the term {first!r}" + (f" (with {how_many(len(others), 'other')})" if others else "")


def _by(terms: Mapping[str, Any]) -> str:
    return ", ".join(sorted({name for names in terms.values() for name in names}))


def _tested(evaluate: Callable, suspects: Mapping[str, Any], values: Any, arrays: Any) -> FalseSlopes:
    search = None
    for double in (True, False):
        try:
            search = _Search(evaluate, suspects, values, arrays, double)
            break
        except UnboundedError:
            raise
        except Exception as error:  # of whatever kind: the functions, and the rules in them, are the user's
            said = str(error).strip().split("\n")[0]
    if search is None:
        return _all_untested(suspects, f"JAX cannot differentiate it ({said})")
    found, untested = {}, {}
    search.run()
    for node, terms in suspects.items():
        seen = search.seen[node]
        known = sum(int(s.known) for s in seen)
        wrong = [s for s in seen if s.wrong > 0]
        if known < MIN_POINTS:
            reason = f"that would take more than {LIMIT:g} seconds"
            if not search.late:
                reason = "at most values tried it or its derivative is not finite, or takes too many steps of loops"
            untested[node] = _untested(terms, reason)
        elif sum(int(s.wrong) for s in wrong) >= max(MIN_WRONG, SHARE * known):
            found[node] = _said(terms, wrong)
    return FalseSlopes(found, untested)


def _said(terms: Mapping[str, Any], wrong: list[Slopes]) -> str:
    # The one in the middle, by how wrong it is: the first ones are near the origin, the last ones far away.
    some = sorted(wrong, key=lambda s: abs(float(s.slope) - float(s.derivative)))[len(wrong) // 2]
    slope, derivative = number(float(some.slope)), number(float(some.derivative))
    return f"where {_named(terms)} has the slope {slope}, its derivative is {derivative}, by {_by(terms)}"


class _Search:
    """The suspected terms and their gradient along segments of the suspects, compiled once for all sites.

    The position of all suspects together is one vector, of which a segment moves the part of one site.
    """

    def __init__(self, evaluate: Callable, suspects: Mapping[str, Any], values: Any, arrays: Any, double: bool) -> None:
        self.double, self.late = double, False
        self.nodes, self.suspects = sorted(suspects), suspects
        self.seen: dict[str, list[Slopes]] = {n: [] for n in self.nodes}
        self.terms = sorted({t for terms in suspects.values() for t in terms})
        with self._precision():
            if double:
                values, arrays = ({n: as_double(v) for n, v in tree.items()} for tree in (values, arrays))
            self.shapes = {n: values[n].shape[1:] for n in self.nodes}
            self.places = np.cumsum([0, *(prod(self.shapes[n]) for n in self.nodes)])
            self.positions = jnp.concatenate([values[n].reshape(2 * MAX_PAIRS, -1) for n in self.nodes], axis=1)
            self.others = {n: v for n, v in values.items() if n not in suspects}
            self.arrays = arrays
            self._compile(evaluate)

    def _precision(self) -> AbstractContextManager[None]:
        return jax.enable_x64(True) if self.double else nullcontext()

    def _compile(self, evaluate: Callable) -> None:
        key = jax.random.key(0)

        def total(position: Any, others: Any, arrays: Any, weights: Any) -> Any:
            parts = zip(self.nodes, self.places, self.places[1:], strict=False)
            moved = {n: position[a:b].reshape(self.shapes[n]) for n, a, b in parts}
            every, _ = evaluate(*apart({**others, **moved}, arrays), key)
            chosen = [(w, every[t]) for t, w in zip(self.terms, weights, strict=True)]
            return jnp.sum(jnp.stack([jnp.sum(jnp.where(w != 0, w * x, 0.0)) for w, x in chosen]))

        self.arguments = self._segment(self.nodes[0], 0)
        start, _, *rest = self.arguments
        gradient = jax.make_jaxpr(jax.value_and_grad(total))(start, *rest)
        eps, run = coarsest(gradient), bounded(gradient)
        self.work = EVALUATIONS * work(gradient)

        def test(start: Any, end: Any, *rest: Any) -> Slopes:
            def at(x: Any) -> tuple[Any, Any]:
                (value, slope), ended = run(STEPS, x, *jax.tree.leaves(rest))
                return jnp.where(ended, value, jnp.nan), slope

            return slopes_along(at, start, end, eps)

        options = options_of(gradient.jaxpr, float(PAIRS * EVALUATIONS))
        self.compiled = jax.jit(test).lower(*self.arguments).compile(options)

    def _segment(self, node: str, pair: int) -> tuple[Any, ...]:
        i = self.nodes.index(node)
        own = slice(self.places[i], self.places[i + 1])
        start = self.positions[pair]
        end = start.at[own].set(self.positions[MAX_PAIRS + pair, own])
        others = {n: v[pair] for n, v in self.others.items()}
        # Densities of a guide count on their own: no two weights in the sum are alike.
        weight = {t: 1.0 if t.startswith("p:") else 1.0 + (0.618 * i) % 1.0 for i, t in enumerate(self.terms, 1)}
        weights = [weight[t] * (t in self.suspects[node]) for t in self.terms]
        return start, end, others, self.arrays, jnp.asarray(weights, start.dtype)

    def run(self) -> None:
        """Follows the terms along segments of every site in turn, as many as there is time for."""
        pairs = int(np.clip(BUDGET // max(self.work, 1), MIN_POINTS // POINTS, PAIRS))
        spent = last = 0.0
        with self._precision():
            for pair, node in product(range(pairs), self.nodes):
                if spent + last > LIMIT:
                    self.late = True
                    return
                began = perf_counter()
                found = self.compiled(*self._segment(node, pair))
                self.seen[node].append(jax.tree.map(np.asarray, found))
                last = perf_counter() - began
                spent += last
