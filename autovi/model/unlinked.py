"""A scan as a map over its steps: what a step remembers of the steps before becomes an input of its own.

The sites of a chain that `scan` carries are summed out from a table of its terms, one for each step and each pair of
values at that step and the step before. The traced program has no such table: it runs one step after the other. Here it
is traced again with the scan's steps side by side, each of which sees the values of earlier steps as the user's carry
would have brought them. Where it carries what depends on all steps before, and takes few values, that is a variable too
(`states.py`), with a term which is 0 where its value is the one that the step makes, and minus infinity elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from autovi.model.carried import Leaf, Steps, variables
from autovi.model.finite_values import MAX_VALUES
from autovi.model.graph import Graph, Values, placeholder, trace
from autovi.model.side_by_side import Plan, read_atom, shifted, side_by_side
from autovi.model.sites import Site
from autovi.model.states import as_site, named, states_of
from autovi.model.traced import Traced


@dataclass(frozen=True)
class Unlinked:
    """A program whose scans over chosen sites are maps over their steps.

    `graph` has, beside the inputs that were there, "node:x@1" (see `earlier_input`) with the values of the site x one
    step earlier, and so on up to `lags[x]`. It has the shape of "node:x", and its entry t is read where step t asks for
    the value of the step before; that of the first step is not read. Outputs that were [T, ...] are elementwise in
    these inputs, those apart of deterministic sites that depend on all steps before: these are made one step after the
    other, of "node:x" alone. Of the sites `backward` the step before t is t + 1. `states` are what is carried as
    variables of their own, with inputs as sites have them.
    """

    graph: Graph
    lags: Mapping[str, int]
    backward: frozenset[str] = frozenset()
    states: Mapping[str, Site] = field(default_factory=dict)

    def earlier(self, site: str, value: jax.Array, lag: int) -> jax.Array:
        """The value of the input "node:x@lag" that belongs to one of "node:x"."""
        return shifted(value, lag, site in self.backward)


def earlier_input(site: str, lag: int) -> str:
    """The name of the input for a site's values `lag` steps earlier."""
    return f"node:{site}@{lag}" if lag else f"node:{site}"


def unlink(traced: Traced, sites: Collection[str]) -> Unlinked | str:
    """The program with each scan that draws one of the discrete `sites` as a map over its steps, or a sentence that
    says why it cannot be that.

    Leaves of the carry that do not depend on the sites are computed step by step as before, and by as little as they
    need; those that do are functions of the sites' last values, or of states, or the scan stays as it is. A final carry
    that the model uses depends on the last entries of the inputs.

    Example:
        >>> def model(y):
        ...     p = numpyro.sample("p", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
        ...     def step(x, y):
        ...         x = numpyro.sample("x", dist.Categorical(p[x]))
        ...         return x, numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        ...     scan(step, 0, y)
        >>> unlinked = unlink(trace_program(model, None, bind(model, {"y": y}))[0], ["x"])
        >>> unlinked.lags, "node:x@1" in unlinked.graph.inputs
        ({'x': 1}, True)
    """
    graph = traced.graph
    nodes = {graph.inputs[name]: n for n in sites if (name := f"node:{n}") in graph.inputs}
    among = nodes.keys()
    found = [e for e in graph.eqns if e.primitive.name == "scan" and any(v in among for v in variables(e.invars))]
    scans = [steps for steps in (Steps(eqn, nodes) for eqn in found) if steps.sites]
    if outside := sorted(set(sites) - {site for steps in scans for site in steps.sites.values()}):
        return f"{_named(outside)} {_are(outside)} not drawn in the body of a scan"
    if why := next((why for steps in scans if (why := _not_a_map(steps))), None):
        return why
    endless = {v for steps in scans for v in _endless(graph, steps)}
    made_of_all = {f"value:{n}" for n in traced.sites.deterministics} if endless else set()  # no terms of the density
    in_order = [o for o in graph.outputs if o in made_of_all and _read(graph, [o]) & endless]
    beside = [o for o in graph.outputs if o not in in_order]
    read = _read(graph, beside)
    plans: list[Plan] = []
    states: dict[str, Site] = {}
    for steps in scans:
        results = tuple(v for v in steps.eqn.outvars if v in read)
        found_states = states_of(traced, steps, [steps.made_by(v) for v in results])
        if isinstance(found_states, Leaf):
            return _why_endless(steps, found_states)
        plans.append(Plan(steps.with_states(named(found_states)), results))
        states |= {state.name: as_site(state, steps, traced.sites.samples) for state in found_states}
    lags = {site: lag for plan in plans for site, lag in plan.lags.items()}
    backward = frozenset(n for plan in plans if plan.steps.reverse for n in plan.lags)
    return Unlinked(_traced_again(graph, plans, beside, in_order, nodes, lags), lags, backward, states)


