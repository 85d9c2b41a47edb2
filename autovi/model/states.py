"""What a scan carries as variables of their own: leaves that depend on all steps before, and take few values.

A running count, a value that is kept where a condition says so, the time since an event up to a bound: with its values
a finite set that is known before, such a leaf is the state of a finite machine. Given the state before, and the sites
of the step, the state after is known, and what a step computes depends on no other step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from autovi.distributions.table import TABLE
from autovi.model.carried import Leaf, Steps
from autovi.model.finite_values import Values, distinct, joined, values_of
from autovi.model.sites import Plate, Site
from autovi.model.traced import Traced


@dataclass(frozen=True, eq=False)
class State:
    """A leaf as a variable: what it is called, and the values that it may take."""

    name: str
    leaf: Leaf
    values: tuple[float, ...]
    of: tuple[str, ...]  # the sites that it depends on


def states_of(traced: Traced, steps: Steps, atoms: Iterable[Any]) -> list[State] | Leaf:
    """The states that variables of a scan's body need to be made of few steps; or a leaf whose values are not known, or
    too many."""
    wanted = steps.endless(atoms)
    values = _values(traced, steps, wanted) if wanted else {}
    unknown = next((leaf for leaf in wanted if values[leaf] is None), None)
    if unknown is not None:
        return unknown
    of = {leaf: tuple(steps.told_of(leaf)) for leaf in wanted}
    return [State(f"{leaf.label} of {of[leaf][0]}", leaf, tuple(values[leaf].tolist()), of[leaf]) for leaf in wanted]


def _values(traced: Traced, steps: Steps, wanted: Sequence[Leaf]) -> dict[Leaf, Values]:
    """The values of leaves at all steps: from those at the start, step by step until there are no new ones."""
    outside = _outside(traced)
    body = steps.body
    made = {v: eqn for eqn in body.eqns for v in eqn.outvars}
    given = {v: outside(a) for v, a in {**steps.shared, **steps.stacked}.items()}
    given |= {v: distinct(c, v.aval.dtype) if _is_known(c) else None for v, c in body.constants.items()}
    leaves = {*wanted, *(above for leaf in wanted for above in steps.upstream(leaf))}
    found = {leaf: _typed(outside(leaf.start), leaf) for leaf in leaves}
    for _ in range(steps.length):  # the values of each leaf get more, or too many: that ends soon
        known: dict[Any, Values] = {**given, **{leaf.before: values for leaf, values in found.items()}}
        after = {leaf: _typed(values_of(leaf.after, made, known), leaf) for leaf in leaves}
        new = {leaf: joined([values, after[leaf]]) for leaf, values in found.items()}
        if all(_same(new[leaf], found[leaf]) for leaf in leaves):
            break
        found = new
    return found


def _outside(traced: Traced) -> Any:
    """The values of what goes into a scan: of a finite site those of its support."""
    graph = traced.graph
    known: dict[Any, Values] = {}
    for name, site in traced.sites.latents.items():
        var = graph.inputs.get(f"node:{name}")
        if var is not None and site.values is not None and name not in traced.relaxed:
            known[var] = distinct(site.values, var.aval.dtype)
    known |= {v: distinct(c, v.aval.dtype) for v, c in graph.constants.items() if _is_known(c)}
    made = {v: eqn for eqn in graph.eqns for v in eqn.outvars}
    return lambda atom: values_of(atom, made, known)


def _is_known(constant: Any) -> bool:
    return not isinstance(constant, jax.core.Tracer) and hasattr(constant, "dtype")


def _typed(values: Values, leaf: Leaf) -> Values:
    return None if values is None else distinct(values, leaf.before.aval.dtype)


def _same(one: Values, other: Values) -> bool:
    return (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))


def as_site(state: State, steps: Steps, samples: Mapping[str, Site]) -> Site:
    """A state in the form of a site."""
    shape = tuple(state.leaf.before.aval.shape)
    inside = lambda p: -p.dim <= len(shape) and shape[p.dim] == p.length  # noqa: E731
    plates: dict[str, Plate] = {p.name: p for site in state.of for p in samples[site].plates if inside(p)}
    return Site(
        name=state.name,
        distribution="Delta",
        support="carried values",
        batch_shape=(steps.length, *shape),
        event_shape=(),
        plates=tuple(plates.values()),
        observed=False,
        discrete=True,
        values=state.values,
        unconstrained_shape=None,
        from_scan=True,
        masked=False,
        gradients=TABLE["Unit"],
        auxiliary=True,
        infer=(),
    )


def named(states: Collection[State]) -> dict[Leaf, str]:
    """What each leaf is called."""
    return {state.leaf: state.name for state in states}
