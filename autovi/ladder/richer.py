"""The richer family of a joint block, by what the model's structure is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from autovi.families import ConditionalAffine, Family, SinhArcsinh, Stretched, Structured
from autovi.families.base import MAX_DENSE
from autovi.ladder.couplings import halves_of, levels_to_take, tied
from autovi.plan.plan import Block
from autovi.program.hierarchy import plate_levels, structure_of
from autovi.program.program import Program

MAX_SLOPES = 4_000_000  # numbers that say how elements depend on what is common
MORE_DIRECTIONS = 16  # that a family finds, beside those of the map before it
MAX_IN_TURN = 100  # coordinates, each given those before it


class Richer(NamedTuple):
    """The family, why it is taken, and the order of the block's sites in which a triangular map means the same for it:
    what is common first, and of this what is positive, whose skew is not to be mixed into."""

    family: Family
    why: str
    sites: tuple[str, ...]


def richer_families(program: Program, block: Block, meetings: Callable[[np.ndarray], np.ndarray]) -> tuple[Richer, ...]:
    """The richer families of a joint block, each to be tried where those before it do not follow the posterior.

    Where sites are in plates, or are vectors whose scale or location is unknown, their elements are drawn given all
    else, as far as the density does not tie them to each other (`meetings`: masks of moving coordinates -> coordinates
    whose gradient changes).
    """
    sites = program.sites
    in_plates = plate_levels(sites, block.sites)
    inside = {n for level in in_plates for n in level}
    vectors = [n for n in block.sites if n in program.traced.noncentred and n not in inside]
    levels = (*in_plates, *((n,) for n in vectors if program.blocks.site_size(n) > 1))
    if not levels:
        return _unstructured(program, block)
    structure = structure_of(sites, block.sites, levels)
    halves = halves_of(structure)
    single, together = levels_to_take(structure, tied(structure, halves, meetings(halves)))
    taken = sorted([*single, *together])
    chosen = [levels[k] for k in taken]
    shared = _given_scales(program, block, chosen)
    first = 1 if shared else 0
    as_one = (*range(first), *(first + taken.index(k) for k in together))
    family = Structured((*([shared] * first), *chosen), as_one)
    layout = structure_of(sites, block.sites, family.levels or (), family.together)
    slopes = sum(level.index.array.size * layout.num_given(k) for k, level in enumerate(layout.levels))
    if not taken or slopes > MAX_SLOPES:
        return _unstructured(program, block)
    in_levels = [name for level in family.levels or () for name in level]
    why = f"by structure: {', '.join(repr(n) for k in taken for n in levels[k])} given the others"
    common = _positive_first(program, [n for n in block.sites if n not in in_levels])
    return (Richer(family, why, (*common, *in_levels)),)


def _given_scales(program: Program, block: Block, chosen: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The other common sites, where an unknown scale is common too: they are one element given it, as what is known of
    a location depends on the scale. Which supports they have says nothing: a scale may be uniform up to 10, and a
    location a probability."""
    inside = {name for level in chosen for name in level}
    common = [n for n in block.sites if n not in inside]
    if not set(common) & set(program.plan.scales):
        return ()
    return tuple(n for n in common if not _is_first(program, n))


def _positive_first(program: Program, names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda n: not _is_first(program, n))


def _is_first(program: Program, name: str) -> bool:
    return program.sites.samples[name].support == "positive" or name in program.plan.scales


def _unstructured(program: Program, block: Block) -> tuple[Richer, ...]:
    size = program.blocks.start_size(block)
    if size > MAX_DENSE:
        why = f"over {MAX_DENSE} dimensions: independent normals, stretched along a few directions"
        return (Richer(Stretched(MORE_DIRECTIONS), why, block.sites),)
    sites = tuple(_positive_first(program, block.sites))
    copula = Richer(SinhArcsinh(), "a Gaussian copula with skew and tails of each coordinate", sites)
    if size > MAX_IN_TURN:
        return (copula,)
    return copula, Richer(ConditionalAffine(), "shift and scale of each coordinate given the earlier ones", sites)
