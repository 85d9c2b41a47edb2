"""From a point at which unknown scales were held: the pseudo-data of the sites that have them, and better scales."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.ladder.programs import Programs
from autovi.ladder.pseudo_data import from_the_last, pseudo_data_of
from autovi.ladder.scales import as_site, rescaled
from autovi.model.traced import pseudo_inputs


def informed(programs: Programs, constants: dict[str, Any], point: jax.Array) -> tuple[dict[str, Any], np.ndarray]:
    """Constants with pseudo-data in the place of what `constants` have, and the point with its scales moved.

    Pseudo-data are of the likelihood, and hold for other scales than those of the point too.
    """
    program, found = programs.engine.program, dict(constants)
    place = jax.tree.map(np.asarray, programs.place(constants, point))
    sites = {}
    for names in from_the_last(program):
        told = programs.told(found, jnp.asarray(place.values), programs.asked(names, point))
        told = jax.tree.map(np.asarray, told)
        for name in (n for n in names if n in told.gradient):
            at = (place.images[name], place.log_scales[name], told.gradient[name], told.curvature[name])
            data = pseudo_data_of(*at)
            for constant, x in zip(pseudo_inputs(name), data, strict=True):
                like = found[constant]
                found[constant] = jnp.asarray(np.asarray(x, like.dtype).reshape(like.shape))
            sites[name] = as_site(place, name, *data)
    return found, rescaled(program, np.asarray(point), sites).astype(point.dtype)
