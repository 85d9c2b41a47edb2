"""Which cost terms are downstream of which site, and along which dimensions element by element.

A cost term is named by its kind and site: "p:y" is the model's log density at y (with the log Jacobian of a latent's
bijection), "q:z" minus the guide's at z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import validation_enabled
from numpyro.distributions import Delta, Distribution

from autovi.analysis.costs import Aligned, unique
from autovi.analysis.dependence import Dependence, analyse
from autovi.distributions import registry
from autovi.distributions.supports import bijection_to
from autovi.model.execution import Record, execute
from autovi.model.inputs import Inputs
from autovi.model.sites import ABSTRACT_KEY, Plate, Site, Sites


@dataclass(frozen=True)
class Structure:
    """`downstream[node][term]` is the alignment of the node's batch dimensions with the term's; `jumps[node][term]`
    names the operations on the way at which the term may be discontinuous in the node's value."""

    downstream: Mapping[str, Mapping[str, Aligned]]
    jumps: Mapping[str, Mapping[str, frozenset[str]]]
    shapes: Mapping[str, tuple[int, ...]]
    plates: Mapping[str, tuple[Plate, ...]]

    def below(self, node: str, other: str) -> bool:
        """Is `node` drawn from a distribution that depends on `other`?"""
        return f"q:{node}" in self.downstream[other] and node != other

    @cached_property
    def upstream(self) -> Mapping[str, tuple[str, ...]]:
        """`downstream` turned round: the nodes that each term depends on."""
        nodes: dict[str, list[str]] = {}
        for node, terms in self.downstream.items():
            for term in terms:
                nodes.setdefault(term, []).append(node)
        return {term: tuple(above) for term, above in nodes.items()}


def analyse_structure(
    model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites, guide_sites: Sites | None
) -> Structure:
    """The structure of a model with a guide function, or with the engine's own guide (None), whose blocks depend on
    parameters alone. Nothing is computed: both are run on abstract values.
    """
    nodes = dict(sites.latents)
    if guide_sites is not None:
        drawn = {n: s for n, s in guide_sites.latents.items() if s.distribution != "Delta"}
        nodes = {**{n: s for n, s in nodes.items() if n not in guide_sites.latents}, **drawn}
    own = guide is None
    tracked = {n: _abstract(s, unconstrained=own) for n, s in nodes.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    evaluate = cost_terms(model, guide, inputs, sites)

    def terms(values: dict[str, Any], arrays: dict[str, Any], rng_key: jax.Array) -> dict[str, jax.Array]:
        out, parts = evaluate(values, arrays, rng_key)
        shapes.update({name: jnp.shape(t) for name, t in out.items()})
        return {**out, **parts}

    found = analyse(terms, tracked, inputs.traced(), ABSTRACT_KEY)
    direct: dict[str, dict[str, Dependence]] = {n: {} for n in nodes}
    for term in shapes:
        for n, how in found[term].items():
            direct[n][term] = how
    jumps = _jumps(nodes, found)
    if own:
        for n, s in nodes.items():
            identity = tuple(range(len(s.batch_shape)))
            direct[n][f"q:{n}"] = Dependence(identity, frozenset())
            shapes[f"q:{n}"] = s.batch_shape
    elif guide_sites is not None:
        for n, s in guide_sites.latents.items():
            shapes.setdefault(f"q:{n}", s.batch_shape)
    plates = {f"p:{n}": s.plates for n, s in sites.samples.items()}
    plates.update({f"q:{n}": s.plates for n, s in nodes.items()})
    if guide_sites is not None:
        plates.update({f"q:{n}": s.plates for n, s in guide_sites.latents.items()})
    batch = {n: len(s.batch_shape) for n, s in nodes.items()}
    downstream = {n: {t: unique(d.aligned[: batch[n]]) for t, d in terms_.items()} for n, terms_ in direct.items()}
    return Structure(_closed(downstream), jumps, shapes, plates)


def cost_terms(model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites) -> Callable:
    """`evaluate(values, arrays, rng_key)`: every cost term as a function of the nodes' values, and its parts.

    With the engine's own guide the values of continuous sites are unconstrained, and the terms are the model's. The
    parts of a term, named "0#term", "1#term", ..., are what it may jump through: see `_parts`.
    """
    own = guide is None
    lengths = {p.name: p.length for p in sites.plates.values()}

    def evaluate(values: dict[str, Any], arrays: dict[str, Any], rng_key: jax.Array) -> tuple[dict, dict]:
        out: dict[str, jax.Array] = {}
        parts: dict[str, jax.Array] = {}
        args, kwargs = inputs.rebuild(arrays)
        indices = {name: jnp.arange(length) for name, length in lengths.items()}
        with validation_enabled(False):
            if guide is not None:
                records = execute(guide, args, kwargs, rng_key, latent=_lookup(values, False), indices=indices)
                drawn = {r.name: r for r in records.values() if r.kind == "sample" and not r.observed}
                for n, r in drawn.items():
                    out[f"q:{n}"] = _density(r)
                    parts.update(_parts(f"q:{n}", r, out[f"q:{n}"]))
                values = {**values, **{n: r.value for n, r in drawn.items()}}
            records = execute(model, args, kwargs, rng_key, latent=_lookup(values, own), indices=indices)
        for r in records.values():
            if r.kind == "sample":
                site, name = sites.samples[r.name], f"p:{r.name}"
                transformed = own and r.name in values and not site.discrete
                jacobian = _log_jacobian(r, values[r.name], len(site.batch_shape)) if transformed else 0
                out[name] = _density(r) + jacobian
                parts.update(_parts(name, r, out[name]))
        return out, parts

    return evaluate


def _parts(term: str, record: Record, density: jax.Array) -> dict[str, jax.Array]:
    """The parameters of a site's distribution: NumPyro's own densities are continuous in them and in the value, so the
    term can only jump where they do. Of a class that NumPyro does not know, the density itself."""
    assert record.fn is not None
    leaves = jax.tree.leaves(record.fn) if registry.is_listed(record.fn) else [density]
    scale = [] if record.scale is None else [record.scale]
    return {f"{i}#{term}": jnp.asarray(x) for i, x in enumerate([*leaves, *scale])}


def _abstract(site: Site, unconstrained: bool) -> jax.ShapeDtypeStruct:
    if site.discrete:
        return jax.ShapeDtypeStruct(site.shape, jnp.result_type(int))
    shape = site.unconstrained_shape if unconstrained and site.unconstrained_shape is not None else site.shape
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float))


