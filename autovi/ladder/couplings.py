"""Which elements of plates the log density ties to each other, read off the zeros of its Hessian."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from autovi.distributions.layouts import Level, Structure
from autovi.ladder.normal import LogDensity

NUM_HALVES = 8  # of each level, at random: two elements that meet stay in one half of all with a chance of 2^-8
MAX_TOGETHER = 300  # numbers that are drawn as one element
MAX_COMMON = 150  # numbers of a level that become common to all


def meetings(log_density: LogDensity, point: jax.Array, halves: jax.Array) -> jax.Array:
    """For each mask `[K, D]` of coordinates: which coordinates the gradient changes in `[K, D]` where those move.

    What does not meet in a term has a mixed derivative of exactly zero, also in floating point: no threshold is needed.
    """
    slope = lambda v: jax.jvp(jax.grad(log_density), (point,), (v,))[1]  # noqa: E731
    directions = jnp.where(halves, 1.0 + 0.5 * jnp.sin(jnp.arange(point.shape[0])), 0.0).astype(point.dtype)
    return jax.lax.map(slope, directions) != 0


def halves_of(structure: Structure, seed: int = 0) -> np.ndarray:
    """Masks `[levels * NUM_HALVES, D]`: random halves of the elements of each level."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(structure.levels), NUM_HALVES, structure.size), bool)
    for k, level in enumerate(structure.levels):
        for half in masks[k]:
            chosen = rng.permutation(level.shape[0]) < (level.shape[0] + 1) // 2
            half[level.index.array[chosen].ravel()] = True
    return masks.reshape(-1, structure.size)


def tied(structure: Structure, halves: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """`[levels, levels]`: does the density tie elements of the second level to other elements of the first than those
    above them? On the diagonal: elements of one level to each other."""
    count = len(structure.levels)
    halves, moved = (x.reshape(count, NUM_HALVES, structure.size) for x in (halves, moved))
    found = np.zeros((count, count), bool)
    for k, level in enumerate(structure.levels):
        for half, reached in zip(halves[k], moved[k], strict=True):
            inside = half[level.index.array[:, 0]]
            for j, other in enumerate(structure.levels):
                hit = reached[other.index.array].any(1)
                found[k, j] |= bool((hit & ~_expected(structure.levels, k, j, inside)).any())
    return found | found.T


def _expected(levels: Sequence[Level], k: int, j: int, inside: np.ndarray) -> np.ndarray:
    """The elements of level j that elements `inside` of level k may reach: themselves, those around and within."""
    if j == k:
        return inside
    for outer, inner in ((k, j), (j, k)):
        above = next((a.element.array for a in levels[inner].above if a.level == outer), None)
        if above is not None:
            reached = inside[above] if outer == k else np.isin(np.arange(levels[j].shape[0]), above[inside])
            return np.asarray(reached)
    return np.zeros(levels[j].shape[0], bool)


def levels_to_take(structure: Structure, meets: np.ndarray) -> tuple[list[int], list[int]]:
    """The levels whose elements are drawn one by one, and those that are drawn as one element; all others are common.

    A level whose elements are tied to each other, given what is common, is one element with a covariance of its own.
    Of two levels that are tied, neither inside the other, the smaller becomes common. Both as far as they are small
    enough: beyond, the tie is left out of q.
    """
    sizes = [level.index.array.size for level in structure.levels]
    kept = set(range(len(sizes)))
    for smaller in sorted(kept, key=lambda k: sizes[k]):
        others = [j for j in kept if j != smaller and meets[smaller, j] and sizes[j] >= sizes[smaller]]
        if others and sizes[smaller] <= MAX_COMMON:
            kept.discard(smaller)
    together = [k for k in kept if meets[k, k] and sizes[k] <= MAX_TOGETHER]
    return sorted(kept - set(together)), sorted(together)
