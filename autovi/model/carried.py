"""What the steps of a scan remember of one another, read from its body.

A scan carries values from step to step, and so what a step computes may depend on all steps before. It depends on the
last few alone where what is carried of a site is its value, or a function of its last values: `Steps` tells which of
the carried leaves depend on chosen sites, and how far back. Leaves may be made variables of their own (`states.py`):
then nothing is remembered through them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from autovi.model.forgotten import steps_to_forget
from autovi.model.graph import Graph, scan_counts

# Operations on whole numbers by which an index is made of a counter.
OF_COUNTERS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "lt": np.less,
    "ge": np.greater_equal,
    "min": np.minimum,
    "max": np.maximum,
    "select_n": lambda which, *cases: np.where(which, cases[-1], cases[0]),
    "convert_element_type": lambda x: x,
}


@dataclass(frozen=True, eq=False)
class Leaf:
    """One array that a scan carries: `before` and `after` a step in its body, `start` outside of it."""

    label: str
    before: Any
    after: Any
    start: Any
    result: Any  # outside: what it is after the last step

    @property
    def stays(self) -> bool:
        """Is it the same at all steps?"""
        return self.after is self.before


class Steps:
    """A scan equation, of which the nodes `sites` (a variable of the program -> its site) are chosen.

    `shared` and `stacked` are the body's inputs that are the same at all steps, and those that are slices, with what
    they are outside. `reads` are variables of the body that are a shared array's slice at the step, with that array.
    `states` are leaves that are variables, with their names.
    """

    def __init__(self, eqn: Any, sites: Mapping[Any, str]):
        given = eqn.params["jaxpr"]
        closed = given if isinstance(given, ClosedJaxpr) else ClosedJaxpr(given, [])
        jaxpr = closed.jaxpr
        num_shared, num_carry = scan_counts(eqn)
        end = num_shared + num_carry
        outputs = {str(i): v for i, v in enumerate(jaxpr.outvars)}
        constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        self.eqn = eqn
        self.body = Graph(closed, jaxpr.eqns, constants, {str(i): v for i, v in enumerate(jaxpr.invars)}, outputs)
        self.length, self.reverse = int(eqn.params["length"]), bool(eqn.params["reverse"])
        self.shared = dict(zip(jaxpr.invars[:num_shared], eqn.invars[:num_shared], strict=True))
        self.stacked = dict(zip(jaxpr.invars[end:], eqn.invars[end:], strict=True))
        self.made = dict(zip(eqn.outvars, jaxpr.outvars, strict=True))
        labels = _labels(jaxpr)
        parts = (jaxpr.invars[num_shared:end], jaxpr.outvars, eqn.invars[num_shared:end], eqn.outvars)
        self.leaves = [Leaf(n, *of) for n, *of in zip(labels[num_shared:end], *parts, strict=False)]
        self.sites = {v: sites[a] for v, a in self.shared.items() if not isinstance(a, Literal) and a in sites}
        self._inputs = set(jaxpr.invars)
        self.states: Mapping[Leaf, str] = {}
        self._through = False

    def with_states(self, states: Mapping[Leaf, str], through: bool = False) -> Steps:
        """The same with leaves as variables. Values after a step are those of the variables, or are computed from those
        before, where it is seen `through` them."""
        steps = copy(self)
        steps.states, steps._through = dict(states), through
        return steps

    def made_by(self, result: Any) -> Any:
        """The variable of the body that a result of the scan is at each step, or after the last one."""
        return self.made[result]

    # --- which steps are read ---------------------------------------------------------------------------------------

    @cached_property
    def grows_by(self) -> dict[Leaf, int]:
        """The counters, and what is added to them at each step."""
        found = {}
        for leaf in self.leaves:
            maker = None if isinstance(leaf.after, Literal) else self.body.maker(leaf.after)
            if maker is not None and maker.primitive.name == "add" and leaf.before in maker.invars:
                others = [v for v in maker.invars if v is not leaf.before]
                whole = np.issubdtype(leaf.before.aval.dtype, np.integer) and leaf.before.aval.shape == ()
                if whole and len(others) == 1 and isinstance(others[0], Literal):
                    found[leaf] = int(others[0].val)
        return found

    @cached_property
    def reads(self) -> dict[Any, Any]:
        """The variables of the body that are, at a step, the slice of that step of an array that all steps share."""
        order = np.arange(self.length)
        known = {
            leaf.before: np.asarray(leaf.start.val) + by * order
            for leaf, by in self.grows_by.items()
            if isinstance(leaf.start, Literal)
        }
        places = order[::-1] if self.reverse else order
        found = {}
        for eqn in self.body.eqns:
            if eqn.primitive.name == "dynamic_slice":
                array, first, *_ = eqn.invars  # along the others it is whole, wherever it is said to begin
                shape = array.aval.shape
                whole = not isinstance(array, Literal) and array in self.shared and shape[0] >= self.length
                if whole and eqn.params["slice_sizes"] == (1, *shape[1:]):
                    at = self._numbers(first, known)
                    if at is not None and np.array_equal(np.broadcast_to(at, places.shape), places):
                        found[eqn.outvars[0]] = array
        return found

    def _numbers(self, atom: Any, known: dict[Any, Any]) -> Any:
        """What a whole number made of counters is at each step; None of one that is not made so."""
        if isinstance(atom, Literal):
            return np.asarray(atom.val)
        if atom not in known:
            eqn = self.body.maker(atom)
            operation = None if eqn is None else OF_COUNTERS.get(eqn.primitive.name)
            operands = [] if operation is None else [self._numbers(v, known) for v in eqn.invars]
            known[atom] = None if operation is None or any(x is None for x in operands) else operation(*operands)
        return known[atom]

    def read_elsewhere(self) -> list[str]:
        """The chosen sites whose values a step takes of other steps than itself."""
        ends = set(variables(self.body.outputs.values()))
        others = lambda v: any(e.outvars[0] not in self.reads for e in self.body.users(v)) or v in ends  # noqa: E731
        return [site for v, site in self.sites.items() if others(v)]

    # --- what is remembered -----------------------------------------------------------------------------------------

    def used(self, atoms: Iterable[Any], cut: Iterable[Any] = ()) -> list[Any]:
        """What the body's variables are made of: its inputs, `reads`, and those at which it is `cut`."""
        known = self._inputs | set(self.reads) | set(cut)
        constants = self.body.constants
        _, used = self.body.needed(atoms, lambda v: v in known or v in constants)
        return [v for v in used if v not in constants]

    def sites_of(self, used: Iterable[Any]) -> list[str]:
        """The chosen sites among what is used."""
        return [self.sites[self.reads[v]] for v in used if self.reads.get(v) in self.sites]

    @cached_property
    def _above(self) -> dict[Leaf, tuple[set[Leaf], set[str]]]:
        """The leaves, and the chosen sites at the same step, that a leaf's next value is made of."""
        of_before = {leaf.before: leaf for leaf in self.leaves}
        above = {}
        for leaf in self.leaves:
            used = self.used([leaf.after])
            above[leaf] = {of_before[v] for v in used if v in of_before}, set(self.sites_of(used))
        return above

    def upstream(self, leaf: Leaf) -> set[Leaf]:
        """The leaves that a leaf is made of, at the step before or earlier."""
        found: set[Leaf] = set()
        todo = [leaf]
        while todo:
            new = self._above[todo.pop()][0] - found
            found |= new
            todo.extend(new)
        return found

    def told_of(self, leaf: Leaf) -> list[str]:
        """The chosen sites that a leaf depends on."""
        return sorted({site for one in {leaf, *self.upstream(leaf)} for site in self._above[one][1]})

    @cached_property
    def moved(self) -> list[Leaf]:
        """The leaves that depend on chosen sites."""
        return [leaf for leaf in self.leaves if self.told_of(leaf)]

    @cached_property
    def direct(self) -> list[Leaf]:
        """Of the other leaves those that are made of what is known of each step, so that no step waits for another: in
        an order in which each comes after those that it is made of."""
        simple = {leaf for leaf in self.leaves if leaf.stays or leaf in self.grows_by} - set(self.moved)
        todo = [leaf for leaf in self.leaves if leaf not in simple and leaf not in self.moved]
        order: list[Leaf] = []
        while new := [leaf for leaf in todo if self._above[leaf][0] <= simple | set(order)]:
            order += new
            todo = [leaf for leaf in todo if leaf not in order]
        return order

    @cached_property
    def looped(self) -> list[Leaf]:
        """Those that have to be computed one step after the other."""
        done = {*self.moved, *self.direct, *self.grows_by}
        return [leaf for leaf in self.leaves if not leaf.stays and leaf not in done]

    @property
    def cut(self) -> list[Any]:
        """Variables of the body that need not be computed again: the loop over its steps has done so, or they are those
        of states."""
        known = self.looped if self._through else [*self.looped, *self.states]
        return variables(leaf.after for leaf in known)

    def remembered(self, atoms: Iterable[Any]) -> list[Leaf]:
        """The leaves that depend on chosen sites and that variables of the body are made of, those apart that are
        states."""
        used = set(self.used(atoms, self.cut))
        return [leaf for leaf in self.moved if leaf.before in used and leaf not in self.states]

    def states_before(self, used: Collection[Any]) -> list[Leaf]:
        """The states of which what is used has the value before the step."""
        return [leaf for leaf in self.states if leaf.before in used]

    def states_after(self, used: Collection[Any]) -> list[Leaf]:
        """Those of which it has the value after the step, and no other's before it."""
        before = {leaf.before for leaf in self.states}
        return [leaf for leaf in self.states if leaf.after in used and leaf.after not in before]

    def endless(self, atoms: Iterable[Any]) -> list[Leaf]:
        """The leaves at fault where the memory of variables of the body has no end."""
        needed = self.remembered(atoms)
        above = {*needed, *(leaf for one in needed for leaf in self.upstream(one))}
        return [leaf for leaf in self.moved if leaf in above and (self.spans[leaf] is None or self._in_circle(leaf))]

    def _in_circle(self, leaf: Leaf) -> bool:
        """Is a leaf made of others that are made of it?"""
        return any(leaf in self.upstream(other) for other in self._above[leaf][0] if other is not leaf)

    @cached_property
    def spans(self) -> dict[Leaf, int | None]:
        """How many steps a leaf of `moved` reaches back by itself: one but where it holds its own last values; None of
        one that has no end."""
        own = {leaf: leaf in self._above[leaf][0] for leaf in self.moved}
        return {leaf: steps_to_forget(self.body, leaf.before, leaf.after) if own[leaf] else 1 for leaf in self.moved}

    def memory(self, atoms: Iterable[Any]) -> list[list[Leaf]]:
        """The leaves of `moved` that variables of the body depend on at a step, one step before it, two, and so on: an
        end comes to it where those `endless` are states."""
        found: list[list[Leaf]] = []
        needed = {leaf: self.spans[leaf] for leaf in self.remembered(atoms)}
        longest = sum(span or 0 for span in self.spans.values())
        while needed:
            assert None not in needed.values() and len(found) <= longest, "a leaf remembers all steps before"
            found.append(list(needed))
            needed = self._before(needed)
        return found

    def _before(self, needed: Mapping[Leaf, int | None]) -> dict[Leaf, int | None]:
        """The leaves, and how far they still reach back, that the next values of those `needed` are made of."""
        found: dict[Leaf, int | None] = {}
        for leaf, left in needed.items():
            for above in self.remembered([leaf.after]):
                span = (left or 0) - 1 if above is leaf else self.spans[above]
                if span != 0:
                    known = found.get(above, 0)
                    found[above] = None if span is None or known is None else max(span, known)
        return found

    def is_kept(self, leaf: Leaf) -> bool:
        """Is a leaf's next value either what it was or another one (`jnp.where`)?"""
        return leaf.before in self._cases(leaf.after)

    def _cases(self, atom: Any) -> list[Any]:
        eqn = None if isinstance(atom, Literal) else self.body.maker(atom)
        if eqn is None:
            return [atom]
        name = eqn.primitive.name
        if name in ("select_n", "convert_element_type", "broadcast_in_dim"):
            operands = eqn.invars[1:] if name == "select_n" else eqn.invars
            return [v for operand in operands for v in self._cases(operand)]
        if name in ("jit", "pjit"):  # `jnp.where` is a function of its own
            inner = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
            whole = [e.primitive.name for e in inner.eqns]
            if whole.count("select_n") == 1 and set(whole) <= {"select_n", "convert_element_type", "broadcast_in_dim"}:
                return list(eqn.invars)
        return [atom]


def _labels(jaxpr: Any) -> list[str]:
    """What the user calls the inputs of a body: NumPyro carries a counter and a key beside the user's own carry."""
    names = getattr(getattr(jaxpr, "debug_info", None), "arg_names", None) or ()
    given = list(names) if len(names) == len(jaxpr.invars) else [""] * len(jaxpr.invars)
    return [n.replace("wrapped_carry[2]", "carry") or f"input {i} of its body" for i, n in enumerate(given)]


def variables(atoms: Iterable[Any]) -> list[Any]:
    """Those of a program's atoms that are no literals."""
    return [v for v in atoms if not isinstance(v, Literal)]