def _lookup(values: Mapping[str, Any], unconstrained: bool) -> Callable[[dict[str, Any]], Any]:
    def latent(msg: dict[str, Any]) -> Any:
        if msg["name"] not in values:
            return delta_value(msg["fn"])
        value = values[msg["name"]]
        index = msg["infer"].get("_scan_current_index")
        value = value if index is None else value[index]
        if not unconstrained or registry.is_discrete(msg["fn"]):
            return value
        transform = bijection_to(msg["fn"].support)
        return value if transform is None else transform(value)

    return latent


def delta_value(fn: Distribution) -> Any:
    """The value of a Delta, gradient and all; None for other distributions."""
    base = registry.strip(fn)
    return jnp.broadcast_to(base.v, fn.shape()) if isinstance(base, Delta) else None


def _density(record: Record) -> jax.Array:
    assert record.fn is not None
    base = registry.strip(record.fn)
    if isinstance(base, Delta):
        return base.log_density * jnp.ones(record.fn.batch_shape)
    density = record.fn.log_prob(record.value)
    return density if record.scale is None else record.scale * density


def _log_jacobian(record: Record, unconstrained: Any, batch_ndim: int) -> jax.Array:
    assert record.fn is not None
    transform = bijection_to(record.fn.support)
    if transform is None:
        return jnp.zeros(())
    log_det = transform.log_abs_det_jacobian(unconstrained, record.value)
    return sum_rightmost(log_det, batch_ndim)


def sum_rightmost(x: jax.Array, ndim: int) -> jax.Array:
    """`x` summed over its last dimensions until `ndim` are left."""
    return jnp.sum(x, axis=tuple(range(ndim, jnp.ndim(x))))


def _jumps(nodes: Iterable[str], found: Mapping[str, Mapping[str, Dependence]]) -> dict[str, dict[str, frozenset[str]]]:
    """The operations on the way from each node to each term's parts at which the term may jump."""
    jumps: dict[str, dict[str, frozenset[str]]] = {n: {} for n in nodes}
    for name, by_node in found.items():
        number, _, term = name.partition("#")
        if number.isdigit():
            for node, how in by_node.items():
                if how.jumps:
                    jumps[node][term] = jumps[node].get(term, frozenset()) | how.jumps
    return jumps


def _closed(direct: Mapping[str, Mapping[str, Aligned]]) -> dict[str, dict[str, Aligned]]:
    """Adds what is downstream through the guide: a term below m is below every n that m's distribution depends on.

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
            _add_through(closed[n], direct[n][f"q:{m}"], dict(closed[m]))
        if closed[n] != before:
            waiting.update(dict.fromkeys(above[n]))
    return closed


def _add_through(terms: dict[str, Aligned], onto: Aligned, inner: Mapping[str, Aligned]) -> None:
    """Adds to a node's `terms` those of a node below it, `inner`, whose batch dimensions are `onto` the node's."""
    for t, aligned in inner.items():
        through = tuple(aligned[e] if e is not None and e < len(aligned) else None for e in onto)
        terms[t] = _agree(terms[t], through) if t in terms else through


def _agree(a: Aligned, b: Aligned) -> Aligned:
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))
