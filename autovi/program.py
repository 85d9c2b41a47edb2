"""Guide and model as one pure function of parameters, data and a key: `run` gives draws and cost terms of one particle.

Every site draws with a key of its own, so `run` with one site forced leaves all others on the same randomness: that is
what every counterfactual estimator stands on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Delta, Distribution
from numpyro.distributions.transforms import IdentityTransform, biject_to

from autovi import registry
from autovi.densities import log_density
from autovi.estimators.base import Draw
from autovi.execution import Drawn, Record, execute, mask_of, plate_scale, site_key, unmasked, unobserved, unvalidated
from autovi.families.base import Layout
from autovi.inputs import Inputs
from autovi.plan import Block, Plan
from autovi.sites import Site, Sites, feasible, trace_sites
from autovi.structure import sum_rightmost

FAST_SUPPORTS = (
    "real",
    "boolean",
    "integer nonnegative",
)  # checked once on the data, whatever the parameters are


class Node(NamedTuple):
    """A block as drawn: its distribution (unmasked), its draw, and log q of it, unscaled and unmasked."""

    q: Distribution
    draw: Draw
    log_q: jax.Array


class Run(NamedTuple):
    """One particle. `terms` add up to the ELBO's integrand; `values` are all latent and deterministic values;
    `log_likelihoods` those of the observed sites, unscaled; `inside` whether their values are in the support (only when
    asked for)."""

    nodes: dict[str, Node]
    terms: dict[str, jax.Array]
    values: dict[str, Any]
    log_likelihoods: dict[str, jax.Array]
    inside: dict[str, jax.Array]


@dataclass(frozen=True)
class Program:
    """What is run: the model, a guide function (None: the plan's blocks are the guide), and how the data enter."""

    model: Callable
    guide: Callable | None
    inputs: Inputs
    sites: Sites
    guide_sites: Sites | None
    plan: Plan

    # --- parameters ---------------------------------------------------------------------------------------------

    def init(self, rng_key: jax.Array, arrays: Mapping[str, Any], start: jax.Array) -> dict[str, Any]:
        """Parameters around one starting point: `start` holds every unconstrained value of the blocks, in order."""
        guide = {b.name: b.family.init(x, self.layout(b)) for b, x in self._starts(start) if b.family is not None}
        return {"guide": guide, "param": self._init_param_sites(rng_key, arrays)}

    def start_values(self, start: jax.Array, indices: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The value of every continuous block at a starting point, to force it to."""
        continuous = [(b, x) for b, x in self._starts(start) if self.start_size(b)]
        return {b.name: self.gather(b, x, indices) for b, x in continuous}

    def _starts(self, start: jax.Array) -> Iterator[tuple[Block, jax.Array]]:
        offset = 0
        for block in self.plan.blocks:
            if block.family is not None:
                size = self.start_size(block)
                yield block, self._start(block, start[offset : offset + size])
                offset += size

    def start_size(self, block: Block) -> int:
        """How many unconstrained numbers say where a block starts."""
        sites = [self.sites.samples[s] for s in block.sites]
        shapes = [s.full(s.unconstrained_shape) for s in sites if s.unconstrained_shape is not None]
        return sum(int(np.prod(shape)) for shape in shapes)

    def layout(self, block: Block) -> Layout:
        """The array that a block's family is asked for, plates at full size."""
        site = self.sites.samples[block.sites[0]]
        if block.flat:
            return Layout((), (sum(self.sites.samples[s].size for s in block.sites),))
        assert block.family is not None
        if block.family.unconstrained:
            shape = site.full(site.unconstrained_shape or ())
            ndim = len(site.batch_shape)
            return Layout(shape[:ndim], shape[ndim:])
        num_values = None if site.values is None else len(site.values)
        return Layout(site.full(site.batch_shape), site.event_shape, num_values)

    def _start(self, block: Block, flat: jax.Array) -> jax.Array:
        site, layout, family = self.sites.samples[block.sites[0]], self.layout(block), block.family
        assert family is not None
        if family.unconstrained:
            return flat.reshape(layout.batch_shape + layout.event_shape)
        if family.support is None:
            return jnp.zeros(layout.batch_shape + layout.event_shape)
        return biject_to(family.support)(flat.reshape(site.full(site.unconstrained_shape or ())))

    def _init_param_sites(self, rng_key: jax.Array, arrays: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        args, kwargs = self.inputs.rebuild(dict(arrays))
        values: dict[str, Any] = {}
        for fn, sites in ((self.guide, self.guide_sites), (self.model, self.sites)):
            if fn is None or sites is None or not sites.params:
                continue
            latent = lambda msg: values[msg["name"]] if msg["name"] in values else feasible(msg)  # noqa: E731
            for record in execute(fn, args, kwargs, rng_key, latent=latent).values():
                values[record.name] = record.value
                if record.kind == "param" and record.name not in found:
                    inverse = biject_to(sites.params[record.name]).inv
                    found[record.name] = jax.tree.map(lambda x, t=inverse: t(jnp.asarray(x)), record.value)
        return found

    def constrained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the parameter sites."""
        constraints = {
            **self.sites.params,
            **(self.guide_sites.params if self.guide_sites is not None else {}),
        }
        return {n: jax.tree.map(biject_to(constraints[n]), v) for n, v in params["param"].items()}

    # --- execution ----------------------------------------------------------------------------------------------

    def run(
        self,
        params: Mapping[str, Any],
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        indices: Mapping[str, Any],
        forced: Mapping[str, Any] | None = None,
        check: bool = False,
    ) -> Run:
        """One particle of guide and model. `forced` gives blocks (or marginalized sites) a value instead of a draw."""
        first = {n: jnp.zeros(self.sites.samples[n].batch_shape, int) for n in self.plan.marginal}
        forced = {**first, **(forced or {})}
        args, kwargs = self.inputs.rebuild(dict(arrays))
        param_values = self.constrained(params)

        def draw(name: str, q: Distribution) -> Draw:
            if name in forced:
                return Draw(jnp.broadcast_to(forced[name], q.shape()))
            return self.plan.estimator_of(name).draw(site_key(rng_key, name), q)

        guide = self._function_nodes if self.guide is not None else self._block_nodes
        nodes, values, terms = guide(params, (args, kwargs), param_values, rng_key, indices, draw)
        values = {**values, **{n: self.as_site_value(n, forced[n]) for n in self.plan.marginal}}
        lookup = _Lookup(values, self._unconstrained_sites(), self.sites)
        key = site_key(rng_key, "autovi:model")
        records = execute(self.model, args, kwargs, key, latent=lookup, params=param_values, indices=indices)
        sizes = {p.name: p.size for p in self.sites.plates.values()}
        self._add_block_terms(terms, nodes, records, sizes)
        likelihoods = {}
        for r in records.values():
            if r.kind == "sample":
                term, log_prob = self._model_term(r, lookup, sizes)
                terms[f"p:{r.name}"] = term
                if r.name in self.sites.observed:
                    likelihoods[r.name] = log_prob
        inside = {n: _inside(records[n]) for n in self.sites.observed if check}
        drawn = {n: records[n].value for n in [*self.sites.latents, *self.sites.deterministics] if n in records}
        return Run(nodes, terms, drawn, likelihoods, inside)

    def observed_values(self, arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The observed values, whatever the latent ones."""
        args, kwargs = self.inputs.rebuild(dict(arrays))
        indices = {n: jnp.arange(p.size) for n, p in self.sites.plates.items()}
        records = execute(self.model, args, kwargs, jax.random.key(0), latent=feasible, indices=indices)
        return {n: jnp.asarray(records[n].value) for n in self.sites.observed}

    def as_site_value(self, node: str, index: Any) -> Any:
        """The value that a draw of the plan's own families stands for: of finite supports they draw the index."""
        site = self.sites.samples.get(node)
        if site is None or site.values is None or site.values == tuple(range(len(site.values))):
            return index
        return jnp.asarray(np.asarray(site.values).astype(int))[index]

    def num_values(self, node: str) -> int:
        """How many branches an integrated node has."""
        site = self.sites.samples.get(node) or (self.guide_sites.samples[node] if self.guide_sites else None)
        assert site is not None and site.values is not None
        return len(site.values)

    def branch_values(self, node: str) -> np.ndarray:
        """The values to force a node to, one after the other."""
        if self.guide is None or node in self.plan.marginal:
            return np.arange(self.num_values(node))
        assert self.guide_sites is not None
        values = self.guide_sites.samples[node].values
        return np.asarray(values).astype(int)

    def _block_nodes(self, params, _args, _values, rng_key, indices, draw):  # type: ignore[no-untyped-def]
        nodes: dict[str, Node] = {}
        values: dict[str, Any] = {}
        for block in self.plan.blocks:
            assert block.family is not None
            leaves = self.gather(block, params["guide"][block.name], indices)
            event_ndim = len(self.layout(block).event_shape)
            q = block.family.distribution(leaves, event_ndim)
            drawn = draw(block.name, q)
            nodes[block.name] = Node(q, drawn, _log_q(q, drawn))
            if block.flat:
                values.update(self._slices(block, drawn.value))
            else:
                values[block.name] = self.as_site_value(block.name, drawn.value)
        return nodes, values, {}

    def _slices(self, block: Block, flat: jax.Array) -> dict[str, jax.Array]:
        values, offset = {}, 0
        for name in block.sites:
            site = self.sites.samples[name]
            values[name] = flat[offset : offset + site.size].reshape(site.unconstrained_shape)
            offset += site.size
        return values

    def gather(self, block: Block, leaves: Any, indices: Mapping[str, Any]) -> Any:
        """The rows of a block's parameters that belong to the elements of this step's plates."""
        if block.flat:
            return leaves
        site = self.sites.samples[block.sites[0]]
        full = site.full(site.batch_shape)
        for plate in site.plates:
            axis = len(full) + plate.dim
            if plate.name in indices and axis >= 0 and full[axis] == plate.size and plate.subsampled:
                rows = indices[plate.name]
                leaves = jax.tree.map(lambda x, a=axis, r=rows: jnp.take(x, r, axis=a), leaves)
        return leaves

    def _function_nodes(self, _params, arguments, param_values, rng_key, indices, draw):  # type: ignore[no-untyped-def]
        nodes: dict[str, Node] = {}
        blocks = {b.name for b in self.plan.blocks}

        def latent(msg: dict[str, Any]) -> Any:
            name, fn = msg["name"], unmasked(msg["fn"])
            if isinstance(registry.strip(fn), Delta):
                return registry.strip(fn).v if jnp.shape(registry.strip(fn).v) == fn.shape() else fn.sample(None)
            if name not in blocks:
                return None
            drawn = draw(name, fn)
            nodes[name] = Node(fn, drawn, _log_q(fn, drawn))
            return Drawn(drawn.value, drawn.aux)

        assert self.guide is not None
        key = site_key(rng_key, "autovi:guide")
        args, kwargs = arguments
        records = execute(self.guide, args, kwargs, key, latent=latent, params=param_values, indices=indices)
        kept = (r for r in records.values() if r.name not in self.plan.marginal)
        drawn = {r.name: r for r in kept if r.kind == "sample" and not r.observed}
        terms = {}
        for name, r in drawn.items():
            assert r.fn is not None
            if name in nodes:
                log_q = nodes[name].log_q
                log_q = log_q if self.plan.estimator_of(name).pathwise else jax.lax.stop_gradient(log_q)
            else:
                base = registry.strip(r.fn)
                log_q = base.log_density * jnp.ones(r.fn.batch_shape)
            terms[f"q:{name}"] = _weighted(-log_q, 1.0 if r.scale is None else r.scale, mask_of(r.fn))
        return nodes, {n: r.value for n, r in drawn.items()}, terms

    def _add_block_terms(self, terms, nodes, records: dict[str, Record], sizes) -> None:  # type: ignore[no-untyped-def]
        """-log q of the blocks, with the plate scale and the mask of the model's site."""
        if self.guide is not None:
            return
        for block in self.plan.blocks:
            log_q = nodes[block.name].log_q
            log_q = log_q if block.estimator.pathwise else jax.lax.stop_gradient(log_q)
            if block.flat:
                terms[f"q:{block.name}"] = -log_q
            else:
                r = records[block.name]
                terms[f"q:{block.name}"] = _weighted(-log_q, plate_scale(r.frames, sizes), mask_of(r.fn))

    def _drawn_inside(self, site: Site) -> bool:
        """Are all draws of a latent site in its support? Those of the engine's own families are."""
        drawn = None if self.guide_sites is None else self.guide_sites.samples.get(site.name)
        return drawn is None or drawn.support == site.support

    def _unconstrained_sites(self) -> frozenset[str]:
        if self.guide is not None:
            return frozenset()
        return frozenset(
            s for b in self.plan.blocks if b.family is not None and b.family.unconstrained for s in b.sites
        )

    def _model_term(self, r: Record, lookup: _Lookup, sizes: Mapping[str, int]) -> tuple[jax.Array, jax.Array]:
        fn = r.fn
        assert fn is not None
        site = self.sites.samples[r.name]
        fast = site.support in FAST_SUPPORTS and (r.observed or self._drawn_inside(site))
        fn = fn if self.guide is not None or r.observed else unvalidated(fn)  # own blocks never leave a support
        log_prob = log_density(fn, r.value) if fast else fn.log_prob(r.value)
        term = log_prob if r.scale is None else r.scale * log_prob
        if r.name not in lookup.unconstrained:
            return term, log_prob
        transform = biject_to(fn.support)
        if isinstance(transform, IdentityTransform):
            return term, log_prob
        log_det = sum_rightmost(transform.log_abs_det_jacobian(lookup.values[r.name], r.value), len(site.batch_shape))
        # The Jacobian belongs to q's change of variables: handlers.scale does not scale it.
        return term + _weighted(log_det, plate_scale(r.frames, sizes), mask_of(fn)), log_prob


class _Lookup:
    """Values of the model's latent sites, through each site's own bijection where they are unconstrained."""

    def __init__(self, values: Mapping[str, Any], unconstrained: frozenset[str], sites: Sites):
        self.values, self.unconstrained, self.sites = values, unconstrained, sites

    def __call__(self, msg: dict[str, Any]) -> Any:
        name = msg["name"]
        if name not in self.values:
            return None
        value = self.values[name]
        index = msg["infer"].get("_scan_current_index")
        value = value if index is None else value[index]
        return biject_to(msg["fn"].support)(value) if name in self.unconstrained else value


def _log_q(q: Distribution, draw: Draw) -> jax.Array:
    return q.log_prob(draw.value, draw.aux) if draw.aux else log_density(q, draw.value)


def _weighted(term: jax.Array, scale: Any, mask: Any) -> jax.Array:
    term = term if isinstance(scale, float) and scale == 1.0 else scale * term
    return term if mask is None else jnp.where(mask, term, 0.0)


def _inside(record: Record) -> jax.Array:
    assert record.fn is not None
    mask, inside = mask_of(record.fn), record.fn.support(record.value)
    return jnp.all(inside if mask is None else inside | ~jnp.asarray(mask))


def predict(
    model: Callable,
    inputs: Inputs,
    arrays: Mapping[str, Any],
    params: Mapping[str, Any],
    values: Mapping[str, Any],
    rng_key: jax.Array,
) -> dict[str, Any]:
    """One draw of everything in the model that `values` does not hold: observed sites anew, deterministics, and latent
    sites whose shape is not that of their value (new elements of a plate), from their prior given the rest."""
    taken: set[str] = set()

    def latent(msg: dict[str, Any]) -> Any:
        fn, name = msg["fn"], msg["name"]
        observed = msg["infer"].get("obs")
        if observed is not None and jnp.shape(observed) != fn.shape():
            ndim = jnp.ndim(observed) - fn.event_dim
            return fn.expand(jnp.shape(observed)[:ndim])(rng_key=msg["kwargs"]["rng_key"])
        index = msg["infer"].get("_scan_current_index")
        if name not in values:
            return None
        value = values[name] if index is None else values[name][index]
        if jnp.shape(value) != fn.shape():
            return None
        taken.add(name)
        return value

    args, kwargs = inputs.rebuild(dict(arrays))
    lengths = {n: jnp.arange(p.size) for n, p in trace_sites(model, inputs)[0].subsampled.items()}
    records = execute(unobserved(model), args, kwargs, rng_key, latent=latent, params=params, indices=lengths)
    kept = [r for r in records.values() if r.kind in ("sample", "deterministic") and not r.infer.get("is_auxiliary")]
    return {r.name: r.value for r in kept if r.name not in taken}