def _not_a_map(steps: Steps) -> str | None:
    """What keeps the steps of a scan from being taken side by side, whatever they carry."""
    if steps.length == 0:
        return f"the scan that draws {_named(steps.sites.values())} has no steps"
    if elsewhere := steps.read_elsewhere():
        return f"the scan takes values of {_named(elsewhere)} at other steps than the one that draws them"
    if any(eqn.effects for eqn in steps.body.eqns):
        what = "does something besides computing at each step (it prints, or calls back)"
        return f"the scan that draws {_named(steps.sites.values())} {what}, which is to be done in its order"
    return None


def _endless(graph: Graph, steps: Steps) -> list[Any]:
    """The results of a scan that depend on the sites' values at all steps."""
    return [v for v in steps.eqn.outvars if graph.is_read(v) and steps.endless([steps.made_by(v)])]


def _why_endless(steps: Steps, leaf: Leaf) -> str:
    sites = _named(steps.told_of(leaf))
    few = f"at most {MAX_VALUES:,} whole numbers, made of constants, counters and discrete sites"
    if steps.is_kept(leaf):
        return (
            f"the scan keeps {leaf.label} as it was where a condition says so (jnp.where), and with it values of "
            f"{sites} from any number of steps before, and it is not known to take few values ({few}); keep the "
            "value of a discrete site, and compute from it what the step needs"
        )
    return (
        f"the scan carries {leaf.label}, which is made of what it was and of {sites}, and so depends on the values at "
        f"all steps before, and it is not known to take few values ({few})"
    )


def _read(graph: Graph, outputs: Iterable[str]) -> set[Any]:
    """The variables of a program that outputs, and what it prints, are made of."""
    inputs = set(graph.inputs.values())
    ends = [graph.outputs[o] for o in outputs] + [v for i in graph.effectful for v in graph.eqns[i].invars]
    ends = variables(ends)
    equations, _ = graph.needed(ends, lambda v: v in inputs or v in graph.constants)
    return {*ends, *variables(v for i in equations for v in graph.eqns[i].invars)}


def _traced_again(
    graph: Graph,
    plans: list[Plan],
    beside: list[str],
    in_order: list[str],
    nodes: Mapping[Any, str],
    lags: Mapping[str, int],
) -> Graph:
    """The program traced with the scans replaced, and the inputs for the steps before; outputs `in_order` as before."""

    def outputs(names: list[str], made: Values) -> dict[str, Any]:
        wanted = [graph.outputs[o] for o in names]
        made = made | graph.evaluate(wanted, made.__contains__, made.__getitem__)
        return {o: read_atom(v, made) for o, v in zip(names, wanted, strict=True)}

    def program() -> dict[str, Any]:
        made: Values = {v: placeholder(n, v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items()}
        given = dict(made)
        earlier = {(site, 0): made[v] for v, site in nodes.items()}
        shapes = {site: (v.aval.shape, v.aval.dtype, 1) for v, site in nodes.items()}
        for plan in plans:
            for leaf, name in plan.steps.states.items():
                shapes[name] = ((plan.steps.length, *leaf.before.aval.shape), leaf.before.aval.dtype, 0)
        for name, (shape, dtype, first) in shapes.items():
            for lag in range(first, lags[name] + 1):
                earlier[name, lag] = placeholder(earlier_input(name, lag), shape, dtype)
        terms: dict[str, jax.Array] = {}
        for plan in plans:
            made |= graph.evaluate(plan.steps.eqn.invars, made.__contains__, made.__getitem__)
            results, after = side_by_side(plan, partial(read_atom, made=made), lambda *at: earlier[at])
            made |= results
            terms |= {f"p:{n}": jnp.where(earlier[n, 0] == x, 0.0, -jnp.inf) for n, x in after.items()}
        graph.run_effects(made.__contains__, made.__getitem__)
        return outputs(beside, made) | outputs(in_order, given) | terms

    return trace(program)


def _named(sites: Iterable[str]) -> str:
    return ", ".join(repr(site) for site in sorted(sites))


def _are(sites: Collection[str]) -> str:
    return "is" if len(sites) == 1 else "are"


def unlinked_at(traced: Traced, sites: Collection[str]) -> Traced:
    """The program with the scans of these sites, of which `unlink` says that they can be, as maps over their steps."""
    if not sites:
        return traced
    found = unlink(traced, sites)
    if isinstance(found, str):
        raise ValueError(f"site {sorted(sites)[0]!r}: {found}")
    return replace(traced, graph=found.graph, lags=found.lags, backward=found.backward, states=found.states)
