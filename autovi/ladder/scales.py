"""Unknown scales: what they are about, from the values that have them, and how centred these are best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.model.traced import centring_inputs
from autovi.program.centring import scales_at, values_at
from autovi.program.program import Program

FARTHEST = 10.0  # on the unconstrained scale, that an unknown scale is moved
LEAST = 1e-4  # of the mean square of standardized values, after what noise there is in it


def log_scales(program: Program, params: Mapping[str, Any], arrays: Any, point: jax.Array) -> dict[str, jax.Array]:
    """The logarithms of the scales of the non-centred sites' distributions at a point, in the shapes of their nodes."""
    nodes: dict[str, Any] = {}
    for block in program.plan.blocks:
        if block.name in (forced := program.start_values(point, {})):
            nodes |= program.blocks.site_values(block, forced[block.name])
    values = values_at(program, params, arrays, nodes)
    return {n: jnp.log(s) for n, s in scales_at(program, params, arrays, values).items()}


def mean_log_scales(program: Program, params: Mapping[str, Any], arrays: Any, point: jax.Array) -> Any:
    """The slopes in the point of their means, and all of them."""

    def means(x: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        scales = log_scales(program, params, arrays, x)
        return {n: jnp.mean(v) for n, v in scales.items()}, scales

    return jax.jacrev(means, has_aux=True)(point)


def places_of(program: Program) -> dict[str, slice]:
    """Where each site stands in a starting point."""
    found, offset = {}, 0
    for block in program.plan.blocks:
        if block.by_element:
            offset += program.blocks.start_size(block)
            continue
        for name in block.sites:
            size = program.blocks.site_size(name)
            found[name] = slice(offset, offset + size)
            offset += size
    return found


def refined(
    program: Program, mode: np.ndarray, precision: np.ndarray, slopes: Mapping[str, Any], scales: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    r"""Better values of the unknown scales, and the coordinates that go with them.

    Where a site is non-centred with the scale held at s, its node t at the mode is shrunk by (h - 1) / h, h the
    curvature of the node, of which 1 is the prior's and h - 1 the data's. Freed of that, its mean square less the noise
    is the ratio of the right scale's square to that of s, :math:`r`, as the moments of a random-effects model have it
    (DerSimonian and Laird, 1986). Where the scale depends on one number alone, that is moved to where the ratio is 1.
    The degree of centring is then the data's share in what is known of each value, :math:`r (h - 1) / (1 + r (h - 1))`.

    Args:
        mode: a point with all non-centred sites at degree 0, the scales held.
        precision: the curvature of each coordinate there.
        slopes: by site, that of the mean log scale in the point.
        scales: by site, the log scales there.

    Returns:
        The point with the scales moved, and the constants of the coordinates.
    """
    point, places = np.array(mode, np.float64), places_of(program)
    constants: dict[str, np.ndarray] = {}
    for site in sorted(program.traced.noncentred):
        degree, unit = centring_inputs(site)
        shape = np.shape(scales[site])
        constants |= {degree: np.zeros(shape), unit: np.ones(shape)}
        if site not in places:
            continue
        node, own = mode[places[site]].astype(np.float64), precision[places[site]].astype(np.float64)
        data = np.maximum(own - 1, 0)
        known = data > 0.01
        if not known.any():
            continue
        free = node[known] * own[known] / data[known]
        weight = data[known] / own[known]  # what shrinkage leaves is known as well as so much data
        ratio = max(np.average(free**2 - 1 / data[known], weights=weight**2), LEAST)
        parents = [n for n in program.plan.scales if n in places and np.abs(slopes[site][places[n]]).sum() > 0]
        if len(parents) == 1 and places[parents[0]].stop - places[parents[0]].start == 1:
            place = places[parents[0]].start
            move = float(np.clip(0.5 * np.log(ratio) / slopes[site][place], -FARTHEST, FARTHEST))
            point[place] += move
        else:
            ratio = 1.0
        share = ratio * data / (1 + ratio * data)
        constants |= {degree: share.reshape(shape), unit: np.exp(scales[site] + 0.5 * np.log(ratio)).reshape(shape)}
    return point, constants
