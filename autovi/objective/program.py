"""Guide and model as one pure function of parameters, data and a key: `run` gives draws and cost terms of one particle.

Every site draws with a key of its own, so `run` with one site forced leaves all others on the same randomness: that is
what every counterfactual estimator stands on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import IdentityTransform, biject_to

from autovi.analysis.structure import sum_rightmost
from autovi.distributions.densities import log_density
from autovi.estimators.base import Draw
from autovi.model.execution import Record, execute, mask_of, plate_scale, site_key, unvalidated
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites, feasible
from autovi.objective.blocks import BlockGuide, site_value
from autovi.objective.guide_function import run_guide
from autovi.objective.nodes import Node, naming, weighted
from autovi.plan.plan import Plan

# Supports that do not depend on parameters: data are checked against them once.
FAST_SUPPORTS = ("real", "boolean", "integer nonnegative")


class Run(NamedTuple):
    """One particle. `terms` add up to the ELBO's integrand; `values` are all latent and deterministic values;
    `log_likelihoods` those of the observed sites, unscaled; `inside` whether their values are in the support (only when
    asked for)."""

    nodes: dict[str, Node]
    terms: dict[str, jax.Array]
    values: dict[str, Any]
    log_likelihoods: dict[str, jax.Array]
    inside: dict[str, jax.Array]
    masks: dict[str, jax.Array]  # of marginalized sites that have one


@dataclass(frozen=True)
class Program:
    """What is run: the model, a guide function (None: the plan's blocks are the guide), and how the data enter."""

    model: Callable
    guide: Callable | None
    inputs: Inputs
    sites: Sites
    guide_sites: Sites | None
    plan: Plan

    @property
    def blocks(self) -> BlockGuide:
        """The engine's own guide."""
        return BlockGuide(self.sites, self.plan)

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def start_size(self) -> int:
        """How many unconstrained numbers a starting point of the engine's own guide has."""
        return self.blocks.size if self.guide is None else 0

    def init(self, rng_key: jax.Array, arrays: Mapping[str, Any], start: jax.Array) -> dict[str, Any]:
        """Parameters around one starting point: those of the blocks, and those of parameter sites as declared."""
        guide = self.blocks.init(start) if self.guide is None else {}
        return {"guide": guide, "param": self._init_param_sites(rng_key, arrays)}

    def start_values(self, start: jax.Array, indices: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The value of every continuous block at a starting point, to force it to."""
        return self.blocks.start_values(start, indices) if self.guide is None else {}

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

    # --- execution ----------------------------------------------------------------------------------------------------

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
            with naming(name):
                return self.plan.estimator_of(name).draw(site_key(rng_key, name), q)

        terms: dict[str, jax.Array] = {}
        if self.guide is None:
            nodes, values = self.blocks.draw(params["guide"], indices, draw)
        else:
            key = site_key(rng_key, "autovi:guide")
            nodes, values, terms = run_guide(self.guide, (args, kwargs), self.plan, key, param_values, indices, draw)
        values = {**values, **{n: site_value(self.sites, n, forced[n]) for n in self.plan.marginal}}
        lookup = _Lookup(values, self.blocks.unconstrained() if self.guide is None else frozenset())
        key = site_key(rng_key, "autovi:model")
        records = execute(self.model, args, kwargs, key, latent=lookup, params=param_values, indices=indices)
        sizes = {p.name: p.size for p in self.sites.plates.values()}
        if self.guide is None:
            terms = self.blocks.terms(nodes, records, sizes)
        model_terms, likelihoods = self._model_terms(records, lookup, sizes)
        inside = {n: _inside(records[n]) for n in self.sites.observed if check}
        drawn = {n: records[n].value for n in [*self.sites.latents, *self.sites.deterministics] if n in records}
        masks = {n: _full_mask(records[n]) for n in self.plan.marginal if mask_of(records[n].fn) is not None}
        return Run(nodes, {**terms, **model_terms}, drawn, likelihoods, inside, masks)

    def _model_terms(
        self, records: Mapping[str, Record], lookup: _Lookup, sizes: Mapping[str, int]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """The model's terms, and the unscaled log likelihoods of the observed sites."""
        terms, likelihoods = {}, {}
        for name, r in records.items():
            if r.kind == "sample":
                terms[f"p:{name}"], log_prob = self._model_term(r, lookup, sizes)
                if name in self.sites.observed:
                    likelihoods[name] = log_prob
        return terms, likelihoods

    def observed_values(self, arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The observed values, whatever the latent ones."""
        args, kwargs = self.inputs.rebuild(dict(arrays))
        indices = {n: jnp.arange(p.size) for n, p in self.sites.plates.items()}
        records = execute(self.model, args, kwargs, jax.random.key(0), latent=feasible, indices=indices)
        return {n: jnp.broadcast_to(records[n].value, s.shape) for n, s in self.sites.observed.items()}

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

    def _drawn_inside(self, site: Site) -> bool:
        """Are all draws of a latent site in its support? Those of the engine's own families are."""
        drawn = None if self.guide_sites is None else self.guide_sites.samples.get(site.name)
        return drawn is None or drawn.support == site.support

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
        return term + weighted(log_det, plate_scale(r.frames, sizes), mask_of(fn)), log_prob


class _Lookup:
    """Values of the model's latent sites, through each site's own bijection where they are unconstrained."""

    def __init__(self, values: Mapping[str, Any], unconstrained: frozenset[str]):
        self.values, self.unconstrained = values, unconstrained

    def __call__(self, msg: dict[str, Any]) -> Any:
        name = msg["name"]
        if name not in self.values:
            return None
        value = self.values[name]
        index = msg["infer"].get("_scan_current_index")
        value = value if index is None else value[index]
        return biject_to(msg["fn"].support)(value) if name in self.unconstrained else value


def _inside(record: Record) -> jax.Array:
    assert record.fn is not None
    mask, inside = mask_of(record.fn), record.fn.support(record.value)
    return jnp.all(inside if mask is None else inside | ~jnp.asarray(mask))


def _full_mask(record: Record) -> jax.Array:
    assert record.fn is not None
    return jnp.broadcast_to(jnp.asarray(mask_of(record.fn)), record.fn.batch_shape)
