"""Which cost terms are downstream of which site, and along which dimensions element by element.

A cost term is named by its kind and site: "p:y" is the model's log density at y (with the log Jacobian of a latent's
bijection), "q:z" minus the guide's at z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from numpyro import validation_enabled

from autovi.analysis.costs import Aligned, agreed, unique
from autovi.analysis.dependence import Dependence, Since, analyse_graph, joined, joined_since
from autovi.analysis.linear import find_linear
from autovi.analysis.summands import Summands, analyse_summands
from autovi.model.inputs import Inputs
from autovi.model.lags import lagged
from autovi.model.sites import Plate, Site, Sites
from autovi.model.targets import trace_program
from autovi.model.traced import KEY, Traced, data_input

Sinces = tuple[Since | None, ...]
# Flat everywhere, so that steps that are too fine for jumps are a slope that no derivative sees.
STAIRS = frozenset({"floor", "ceil", "round", "convert_element_type"})
COORDINATES = ("location:", "spread:")  # outputs of the graph that a site's coordinates are made of


@dataclass(frozen=True)
class Structure:
    """`downstream[node][term]` is the alignment of the node's batch dimensions with the term's; `jumps[node][term]`
    names the operations on the way at which the term may be discontinuous in the node's value, `rules[node][term]`
    those whose derivative need not be that of what they compute; `moved_by` has the nodes on which the outputs
    "location:z" and "spread:z" depend; `not_linear` says why a node does not enter by a product with data, `mixed` why
    the rows of that product do not stand for themselves. `since[node][term]` is there for terms that follow the steps
    of a scan along a dimension of the node's: where an element is felt from its own step on."""

    downstream: Mapping[str, Mapping[str, Aligned]]
    jumps: Mapping[str, Mapping[str, frozenset[str]]]
    shapes: Mapping[str, tuple[int, ...]]
    plates: Mapping[str, tuple[Plate, ...]]
    moved_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_linear: Mapping[str, str | None] = field(default_factory=dict)
    mixed: Mapping[str, str | None] = field(default_factory=dict)
    since: Mapping[str, Mapping[str, Sinces]] = field(default_factory=dict)
    chained: frozenset[str] = frozenset()  # nodes that are drawn step by step, since they depend on their own draws
    lags: Mapping[str, int] = field(default_factory=dict)  # as `Traced.lags`
    backward: frozenset[str] = frozenset()  # as `Traced.backward`
    # A node of these, and its values some steps before, by the names of their inputs -> as `downstream`, each alone.
    apart: Mapping[str, Mapping[str, Aligned]] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    summands: Summands | None = None  # the parts of terms that were taken apart
    states: Mapping[str, Site] = field(default_factory=dict)  # as `Traced.states`

    def below(self, node: str, other: str) -> bool:
        """Is `node` drawn from a distribution that depends on `other`?"""
        return f"q:{node}" in self.downstream[other] and node != other

    def reached_from(self, variable: str) -> Mapping[str, Aligned]:
        """The model's terms that depend on a node itself, or on its values some steps before ("x@1")."""
        below = self.apart[variable] if variable in self.apart else self.downstream[variable]
        return {t: aligned for t, aligned in below.items() if t.startswith("p:")}

    @cached_property
    def upstream(self) -> Mapping[str, tuple[str, ...]]:
        """`downstream` turned round: the nodes that each term depends on."""
        nodes: dict[str, list[str]] = {}
        for node, terms in self.downstream.items():
            for term in terms:
                nodes.setdefault(term, []).append(node)
        return {term: tuple(above) for term, above in nodes.items()}


