"""Which numbers of a joint block belong to the elements of plates, and which all of them have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import numpy as np

from autovi.distributions.layouts import Above, Index, Level, Structure
from autovi.model.sites import Site, Sites


def plate_levels(sites: Sites, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sites of each set of plates that several elements are in, outer plates first; those in none are common."""
    levels: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        if plates := _plates(sites.samples[name]):
            levels.setdefault(plates, []).append(name)
    return tuple(tuple(levels[key]) for key in sorted(levels, key=len))


def structure_of(
    sites: Sites, names: Sequence[str], levels: Sequence[Sequence[str]], together: Collection[int] = ()
) -> Structure:
    """The structure of a block of sites whose `levels` hold, each, the sites of one set of plates.

    A site of a level that is in no plate has each of its numbers as an element. Levels whose number is in `together`
    are one element, and are given to all later levels where they are in no plate.
    """
    starts, offset = {}, 0
    for name in names:
        starts[name] = offset
        offset += _size(sites.samples[name])
    inside = {name for level in levels for name in level}
    common = [np.arange(starts[n], starts[n] + _size(sites.samples[n])) for n in names if n not in inside]
    made = []
    for k, level in enumerate(levels):
        parts = [_index(sites.samples[n], starts[n]) for n in level]
        if k in together:
            made.append(Level(Index(np.concatenate([part.ravel() for part in parts])[None])))
            continue
        index = np.concatenate(parts, axis=1)
        around = _around(sites, level, levels[:k])
        # What is drawn as one element and is in no plate, all elements after it have in common.
        common_too = {j for j in together if j < k and not _plates(sites.samples[levels[j][0]])}
        around |= {j: np.zeros(len(index), int) for j in sorted(common_too)}
        above = [Above(j, Index(np.zeros_like(e) if j in together else e)) for j, e in sorted(around.items())]
        made.append(Level(Index(index), tuple(above)))
    return Structure(Index(np.concatenate([np.zeros(0, int), *common])), tuple(made))


def _size(site: Site) -> int:
    return prod(site.full(site.unconstrained_shape or ()))


def _plates(site: Site) -> tuple[str, ...]:
    """The plates of more than one element that a site's batch shape has axes for, outer first."""
    full, ndim = site.full(site.batch_shape), len(site.batch_shape)
    there = [p for p in site.plates if -p.dim <= ndim and full[p.dim] == p.size and p.size > 1]
    return tuple(p.name for p in sorted(there, key=lambda p: p.dim))


def _axes(site: Site) -> list[int]:
    """The axes of the unconstrained value that plates run along, outer first."""
    dims = {p.name: p.dim for p in site.plates}
    return [len(site.batch_shape) + dims[name] for name in _plates(site)]


def _index(site: Site, start: int) -> np.ndarray:
    """`[elements, numbers of each]`: where each number stands in the block's vector."""
    shape, axes = site.full(site.unconstrained_shape or ()), _axes(site)
    numbers = start + np.arange(prod(shape)).reshape(shape)
    if not axes:
        return numbers.reshape(-1, 1)
    return np.moveaxis(numbers, axes, range(len(axes))).reshape(prod(shape[a] for a in axes), -1)


def _around(sites: Sites, level: Sequence[str], earlier: Sequence[Sequence[str]]) -> dict[int, np.ndarray]:
    """The levels whose plates are around those of this one, and which of their elements each element is in."""
    site = sites.samples[level[0]]
    plates = _plates(site)
    sizes = {p.name: p.size for p in site.plates}
    grid = np.indices([sizes[name] for name in plates])
    found = {}
    for k, other in enumerate(earlier):
        outer = _plates(sites.samples[other[0]])
        if outer and set(outer) < set(plates):
            axes = [grid[plates.index(name)].ravel() for name in outer]
            found[k] = np.ravel_multi_index(axes, [sizes[name] for name in outer])
    return found
