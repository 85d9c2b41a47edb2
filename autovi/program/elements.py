"""The plates of a block's sites -> which coordinates of its flat vector belong to which elements."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from autovi.distributions.layouts import Above, Index, Level, Structure
from autovi.model.sites import Plate, Site


def structure_of_sites(sites: Iterable[Site]) -> Structure | None:
    """The structure of the concatenated unconstrained values of these sites, plates at full size: None without plates.

    Sites in the same plates make one level, their values in an element stand one after the other, and what is not in
    any plate is common. Above an element stand those of all levels with some of its plates, as a patient above its
    visits.
    """
    common: list[np.ndarray] = []
    found: dict[tuple[Plate, ...], list[np.ndarray]] = {}
    start = 0
    for site in sites:
        shape = site.full(site.unconstrained_shape or ())
        index = start + np.arange(prod(shape)).reshape(shape)
        start += index.size
        plates = tuple(sorted(site.plates, key=lambda plate: plate.dim))
        if not plates:
            common.append(index.ravel())
            continue
        axes = [len(site.batch_shape) + plate.dim for plate in plates]
        elements = prod(shape[axis] for axis in axes)
        found.setdefault(plates, []).append(np.moveaxis(index, axes, range(len(axes))).reshape(elements, -1))
    if not found:
        return None
    order = sorted(found, key=len)  # a level stands after those with some of its plates
    levels = [
        Level(Index(np.concatenate(found[plates], axis=1)), _above(plates, order[:k])) for k, plates in enumerate(order)
    ]
    return Structure(Index(np.concatenate([np.zeros(0, int), *common])), tuple(levels))


def _above(plates: tuple[Plate, ...], before: list[tuple[Plate, ...]]) -> tuple[Above, ...]:
    sizes = [plate.size for plate in plates]
    places = dict(zip(plates, np.unravel_index(np.arange(prod(sizes)), sizes), strict=True))
    return tuple(
        Above(k, Index(np.ravel_multi_index([places[p] for p in outer], [p.size for p in outer])))
        for k, outer in enumerate(before)
        if set(outer) < set(plates)
    )