def analyse_structure(traced: Traced) -> Structure:
    """The structure of a traced model with its guide function, or with the engine's own guide, whose blocks depend on
    parameters alone. Nothing is computed.
    """
    sites, guide_sites, graph = traced.sites, traced.guide_sites, traced.graph
    nodes = dict(sites.latents)
    if guide_sites is not None:
        drawn = {n: s for n, s in guide_sites.latents.items() if s.distribution != "Delta"}
        nodes = {**{n: s for n, s in nodes.items() if n not in guide_sites.latents}, **drawn}
    drawn_nodes = tuple(nodes)
    nodes |= traced.states
    kinds = ("p:", "q:", "jacobian:", "part:", *COORDINATES)
    before = [lagged(n, k) for n, lags in traced.lags.items() for k in range(1, lags + 1)]
    tracked = [f"node:{n}" for n in (*nodes, *before)]
    batch_of = {lagged(n, k): len(s.batch_shape) for n, s in nodes.items() for k in range(traced.lags.get(n, 0) + 1)}
    summands = analyse_summands(traced, tracked, batch_of)
    found = analyse_graph(graph, tracked, [o for o in graph.outputs if o.startswith(kinds)])
    found, apart = _steps_joined(found, traced.lags, {n: len(s.batch_shape) for n, s in nodes.items()})
    terms = [o for o in graph.outputs if o.startswith(("p:", "q:"))]
    shapes = {t: graph.shape(t) for t in terms}
    direct: dict[str, dict[str, Dependence]] = {n: {} for n in nodes}
    for t in terms:
        both = (found[t], found.get(t.replace("p:", "jacobian:", 1), {}) if t.startswith("p:") else {})
        for name in {**both[0], **both[1]}:
            direct[name.removeprefix("node:")][t] = joined(both[0].get(name), both[1].get(name))
    moved_by = {o: tuple(n.removeprefix("node:") for n in found[o]) for o in found if o.startswith(COORDINATES)}
    jumps = _on_the_way(found, drawn_nodes, lambda path: path.jumps)
    rules = _on_the_way(found, drawn_nodes, lambda path: path.rules | (path.jumps & STAIRS))
    if guide_sites is None:
        for n, s in nodes.items():
            direct[n][f"q:{n}"] = Dependence(tuple(range(len(s.batch_shape))))
            shapes[f"q:{n}"] = s.batch_shape
    plates = {f"p:{n}": s.plates for n, s in [*sites.samples.items(), *traced.states.items()]}
    plates.update({f"q:{n}": s.plates for n, s in nodes.items()})
    if guide_sites is not None:
        plates.update({f"q:{n}": s.plates for n, s in guide_sites.latents.items()})
    batch = {n: len(s.batch_shape) for n, s in nodes.items()}
    downstream = {n: {t: unique(d.aligned[: batch[n]]) for t, d in below.items()} for n, below in direct.items()}
    closed = _closed(downstream)
    return Structure(
        closed,
        jumps,
        shapes,
        plates,
        moved_by,
        *_not_linear(traced, drawn_nodes),
        _since(direct, batch, closed),
        frozenset(traced.chains),
        traced.lags,
        traced.backward,
        apart,
        rules,
        summands,
        traced.states,
    )


Found = dict[str, dict[str, Dependence]]


def _steps_joined(
    found: Found, lags: Mapping[str, int], batch: Mapping[str, int]
) -> tuple[Found, dict[str, dict[str, Aligned]]]:
    """`Structure.apart`, and what depends on a node of these at all: its element at a step is felt at later ones."""
    site_of = {lagged(n, k): n for n, most in lags.items() for k in range(most + 1)}
    apart: dict[str, dict[str, Aligned]] = {n: {} for n in site_of}
    joint: Found = {}
    for output, by_node in found.items():
        of = {n.removeprefix("node:"): d for n, d in by_node.items()}
        term = output.replace("jacobian:", "p:", 1)
        for n in of.keys() & apart.keys():
            aligned = unique(of[n].aligned[: batch[site_of[n]]])
            apart[n][term] = agreed(apart[n][term], aligned) if term in apart[n] else aligned
        for n, most in lags.items():
            later = [of.pop(lagged(n, k)) for k in range(1, most + 1) if lagged(n, k) in of]
            for d in later:
                elsewhere = Dependence((None, *d.aligned[1:]), d.jumps, rules=d.rules)
                of[n] = joined(of.get(n), elsewhere)
        joint[output] = {f"node:{n}": d for n, d in of.items()}
    return joint, apart


def _on_the_way(
    found: Mapping[str, Mapping[str, Dependence]],
    nodes: Iterable[str],
    names: Callable[[Dependence], frozenset[str]],
) -> dict[str, dict[str, frozenset[str]]]:
    """By node and term, the operations on the way that a path names. What the model makes of a node is looked at, up
    to the parameters of its distributions: NumPyro's own densities are trusted."""
    suspected: dict[str, dict[str, frozenset[str]]] = {n: {} for n in nodes}
    for output, by_node in found.items():
        if output.startswith("part:"):
            term = output.split("#", 1)[1]
            for name, path in by_node.items():
                if name.removeprefix("node:") in suspected and (named := names(path)):
                    mine = suspected[name.removeprefix("node:")]
                    mine[term] = mine.get(term, frozenset()) | named
    return suspected


def _not_linear(traced: Traced, nodes: Iterable[str]) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """`not_linear` and `mixed` of a structure."""
    inputs = traced.graph.inputs
    chosen = [v for n, v in inputs.items() if n == KEY or n.startswith(("node:", "noise:"))]
    varying = traced.graph.downstream(chosen)
    found = {n: find_linear(traced.graph, inputs[f"node:{n}"], varying) for n in nodes if f"node:{n}" in inputs}
    why = {n: what if isinstance(what, str) else None for n, what in found.items()}
    return why, {n: None if isinstance(what, str) else what.mixed for n, what in found.items()}


def cost_terms(model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites) -> Callable:
    """`evaluate(values, arrays, rng_key)`: every cost term as a function of the nodes' values, with an empty dict.

    With the engine's own guide the values of continuous sites are unconstrained, and the terms are the model's. Traced
    at the precision of the call.
    """
    outputs = traced_outputs(model, guide, inputs, sites, lambda o: o.startswith(("p:", "q:", "jacobian:")))

    def evaluate(values: dict[str, Any], arrays: dict[str, Any], rng_key: jax.Array) -> tuple[dict, dict]:
        out = outputs(values, arrays, rng_key)
        jacobians = {o.replace("jacobian:", "p:", 1): out.pop(o) for o in list(out) if o.startswith("jacobian:")}
        return {t: v + jacobians[t] if t in jacobians else v for t, v in out.items()}, {}

    return evaluate


