"""Parameters of a plan's blocks -> those of another plan's blocks, with the same q."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import block_diag, solve_triangular

from autovi.distributions.noise import stretched
from autovi.model.traced import Traced
from autovi.plan.plan import Block
from autovi.program.blocks import after_map, family_of
from autovi.program.program import Program


class Part(NamedTuple):
    """A normal over the unconstrained values of some sites, in that order: N(loc, scale scale'), `scale` a lower
    triangle, or a vector where all coordinates are independent."""

    sites: tuple[str, ...]
    loc: jax.Array
    scale: jax.Array


def moved_blocks(
    old: Program,
    guide: Mapping[str, Any],
    before: Mapping[str, Any],
    new: Program,
    after: Mapping[str, Any],
    kept: Collection[str],
) -> dict[str, Any]:
    """The parameters of the new plan's blocks; `before` and `after` are the constants of fixed maps.

    Raises:
        ValueError: a block of the new plan cannot hold the q of the old one.
    """
    return {
        b.name: guide[b.name] if b.name in kept else _made(b, old, guide, before, new, after) for b in new.plan.blocks
    }


def check_same_coordinates(old: Traced, before: Mapping[str, Any], new: Traced, after: Mapping[str, Any]) -> None:
    """Is each site as centred in the new plan as in the old one, with these constants? A site that has no coordinates
    of this kind is where its node is the value.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name in sorted(old.noncentred | new.noncentred):
        plain = (old if name in old.noncentred else new).plain(name)
        one = _centring(plain, before if name in old.noncentred else {})
        other = _centring(plain, after if name in new.noncentred else {})
        if not all(np.all(a == b) for a, b in zip(one, other, strict=True)):
            raise ValueError(f"site {name!r}: it would be in other coordinates, in which its parameters are another q")


def _centring(plain: Mapping[str, float], constants: Mapping[str, Any]) -> list[np.ndarray]:
    return [np.asarray(constants.get(name, x)) for name, x in plain.items()]


def _made(
    block: Block,
    old: Program,
    guide: Mapping[str, Any],
    before: Mapping[str, Any],
    new: Program,
    after: Mapping[str, Any],
) -> Any:
    sources = [b for b in old.plan.blocks if set(b.sites) & set(block.sites)]
    parts = [p for b in sources for p in _parts(b, old, guide[b.name], before.get(b.name), block.sites)]
    whole = _by_element(block, parts, new) if block.by_element else _ordered(block, parts, old)
    if whole is None:
        raise ValueError(f"block {block.name!r}: its sites {list(block.sites)} are tied to others that are not in it")
    loc, scale = whole
    if block.map:
        loc, scale = _before_map(loc, scale, after[block.name])
    params = family_of(block).from_normal(loc, scale, new.blocks.layout(block))
    if params is None:
        raise ValueError(
            f"block {block.name!r}: family {family_of(block).name!r} does not hold the distribution that its sites have"
        )
    return params


def _parts(block: Block, program: Program, params: Any, constants: Any, wanted: Collection[str]) -> list[Part]:
    normal = family_of(block).as_normal(params)
    if normal is None or normal[0].ndim > 1:
        raise ValueError(f"block {block.name!r}: family {family_of(block).name!r} is no normal that another could hold")
    loc, scale = normal
    if block.map:
        loc, scale = after_map(loc, scale, constants)
    if scale.ndim == 2:
        return [Part(block.sites, loc, scale)]
    sizes = [program.blocks.site_size(s) for s in block.sites]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    places = {s: slice(e - n, e) for s, n, e in zip(block.sites, sizes, ends, strict=True)}
    return [Part((s,), loc[p], scale[p]) for s, p in places.items() if s in wanted]


def _before_map(loc: jax.Array, scale: jax.Array, constants: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """The normal that is N(loc, scale scale') behind the map."""
    shift, factor = constants["loc"], constants["scale_tril"]
    if "vectors" in constants:
        back = lambda x: stretched(constants["vectors"], 1 / constants["lengths"], x / factor)  # noqa: E731
        rows = back((jnp.diag(scale) if scale.ndim == 1 else scale).T).T
        return back(loc - shift), jnp.linalg.cholesky(rows @ rows.T)
    if factor.ndim == 1:
        return (loc - shift) / factor, scale / factor if scale.ndim == 1 else scale / factor[:, None]
    dense = jnp.diag(scale) if scale.ndim == 1 else scale
    return solve_triangular(factor, loc - shift, lower=True), solve_triangular(factor, dense, lower=True)


def _by_element(block: Block, parts: list[Part], new: Program) -> tuple[jax.Array, jax.Array] | None:
    """Independent normals over the values of each element of the plates, None where they are tied to others."""
    by_site = {p.sites[0]: p for p in parts if len(p.sites) == 1 and p.scale.ndim == 1}
    if set(by_site) != set(block.sites):
        return None
    batch_shape = new.blocks.layout(block).batch_shape
    of_element = lambda x: x.reshape(*batch_shape, -1)  # noqa: E731
    loc, scale = (jnp.concatenate([of_element(by_site[s][i]) for s in block.sites], -1) for i in (1, 2))
    return loc, scale


def _ordered(block: Block, parts: list[Part], program: Program) -> tuple[jax.Array, jax.Array] | None:
    """One normal over the sites of a block, None where they are tied to others."""
    sites = [s for p in parts for s in p.sites]
    if sorted(sites) != sorted(block.sites):
        return None
    sizes = {s: program.blocks.site_size(s) for s in sites}
    starts = {s: sum(sizes[t] for t in sites[:i]) for i, s in enumerate(sites)}
    order = jnp.concatenate([jnp.arange(starts[s], starts[s] + sizes[s]) for s in block.sites])
    loc = jnp.concatenate([p.loc for p in parts])[order]
    if all(p.scale.ndim == 1 for p in parts):
        return loc, jnp.concatenate([p.scale for p in parts])[order]
    scale = block_diag(*(jnp.diag(p.scale) if p.scale.ndim == 1 else p.scale for p in parts))
    if sites != list(block.sites):
        rows = scale[order]
        scale = jnp.linalg.cholesky(rows @ rows.T)
    return loc, scale
