"""From a point at which unknown scales were held: the pseudo-data of the sites that have them, and better scales."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.ladder.programs import Programs
from autovi.ladder.pseudo_data import from_the_last, num_products, pseudo_data_of
from autovi.ladder.scales import Site, as_site, rescaled
from autovi.model.traced import pseudo_inputs


class Informed(NamedTuple):
    """`constants` with pseudo-data in the place of what there was, and the `point` with its scales moved; how many
    `values` have pseudo-data, and how many gradients they took."""

    constants: dict[str, Any]
    point: np.ndarray
    values: int
    evaluations: int


def informed(programs: Programs, constants: dict[str, Any], point: jax.Array) -> Informed:
    """Pseudo-data, which are of the likelihood, and hold for other scales than those of the point too."""
    program, found = programs.engine.program, dict(constants)
    place = jax.tree.map(np.asarray, programs.place(constants, point))
    sites: dict[str, Site] = {}
    batches = 0
    for names in from_the_last(program):
        batches += 1
        told = programs.told(found, jnp.asarray(place.values), programs.asked(names, point))
        told = jax.tree.map(np.asarray, told)
        for name in (n for n in names if n in told.gradient):
            at = (place.images[name], place.log_scales[name], told.gradient[name], told.curvature[name])
            data = pseudo_data_of(*at)
            for constant, x in zip(pseudo_inputs(name), data, strict=True):
                like = found[constant]
                found[constant] = jnp.asarray(np.asarray(x, like.dtype).reshape(like.shape))
            sites[name] = as_site(place, name, *data)
    moved = rescaled(program, np.asarray(point), sites).astype(point.dtype)
    values = sum(int((site.precision > 0).sum()) for site in sites.values())
    return Informed(found, moved, values, batches * (1 + num_products(point.shape[0])))