def traced_outputs(
    model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites, wanted: Callable[[str], bool]
) -> Callable:
    """`evaluate(values, arrays, rng_key)`: the outputs of the traced program that are wanted, by name, as a function of
    the nodes' values; nodes that are not among these are zero. Traced at the precision of the call."""
    lengths = {p.name: p.length for p in sites.plates.values()}

    def evaluate(values: dict[str, Any], arrays: dict[str, Any], rng_key: jax.Array) -> dict[str, jax.Array]:
        shapes = {n: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype) for n, a in arrays.items()}
        typed = inputs if inputs.concrete else replace(inputs, arrays=shapes)  # the data may be in double precision
        with validation_enabled(False):
            graph = trace_program(model, guide, typed, lengths)[0].graph
        known = {var: jnp.zeros(var.aval.shape, var.aval.dtype) for name, var in graph.inputs.items() if ":" in name}
        known |= {graph.inputs[f"plate:{n}"]: jnp.arange(k) for n, k in lengths.items() if f"plate:{n}" in graph.inputs}
        known |= {graph.inputs[data_input(n)]: a for n, a in arrays.items()} | {graph.inputs[KEY]: rng_key}
        for name, value in values.items():
            var = graph.inputs[f"node:{name}"]
            known[var] = jnp.asarray(value, var.aval.dtype)
        names = [o for o in graph.outputs if wanted(o)]
        made = graph.evaluate([graph.outputs[o] for o in names], known.__contains__, known.__getitem__)
        return {o: _value(graph.outputs[o], made) for o in names}

    return evaluate


def _value(atom: Any, made: dict[Any, Any]) -> jax.Array:
    return jnp.asarray(atom.val) if isinstance(atom, Literal) else made[atom]


def _since(
    direct: Mapping[str, Mapping[str, Dependence]],
    batch: Mapping[str, int],
    downstream: Mapping[str, Mapping[str, Aligned]],
) -> dict[str, dict[str, Sinces]]:
    """`Structure.since`."""
    if all(d.later is None for below in direct.values() for d in below.values()):
        return {}
    own = {n: {t: d.since[: batch[n]] for t, d in below.items()} for n, below in direct.items()}
    found: dict[str, dict[str, Sinces]] = {n: {} for n in direct}
    for n, below in _closed(own, _through_since, _agreed_since).items():
        for t, since in below.items():
            if any(s is not None and e is None for s, e in zip(since, downstream[n][t], strict=True)):
                found[n][t] = since
    return found


def _through(onto: Aligned, inner: Aligned) -> Aligned:
    return tuple(inner[e] if e is not None and e < len(inner) else None for e in onto)


def _closed(
    direct: Mapping[str, Mapping[str, Any]], through: Callable = _through, agree: Callable = agreed
) -> dict[str, dict[str, Any]]:
    """Adds what is downstream through the guide: a term below m is below every n that m's distribution depends on.
    `through(onto, inner)` is how n's dimensions belong to a term's, from how they belong to m's, and m's to the term's,
    `agree` what two ways from n to one term have in common.

    The sites of a `scan` may depend on one another in circles: a node is looked at again whenever something below it
    has changed. Alignments only get lost, so this ends. Without circles, and with `direct` in order of execution, every
    node is looked at once.
    """
    closed = {n: dict(terms) for n, terms in direct.items()}
    below = {n: [t[2:] for t in terms if t[:2] == "q:" and t[2:] in direct] for n, terms in direct.items()}
    above: dict[str, list[str]] = {n: [] for n in direct}
    for n, nodes in below.items():
        for m in nodes:
            above[m].append(n)
    waiting = dict.fromkeys(reversed(list(direct)))
    while waiting:
        n = next(iter(waiting))
        del waiting[n]
        before = dict(closed[n])
        for m in below[n]:
            onto = direct[n][f"q:{m}"]
            for t, inner in dict(closed[m]).items():
                new = through(onto, inner)
                closed[n][t] = agree(closed[n][t], new) if t in closed[n] else new
        if closed[n] != before:
            waiting.update(dict.fromkeys(above[n]))
    return closed


def _through_since(onto: Sinces, inner: Sinces) -> Sinces:
    nexts = [None if s is None or s.axis >= len(inner) else inner[s.axis] for s in onto]
    return tuple(
        None if s is None or n is None else Since(n.axis, s.strict or n.strict)
        for s, n in zip(onto, nexts, strict=True)
    )


def _agreed_since(a: Sinces, b: Sinces) -> Sinces:
    return tuple(joined_since(s, t) for s, t in zip(a, b, strict=True))
