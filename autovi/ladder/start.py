"""A normal over all unconstrained values -> the state of a program whose q is that normal, or near it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from autovi.families.base import MAX_DENSE
from autovi.ladder.directions import Directions
from autovi.ladder.normal import Normal
from autovi.plan.plan import Block
from autovi.program.blocks import family_of
from autovi.program.program import Program
from autovi.run.optimizer import Optimizer
from autovi.run.state import State


class Fixed(NamedTuple):
    """What a normal does not say: the constants of the coordinates, the parameters of blocks whose posterior is known,
    and the directions in which independent normals are too wide or too narrow."""

    constants: Mapping[str, Any]
    exact: Mapping[str, Any]
    directions: Directions | None = None


def state_at(
    program: Program, optimizer: Optimizer, state: State, normal: Normal, fixed: Fixed, spread: float | jax.Array = 1.0
) -> State:
    """The state before the first step with q at a normal over the values of all continuous blocks, in their order.

    Blocks behind a map have the normal in the map, and start at the standard normal behind it; of the others those
    parameters are taken that hold it. A family of independent normals gets, as at its own optimum, the scale that each
    coordinate has given all others. `spread` is the scale of q behind a map.
    """
    params, maps, offset = {}, {}, 0
    for block in program.plan.blocks:
        size = program.blocks.start_size(block)
        offset += size
        if block.name in fixed.exact:
            params[block.name] = fixed.exact[block.name]
            continue
        part = _marginal(normal, offset - size, offset, block.map and family_of(block).rotates)
        params[block.name], moved = _placed(program, block, part, spread)
        if moved is not None:
            along = fixed.directions._asdict() if fixed.directions is not None and block.directions else {}
            maps[block.name] = {**moved, **along}
    whole = {**state.all_params, "guide": {**state.all_params["guide"], **params}}
    made = state.started_at(program, optimizer, whole)._replace(constants={**fixed.constants, **maps})
    return jax.tree.map(jnp.copy, made)  # the steps use a state up: it must hold no array twice, and none of another's


def conditional_precision(normal: Normal) -> jax.Array:
    """The precision of each coordinate given all others."""
    if normal.scale.ndim == 1:
        return normal.scale**-2
    inverse = solve_triangular(normal.scale, jnp.eye(normal.loc.shape[0], dtype=normal.scale.dtype), lower=True)
    return jnp.sum(inverse**2, axis=0)


def reordered(normal: Normal, old: Program, new: Program) -> Normal:
    """The normal over the values of all blocks in the order of another plan of the same program."""
    places, offset = {}, 0
    for block in old.plan.blocks:
        for name in block.sites:
            places[name] = np.arange(offset, offset := offset + old.blocks.site_size(name))
    order = np.concatenate([places[name] for block in new.plan.blocks for name in block.sites])
    loc, scale = normal.loc[order], normal.scale[order]
    if scale.ndim == 1 or np.array_equal(order, np.arange(order.size)):
        return Normal(loc, scale)
    return Normal(loc, _triangle(scale))


def _placed(
    program: Program, block: Block, part: Normal, spread: float | jax.Array
) -> tuple[Any, dict[str, jax.Array] | None]:
    family, layout = family_of(block), program.blocks.layout(block)
    if not block.map:
        loc, scale = (x.reshape(layout.batch_shape + layout.event_shape) for x in part)
        params = family.from_normal(loc, spread * scale, layout)
        return family.init(loc, layout) if params is None else params, None
    zero = jnp.zeros_like(part.loc)
    params = family.from_normal(zero, jnp.full_like(part.loc, spread), layout)
    if params is None:
        params = family.init(zero, layout)
    return params, {"loc": part.loc, "scale_tril": part.scale}


def _marginal(normal: Normal, start: int, end: int, dense: bool) -> Normal:
    """The normal of some coordinates: with their covariance, or with the scale of each given all others."""
    loc, scale = normal.loc[start:end], normal.scale
    if scale.ndim == 1:
        own = scale[start:end]
        return Normal(loc, jnp.diag(own) if dense and end - start <= MAX_DENSE else own)
    if dense:
        whole = start == 0 and end == normal.loc.shape[0]
        # R'R = A A' with A' = QR, for the rows A of the scale: no covariance, whose rounding would count twice.
        return Normal(loc, scale if whole else _triangle(scale[start:end]))
    return Normal(loc, jax.lax.rsqrt(conditional_precision(normal)[start:end]))


def _triangle(rows: jax.Array) -> jax.Array:
    upper = jnp.linalg.qr(rows.T, mode="r")
    lower = upper.T
    return lower * jnp.where(jnp.diagonal(lower) < 0, -1.0, 1.0)
