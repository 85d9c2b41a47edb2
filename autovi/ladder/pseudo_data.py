"""What the data say of the elements of non-centred sites, as normal observations of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.families.base import MAX_DENSE
from autovi.ladder.density import joint_density
from autovi.ladder.diagonal import NUM_PROBES, diagonal_of_hessian
from autovi.model.traced import pseudo_inputs
from autovi.program.centring import coordinates_at, nodes_at, values_at
from autovi.program.program import Program

# Of the prior's precision: data that say less than this of an element say nothing.
LEAST = 1e-6
# Of its own standard deviations, that an observation is at most away from the value: of those of normal data at a mode
# hardly one is farther. A log density that is all slope and no curvature would make one that is infinitely far.
FARTHEST = 3.0


class Place(NamedTuple):
    """Where a point is, as values: `values`, the same vector with the unconstrained values of non-centred sites in the
    place of their nodes; by such a site, each of the shape of its node, `images` with the `locations` and `log_scales`
    of their distributions; and `slopes`, those of the mean log scale in the point."""

    values: jax.Array
    images: dict[str, jax.Array]
    locations: dict[str, jax.Array]
    log_scales: dict[str, jax.Array]
    slopes: dict[str, jax.Array]


class Told(NamedTuple):
    """The first and minus the second derivatives, in each non-centred site's image, of the log density without the
    site's own prior."""

    gradient: dict[str, jax.Array]
    curvature: dict[str, jax.Array]


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


def place_at(program: Program, params: Mapping[str, Any], arrays: Any, point: jax.Array) -> Place:
    """What is at a point."""

    def found(x: jax.Array) -> tuple[dict[str, jax.Array], Place]:
        values = values_at(program, params, arrays, _by_site(program, x))
        coordinates = coordinates_at(program, {**params, "constants": {}}, arrays, values)
        shaped = lambda n, v: jnp.broadcast_to(v, jnp.shape(values[n])).astype(x.dtype)  # noqa: E731
        priors = {n: [shaped(n, x) for x in c.prior()] for n, c in coordinates.items()}
        locations, log_scales = ({n: found[i] for n, found in priors.items()} for i in (0, 1))
        images = {n: c.image(values[n]) for n, c in coordinates.items()}
        means = {n: jnp.mean(v) for n, v in log_scales.items()}
        return means, Place(_vector(program, x, values), images, locations, log_scales, {})

    slopes, place = jax.jacrev(found, has_aux=True)(point)
    return place._replace(slopes=slopes)


def told_at(
    program: Program,
    params: Mapping[str, Any],
    arrays: Any,
    values: jax.Array,
    asked: Mapping[str, jax.Array],
    lanes: int,
) -> Told:
    """What all but their own priors say of the sites with `asked` of 1, at a vector of values (see `Place`), with the
    coordinates of the others as `params` have them."""
    given = dict(params["constants"])
    sites = sorted(program.traced.noncentred)
    for name in sites:  # their nodes are their images
        precision, datum = pseudo_inputs(name)
        given[precision] = jnp.where(asked[name] > 0, jnp.inf, given[precision])
        given[datum] = jnp.where(asked[name] > 0, 0.0, given[datum])
    params = {**params, "constants": given}
    nodes = _vector(program, values, nodes_at(program, params, arrays, _by_site(program, values)))
    density = joint_density(program, params, arrays, {n: 1 - asked[n] for n in sites})
    gradient = jax.grad(density)(nodes)
    curvature = -diagonal_of_hessian(density, nodes, exact=is_exact(nodes.shape[0]), lanes=lanes)
    by_site = lambda x: {n: v for n, v in _by_site(program, x).items() if n in program.traced.noncentred}  # noqa: E731
    return Told(by_site(gradient), by_site(curvature))


def is_exact(size: int) -> bool:
    """Is each of so many second derivatives computed by itself?"""
    return size <= MAX_DENSE


def num_products(size: int) -> int:
    """How many products with the Hessian, each about as costly as a gradient, the second derivatives take."""
    return size if is_exact(size) else NUM_PROBES


def from_the_last(program: Program) -> Iterator[list[str]]:
    """The non-centred sites, those first on which no other's coordinates depend. What the data say of a site goes
    through the sites below it, whose pseudo-data have to be there."""
    left = [n for n in program.traced.sites.latents if n in program.traced.noncentred]
    above = {n: {*m.location, *m.scale} - {n} for n, m in program.plan.noncentred.items()}
    while left:
        free = [n for n in left if not any(n in above.get(o, ()) for o in left)] or left
        yield free
        left = [n for n in left if n not in free]


def pseudo_data_of(image: np.ndarray, log_scale: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> Any:
    r"""Precision w and value d of the normal observation with these derivatives at an image x:
    :math:`w = -l''`, :math:`d = x + l' / w`, and a higher precision where d would be far. Where the density is not
    curved down, or hardly, there is none."""
    known = np.isfinite(curvature) & (curvature * np.exp(2 * log_scale) > LEAST) & np.isfinite(gradient)
    curvature = np.maximum(curvature, (gradient / FARTHEST) ** 2)
    precision = np.where(known, curvature, 0.0)
    return precision, np.where(known, image + gradient / np.where(known, curvature, 1.0), 0.0)


def _by_site(program: Program, point: jax.Array) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in program.plan.blocks:
        if block.name in (forced := program.start_values(point, {})):
            found |= program.blocks.site_values(block, forced[block.name])
    return found


def _vector(program: Program, point: jax.Array, values: Mapping[str, Any]) -> jax.Array:
    """A point with the non-centred sites' values in their places."""
    for name, place in places_of(program).items():
        if name in program.traced.noncentred:
            point = point.at[place].set(jnp.ravel(values[name]).astype(point.dtype))
    return point
