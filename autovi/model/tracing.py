"""NumPyro functions traced once: the sites, and a graph in which every value chosen from outside is an input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Delta, Distribution, constraints
from numpyro.distributions.transforms import Transform

from autovi.distributions import registry
from autovi.distributions.coordinates import Coordinates, PseudoData
from autovi.distributions.densities import log_density, relaxed_log_density, unvalidated
from autovi.distributions.location_scale import coordinates_of
from autovi.distributions.supports import bijection_to
from autovi.model.agreement import check_site
from autovi.model.centring import NodeOf, check_noncentred, coordinates_at, named, part_outputs
from autovi.model.chains import chains_of, drawn_in_steps
from autovi.model.complaints import Circumstances, complain
from autovi.model.concrete import is_concrete_error
from autovi.model.execution import Record, SiteError, execute, mask_of, place_in_scan, plate_scale, site_key, unmasked
from autovi.model.fingerprint import own_classes
from autovi.model.given import given_outputs
from autovi.model.graph import placeholder, trace
from autovi.model.inputs import Inputs, lengths_said
from autovi.model.masked import masked_outputs
from autovi.model.places import Place, with_places
from autovi.model.sealed import is_sealed, log_prob_apart
from autovi.model.sites import Site, Sites, describe, feasible
from autovi.model.traced import Param, Traced, pseudo_inputs, weighted


def trace_numpyro(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    lengths: Mapping[str, int],
    relaxed: Collection[str],
    check_guide: Callable[[Sites], Any],
    noncentred: Collection[str] = (),
) -> tuple[Traced, Inputs]:
    """`trace_program` of NumPyro functions."""
    tracing = NumPyroTracing(model, guide, dict(lengths), frozenset(relaxed), check_guide, frozenset(noncentred))
    try:
        return tracing.run(inputs), inputs
    except Exception as error:
        if not is_concrete_error(error):
            tracing.complain(error, inputs)
    constant = inputs.as_constants()
    for array in constant.arrays.values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)  # a model that changes its data in place would find them changed the next time
    return tracing.checked_run(constant), constant


@dataclass
class NumPyroTracing:
    """One or two runs of the functions: the whole shape of sites inside a scan, and of networks' parameters, has to be
    known before they are reached."""

    model: Callable
    guide: Callable | None
    lengths: dict[str, int]
    relaxed: frozenset[str]
    check_guide: Callable[[Sites], Any]
    noncentred: frozenset[str] = frozenset()
    stacked: dict[str, Site] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    of_run: Callable[[NumPyroTracing], NumPyroRun] = field(default_factory=lambda: NumPyroRun)
    late: dict[str, Any] = field(default_factory=dict)  # shapes of parameters that are asked for before they are made
    seen: list[str] = field(default_factory=list)
    called: str = "model"  # what the user calls the model
    running: str = "model"  # that, or "guide"

    def run(self, inputs: Inputs) -> Traced:
        traced = self._once(inputs)
        inside = {n: s for n, s in traced.sites.latents.items() if s.from_scan}
        if self.guide is not None and traced.guide_sites is not None:
            drawn = traced.guide_sites.latents
            inside = {
                **{n: s for n, s in inside.items() if n not in drawn},
                **{n: s for n, s in drawn.items() if s.from_scan},
            }
        if not inside and not self.late:
            return traced
        self.stacked = inside
        again = self._once(inputs)
        self.chains = chains_of(again.graph, [n for n in inside if n in again.distributions])
        return replace(self._once(inputs) if self.chains else again, starts=traced.graph)

    def _once(self, inputs: Inputs) -> Traced:
        box: list[NumPyroRun] = []
        self.seen.clear()
        self.running = self.called

        def program(arrays: dict[str, Any], rng_key: jax.Array) -> dict[str, jax.Array]:
            box[:] = [self.of_run(self)]
            return box[0].outputs(inputs.rebuild(arrays), rng_key)

        graph = trace(program, inputs.traced(), jax.eval_shape(jax.random.key, 0))
        run = box[0]
        declared = {**run.sites.params, **(run.guide_sites.params if run.guide_sites is not None else {})}
        params = {n: Param(leaves, made, declared.get(n, constraints.real)) for n, (leaves, made) in run.made.items()}
        parts = (run.sites, run.guide_sites, graph, graph, run.scales, run.distributions, run.sealed, params)
        whole = (self.relaxed, tuple(run.classes), run.entropy, run.places, self.noncentred, run.coordinates)
        return Traced(*parts, *whole, chains=self.chains)

    def checked_run(self, inputs: Inputs) -> Traced:
        """`run`, whose exceptions say what to do."""
        try:
            return self.run(inputs)
        except Exception as error:
            self.complain(error, inputs)

    def complain(self, error: Exception, inputs: Inputs) -> NoReturn:
        """Raises what is to be said of an exception of a run."""
        function = self.model if self.running == self.called or self.guide is None else self.guide
        about = Circumstances(
            self.running, function, inputs.rebuild(inputs.arrays), self.seen, self.lengths, lengths_said(inputs)
        )
        complain(error, about)


class NumPyroRun:
    """One run of guide and model on placeholders, and the outputs that it leaves."""

    entropy = True  # -log q of the nodes is part of the cost

    def __init__(self, tracing: NumPyroTracing):
        self.tracing = tracing
        self.nodes: dict[str, jax.Array] = {}
        self.params: dict[str, Any] = {}
        self.asked: set[str] = set()
        self.made: dict[str, tuple[tuple[str, ...], Any]] = {}
        self.plates: dict[str, jax.Array] = {}
        self.drawn: dict[str, jax.Array] = {}
        self.initial: dict[str, Any] = {}
        self.distributions: dict[str, Any] = {}
        self.sealed: dict[str, Any] = {}
        self.classes: list[Any] = []
        self.guide_sites: Sites | None = None
        self.places: dict[str, Place] = {}
        self.pseudo_data: dict[str, PseudoData] = {}
        self.coordinates: dict[str, Coordinates] = {}

    def outputs(self, arguments: tuple[tuple, dict], rng_key: jax.Array) -> dict[str, Any]:
        args, kwargs = arguments
        self.make_stacked()
        out: dict[str, Any] = {}
        if self.tracing.guide is not None:
            self.tracing.running = "guide"
            _, out = self.guided(self.tracing.guide, args, kwargs, rng_key)
            self.tracing.running = self.tracing.called
        bound: dict[str, Any] = {"params": self._param, "indices": self._indices}
        key = site_key(rng_key, "autovi:model")
        records = execute(self.tracing.model, args, kwargs, key, latent=self._model_latent, **bound)
        samples = [r for r in records.values() if r.kind == "sample"]
        for r in samples:
            check_site(r)
        self.sites = describe(records)
        check_noncentred(self.tracing.noncentred, self.sites, self.tracing.guide)
        self.places = {n: r.place for n, r in records.items() if r.place is not None}
        sizes = {p.name: p.size for p in self.sites.plates.values()}
        self.scales = {r.name: plate_scale(r.frames, sizes) for r in samples if not r.observed}
        for r in samples:
            out |= self._model_outputs(r) | masked_outputs(r, rng_key) | given_outputs(r, sizes)
        kept = [r for r in records.values() if r.kind == "deterministic" or (r.kind == "sample" and not r.observed)]
        out |= {f"value:{r.name}": _array(r.value) for r in kept}
        out |= self._own_draws(records, rng_key)
        return out | self.initial

    def guided(
        self, function: Callable, args: tuple, kwargs: dict[str, Any], rng_key: jax.Array
    ) -> tuple[dict[str, Record], dict[str, Any]]:
        """A run of a function whose latent sites are nodes with distributions of their own: records and outputs."""
        key = site_key(rng_key, "autovi:guide")
        bound: dict[str, Any] = {"params": self._param, "indices": self._indices}
        records = execute(function, args, kwargs, key, latent=self._guide_latent, **bound)
        samples = [r for r in records.values() if r.kind == "sample"]
        for r in samples:
            check_site(r)
        self.guide_sites = describe(records)
        try:
            self.tracing.check_guide(self.guide_sites)
        except SiteError as error:
            places = [records[error.site].place] if error.site in records else []
            raise SiteError(with_places(str(error), *places)) from None
        drawn = [r for r in samples if not r.observed]
        self.drawn = {r.name: r.value for r in drawn}
        out = self._own_draws(records, rng_key)
        for r in drawn:
            out |= self._guide_outputs(r, rng_key.dtype)
        if self.tracing.chains:
            out |= drawn_in_steps(function, args, kwargs, key, self.tracing.chains, self._guide_latent, **bound)
        return records, out

    # --- what is chosen from outside --------------------------------------------------------------------------------

    def make_stacked(self) -> None:
        """The nodes of sites inside a scan, whose whole shape is known by now."""
        for name, site in self.tracing.stacked.items():
            shape = site.shape if site.unconstrained_shape is None or self.tracing.guide else site.unconstrained_shape
            self._node(name, shape, site.discrete)
            self._pseudo_data(name)

    def _node(self, name: str, shape: tuple[int, ...], discrete: bool) -> jax.Array:
        if name not in self.nodes:
            whole = discrete and name not in self.tracing.relaxed
            self.nodes[name] = placeholder(f"node:{name}", shape, jnp.result_type(int if whole else float))
        return self.nodes[name]

    def _pseudo_data(self, name: str) -> PseudoData | None:
        """How centred a site is, in the shape of its node; None of one that has the coordinates of its own."""
        if name not in self.tracing.noncentred:
            return None
        if name not in self.pseudo_data:
            node, names = self.nodes[name], pseudo_inputs(name)
            self.pseudo_data[name] = PseudoData(*(placeholder(n, node.shape, node.dtype) for n in names))
        return self.pseudo_data[name]

    def _unconstrained(self, msg: dict[str, Any], node: jax.Array, at: PseudoData | None) -> jax.Array:
        """The unconstrained value that a node stands for."""
        coordinates = None if at is None else coordinates_of(msg["fn"])
        return node if coordinates is None or at is None else coordinates.value(node, at)

    def _guide_latent(self, msg: dict[str, Any]) -> Any:
        self.tracing.seen.append(msg["name"])
        value = delta_value(unmasked(msg["fn"]))
        return self._value(msg, unconstrained=False) if value is None else value

    def _model_latent(self, msg: dict[str, Any]) -> Any:
        self.tracing.seen.append(msg["name"])
        if msg["name"] in self.drawn:
            index = place_in_scan(msg)
            drawn = self.drawn[msg["name"]]
            return drawn if index is None else drawn[index]
        return self._value(msg, unconstrained=self.tracing.guide is None)

    def _value(self, msg: dict[str, Any], unconstrained: bool) -> Any:
        fn = msg["fn"]
        shape = tuple(msg["kwargs"].get("sample_shape") or ()) + tuple(fn.shape())
        discrete = registry.is_discrete(fn)
        transform = None if discrete else bijection_to(fn.support)
        if not unconstrained:
            transform = None
        index, name = place_in_scan(msg), msg["name"]
        if index is not None and name not in self.tracing.stacked:
            return feasible(msg)  # its whole shape is not known yet
        node = self._node(name, shape if transform is None else transform.inverse_shape(shape), discrete)
        at = None if transform is None else self._pseudo_data(name)
        if index is not None:
            node, at = jax.tree.map(lambda whole: whole[index], (node, at))
        return node if transform is None else transform(self._unconstrained(msg, node, at))

    def _indices(self, name: str, length: int, size: int) -> Any:
        asked = self.tracing.lengths.get(name)
        if asked is None and length == size:
            return None
        if name not in self.plates:
            self.plates[name] = placeholder(f"plate:{name}", (asked or length,), jnp.result_type(int))
        return self.plates[name]

    def _param(self, msg: dict[str, Any]) -> Any:
        """A parameter's value; how it starts is an output. A value that is not there yet is None: NumPyro asks for a
        network's before it makes it."""
        name = msg["name"]
        if name not in self.params:
            late = self.tracing.late
            start = late.get(name)
            if start is None:
                start = jax.tree.map(jnp.asarray, msg["fn"](*msg["args"], **msg["kwargs"]))
            if start is None:
                self.asked.add(name)
                return None
            if name in self.asked:
                late[name] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), start)
            self.parameter(name, start)
        return self.params[name]

    def parameter(self, name: str, start: Any) -> Any:
        """A parameter of the shape of `start`; where that holds values they are outputs."""
        leaves = jax.tree_util.tree_leaves_with_path(start)
        names = [f"param:{name}{jax.tree_util.keystr(path)}" for path, _ in leaves]
        known = zip(names, leaves, strict=True)
        self.initial |= {n.replace("param:", "init:", 1): x for n, (_, x) in known if isinstance(x, jax.Array)}
        values = [placeholder(n, jnp.shape(x), jnp.result_type(x)) for n, (_, x) in zip(names, leaves, strict=True)]
        self.made[name] = tuple(names), jax.tree.structure(start)
        self.params[name] = jax.tree.unflatten(self.made[name][1], values)
        return self.params[name]

    # --- outputs ----------------------------------------------------------------------------------------------------

    def _guide_outputs(self, r: Record, key_type: Any) -> dict[str, Any]:
        assert r.fn is not None and self.guide_sites is not None
        name, fn = r.name, unmasked(r.fn)
        scale, mask = 1.0 if r.scale is None else r.scale, mask_of(r.fn)
        base = registry.strip(fn)
        if isinstance(base, Delta):
            density = base.log_density * jnp.ones(fn.batch_shape)
            return {f"q:{name}": weighted(-density, scale, mask)}
        leaves, made = registry.taken_apart(fn)
        if is_sealed(fn, r.value):
            key = placeholder(f"noise:{name}", (), key_type)
            value, intermediates = fn(rng_key=key, sample_intermediates=True)
            parts, self.sealed[name] = jax.tree.flatten((value, intermediates))
            density = fn.log_prob(r.value)
            out = {f"draw:{name}:{i}": _array(x) for i, x in enumerate(parts)}
            out |= {f"drawn:{name}": fn.log_prob(value, intermediates), f"density:{name}": density}
        else:
            self.distributions[name] = made
            density = log_prob_apart(name, made.of(leaves), r.value)
            out = {f"distribution:{name}:{i}": _array(x) for i, x in enumerate(leaves)}
        out[f"q:{name}"] = weighted(-density, scale, mask)
        out[f"scale:{name}"] = _array(scale)
        if mask is not None:
            out[f"weight:{name}"] = jnp.broadcast_to(_array(mask), fn.batch_shape)
        return out | self._parts(f"q:{name}", r, density)

    def _model_outputs(self, r: Record) -> dict[str, Any]:
        assert r.fn is not None
        name, site = r.name, self.sites.samples[r.name]
        # Blocks never leave a support, and values between those of a discrete site are in none.
        checked = (self.tracing.guide is not None or r.observed) and not self.tracing.relaxed
        fn = r.fn if checked else unvalidated(r.fn)
        if name in self.tracing.relaxed:
            density = relaxed_log_density(fn, r.value)
        elif r.observed or self._drawn_inside(site):
            density = log_density(fn, r.value)
        else:
            density = fn.log_prob(r.value)
        out = {f"p:{name}": density if r.scale is None else r.scale * density}
        if site.observed and not site.auxiliary:
            out[f"likelihood:{name}"] = density
            out[f"inside:{name}"] = _inside(r)
            out[f"observed:{name}"] = jnp.broadcast_to(_array(r.value), site.shape)
        unconstrained = self.tracing.guide is None and not site.observed and not site.discrete
        transform = bijection_to(r.fn.support) if unconstrained else None
        if transform is not None:
            out |= self._change_of_variables(r, transform)
        return out | self._parts(f"p:{name}", r, density)

    def _change_of_variables(self, r: Record, transform: Transform) -> dict[str, Any]:
        """From a node to its site's value: the Jacobian, and what else depends on the node's coordinates."""
        name = r.name
        coordinates = coordinates_at(r, name in self.tracing.noncentred)
        out = part_outputs(name, coordinates)
        if coordinates is not None:
            self.coordinates[name] = named(name, coordinates)
        if name in self.nodes:
            ndim = len(self.sites.samples[name].batch_shape)
            made = NodeOf(r, transform, coordinates, self.nodes[name], self._pseudo_data(name), ndim)
            out |= made.outputs(self.scales[name])
        return out

    def _own_draws(self, records: Mapping[str, Record], rng_key: jax.Array) -> dict[str, Any]:
        """Draws of the classes of the user's own, whose sampler says more than their density: for the fingerprint."""
        out: dict[str, Any] = {}
        for r in records.values():
            if r.kind == "sample" and (classes := own_classes(r.fn)):
                self.classes += classes
                with suppress(Exception):  # a distribution that is only observed need not have a sampler
                    assert r.fn is not None
                    leaves = jax.tree.leaves(r.fn.sample(rng_key))
                    out |= {f"sampled:{r.name}:{i}:{len(self.classes)}": _array(x) for i, x in enumerate(leaves)}
        return out

    def _drawn_inside(self, site: Site) -> bool:
        """Are all draws of a latent site in its support? Those of the engine's own families are."""
        drawn = None if self.guide_sites is None else self.guide_sites.samples.get(site.name)
        return drawn is None or drawn.support == site.support

    def _parts(self, term: str, r: Record, density: jax.Array) -> dict[str, Any]:
        """The parameters of a site's distribution: NumPyro's own densities are continuous in them and in the value, so
        the term can only jump where they do. Of a class that NumPyro does not know, the density itself."""
        leaves = registry.parameters(r.fn) if registry.is_listed(r.fn) else [density]
        scale = [] if r.scale is None else [r.scale]
        return {f"part:{i}#{term}": _array(x) for i, x in enumerate([*leaves, *scale])}


def _array(value: Any) -> jax.Array:
    return value if isinstance(value, jax.Array) else jnp.asarray(value)


def delta_value(fn: Distribution) -> Any:
    """The value of a Delta, gradient and all; None for other distributions."""
    base = registry.strip(fn)
    return jnp.broadcast_to(base.v, fn.shape()) if isinstance(base, Delta) else None


def _inside(record: Record) -> jax.Array:
    assert record.fn is not None
    mask, inside = mask_of(record.fn), record.fn.support(_array(record.value))
    return jnp.all(inside if mask is None else inside | ~jnp.asarray(mask))
