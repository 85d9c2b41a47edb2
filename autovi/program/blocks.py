"""The engine's own guide: the blocks of a plan, whose distributions depend on parameters alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import biject_to

from autovi.distributions.layouts import Structure
from autovi.distributions.noise import stretched
from autovi.families.base import MAX_DENSE, Family, Layout, Params
from autovi.model.sites import Site, Sites
from autovi.plan.plan import Block, Plan
from autovi.program.hierarchy import plate_levels, structure_of
from autovi.program.nodes import Conditional
from autovi.program.rows import gather


@dataclass(frozen=True)
class BlockGuide:
    """Parameters, starting points and draws of a plan's blocks."""

    sites: Sites
    plan: Plan

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many unconstrained numbers a starting point has."""
        return sum(self.start_size(b) for b in self.plan.blocks)

    def init(self, start: jax.Array) -> dict[str, Any]:
        """Parameters around one starting point: `start` holds every unconstrained value of the blocks, in order."""
        return {b.name: family_of(b).init(x, self.layout(b)) for b, x in self._starts(start)}

    def start_of(self, values: Mapping[str, Any]) -> jax.Array:
        """The starting point at which the sites have these unconstrained values, NaN for sites that `values` lack."""
        parts = [self._start_part(block, values) for block in self.plan.blocks]
        return jnp.concatenate([jnp.zeros(0), *(part for part in parts if part is not None)])

    def _start_part(self, block: Block, values: Mapping[str, Any]) -> jax.Array | None:
        sites = [self.sites.samples[s] for s in block.sites if self.sites.samples[s].unconstrained_shape is not None]
        shapes = [site.full(site.unconstrained_shape or ()) for site in sites]
        known = [jnp.broadcast_to(values.get(s.name, jnp.nan), x) for s, x in zip(sites, shapes, strict=True)]
        if not block.by_element:
            return jnp.concatenate([jnp.ravel(x) for x in known]) if known else None
        batch_shape = self.layout(block).batch_shape
        return jnp.ravel(jnp.concatenate([x.reshape(*batch_shape, -1) for x in known], axis=-1))

    def start_values(self, start: jax.Array, indices: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The value of every continuous block at a starting point, to force it to."""
        continuous = [(b, x) for b, x in self._starts(start) if self.start_size(b)]
        return {b.name: self.gather(b, x, indices) for b, x in continuous}

    def layout(self, block: Block) -> Layout:
        """The array that a block's family is asked for, plates at full size."""
        site = self.sites.samples[block.sites[0]]
        parents = sum(self.layout(self.plan.block(p)).event_shape[0] for p in block.parents)
        if block.flat:
            structure = self._structure(block)
            return Layout((), (sum(self.site_size(s) for s in block.sites),), num_parents=parents, structure=structure)
        if block.by_element:
            batch_shape = site.full(site.batch_shape)
            size = sum(self.site_size(s) for s in block.sites) // max(1, prod(batch_shape))
            return Layout(batch_shape, (size,), num_parents=parents)
        if family_of(block).unconstrained:
            shape, ndim = site.full(site.unconstrained_shape or ()), len(site.batch_shape)
            return Layout(shape[:ndim], shape[ndim:])
        num_values = None if site.values is None else len(site.values)
        return Layout(site.full(site.batch_shape), site.event_shape, num_values)

    def identity(self, block: Block) -> dict[str, jax.Array]:
        """The map before a block that changes nothing."""
        size = self.start_size(block)
        one = jnp.eye(size) if family_of(block).rotates and size <= MAX_DENSE else jnp.ones(size)
        along = {"vectors": jnp.eye(size, block.directions), "lengths": jnp.ones(block.directions)}
        return {"loc": jnp.zeros(size), "scale_tril": one, **(along if block.directions else {})}

    def shown(self, block: Block, params: Params, constants: Mapping[str, jax.Array] | None) -> dict[str, Any]:
        """A block's parameters for a user: those of a normal with its map in them, of others with the map beside."""
        if not block.map or constants is None:
            return params
        family = family_of(block)
        normal = None if block.directions else family.as_normal(params)
        whole = None if normal is None else family.from_normal(*after_map(*normal, constants), self.layout(block))
        return {**params, **{f"map.{n}": x for n, x in constants.items()}} if whole is None else whole

    def _structure(self, block: Block) -> Structure | None:
        apart = family_of(block).takes_apart(plate_levels(self.sites, block.sites))
        return None if apart is None else structure_of(self.sites, block.sites, *apart)

    def gather(self, block: Block, leaves: Any, indices: Mapping[str, Any]) -> Any:
        """The rows of a block's parameters that belong to the elements of this step's plates."""
        if block.flat:
            return leaves
        return gather(self.sites.samples[block.sites[0]], leaves, indices)

    def _starts(self, start: jax.Array) -> Iterator[tuple[Block, jax.Array]]:
        offset = 0
        for block in self.plan.blocks:
            size = self.start_size(block)
            yield block, self._start(block, start[offset : offset + size])
            offset += size

    def site_size(self, name: str) -> int:
        """How many unconstrained numbers a site has at full plates."""
        site = self.sites.samples[name]
        return prod(site.full(site.unconstrained_shape or ()))

    def start_size(self, block: Block) -> int:
        """How many unconstrained numbers a block has in a starting point."""
        sites = [self.sites.samples[s] for s in block.sites]
        return sum(prod(s.full(s.unconstrained_shape)) for s in sites if s.unconstrained_shape is not None)

    def _start(self, block: Block, flat: jax.Array) -> jax.Array:
        site, layout, family = self.sites.samples[block.sites[0]], self.layout(block), family_of(block)
        if family.unconstrained:
            return flat.reshape(layout.batch_shape + layout.event_shape)
        if family.support is None:
            return jnp.zeros(layout.batch_shape + layout.event_shape)
        return biject_to(family.support)(flat.reshape(site.full(site.unconstrained_shape or ())))

    # --- draws --------------------------------------------------------------------------------------------------------

    def distributions(
        self, params: Mapping[str, Any], constants: Mapping[str, Any]
    ) -> dict[str, Distribution | Conditional]:
        """The distribution of every block, `Conditional` where it has parents. Of tables, `params` hold the rows that
        are wanted."""
        distributions: dict[str, Distribution | Conditional] = {}
        for block in self.plan.blocks:
            fixed = constants[block.name] if block.map else None
            q = Conditional(params[block.name], fixed, family_of(block), self.layout(block))
            distributions[block.name] = q if block.parents else q.given()
        return distributions

    def draw_shape(self, block: Block) -> tuple[int, ...]:
        """The shape of one draw of a block, at this step's elements of the plates."""
        if block.flat:
            return self.layout(block).event_shape
        site = self.sites.samples[block.sites[0]]
        if block.by_element:
            return site.batch_shape + self.layout(block).event_shape
        return (site.unconstrained_shape or ()) if family_of(block).unconstrained else site.shape

    def unconstrained(self) -> frozenset[str]:
        """The sites whose values are drawn on the unconstrained scale."""
        return frozenset(s for b in self.plan.blocks if family_of(b).unconstrained for s in b.sites)

    def site_values(self, block: Block, drawn: jax.Array) -> dict[str, Any]:
        """The values of a block's sites: unconstrained where its family is."""
        if not (block.flat or block.by_element):
            return {block.name: site_value(self.sites.samples, block.name, drawn)}
        sites = [self.sites.samples[name] for name in block.sites]
        elements = max(1, prod(sites[0].batch_shape)) if block.by_element else 1
        sizes = [prod(site.unconstrained_shape or ()) // elements for site in sites]
        # One split: the derivative of as many slices would be as many padded vectors to add up.
        parts = jax.lax.split(drawn, sizes, axis=drawn.ndim - 1)
        return {s.name: part.reshape(s.unconstrained_shape) for s, part in zip(sites, parts, strict=True)}


def after_map(loc: jax.Array, scale: jax.Array, constants: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """The normal N(loc, scale scale') behind a block's fixed map, which is a lower triangle, or a vector where it
    scales each coordinate alone, after it stretched some directions."""
    shift, factor = constants["loc"], constants["scale_tril"]
    if "vectors" in constants:
        matrix = factor[:, None] * stretched(constants["vectors"], constants["lengths"], jnp.eye(len(shift)))
        rows = matrix * scale if scale.ndim == 1 else matrix @ scale
        return shift + matrix @ loc, jnp.linalg.cholesky(rows @ rows.T)
    if factor.ndim == 1:
        return shift + factor * loc, factor * scale if scale.ndim == 1 else factor[:, None] * scale
    return shift + factor @ loc, factor @ (jnp.diag(scale) if scale.ndim == 1 else scale)


def family_of(block: Block) -> Family:
    """The family of a block of the engine's own guide."""
    assert block.family is not None
    return block.family


def site_value(samples: Mapping[str, Site], name: str, index: Any) -> Any:
    """The value that a draw from a finite support stands for: families draw the index."""
    values = samples[name].values
    if values is None or values == tuple(range(len(values))):
        return index
    return jnp.asarray(np.asarray(values).astype(int))[index]
