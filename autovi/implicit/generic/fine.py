"""A fine rule of integration over a whole univariate distribution, on panels between sorted draws from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.implicit.generic.line import log_density, log_density_along
from autovi.implicit.generic.twin import over_directions
from autovi.implicit.numerics.quadrature import gauss_legendre

_WITHIN = (0.0, 1 / 64, 1 / 8, 1 / 2, 7 / 8, 63 / 64)  # panels between two draws: fine where a gap begins and ends
_TAIL = np.concatenate([[0.0], 2.0 ** np.arange(-8, 66)])  # panels beyond the outermost draws, in units of their spread
_NODES = 4


@dataclass(frozen=True)
class Integrals:
    """Running integrals up to each of some points, on the real line that the support is mapped to; NumPy, float64.

    Attributes:
        below: F at the points.
        total: the whole mass, for each batch element.
        along: dF at the points, the running integral of the score times the density; parameters come first.
        size: the whole integral of the score's absolute value times the density; parameters come first.
    """

    below: np.ndarray
    total: np.ndarray
    along: np.ndarray
    size: np.ndarray


def integrate_between(fn: Any, moves: dict[str, Any], points: Array) -> Integrals:
    """The integrals up to each of `points`, sorted along the first axis and of the batch shape of `fn` otherwise.

    As exact as the draws are dense where the density is not smooth, whatever its shape: nothing is assumed of modes.
    """
    edges = _edges(np.asarray(points, np.float64))
    start, width = edges[:-1], np.diff(edges, axis=0)
    evaluate = jax.jit(lambda u: _evaluate(fn, moves, u))
    mass, along = np.zeros(width.shape), np.zeros((len(moves), *width.shape))
    size = np.zeros((len(moves), *width.shape[1:]))
    for node, weight in gauss_legendre(_NODES):
        density, scores = evaluate(jnp.asarray(start + node * width, points.dtype))
        part = weight * width * np.asarray(density, np.float64)
        mass += part
        along += part * np.asarray(scores, np.float64)
        size += np.abs(part * np.asarray(scores, np.float64)).sum(axis=1)
    ends = len(_TAIL) - 2 + len(_WITHIN) * np.arange(len(points))  # the last panel before each point
    return Integrals(np.cumsum(mass, axis=0)[ends], mass.sum(axis=0), np.cumsum(along, axis=1)[:, ends], size)


def _evaluate(fn: Any, moves: dict[str, Any], u: Array) -> tuple[Array, Array]:
    """The density, and the scores along `moves`, all 0 where the density is 0 or not a number."""
    log_q = log_density(fn, u)
    density = jnp.where(jnp.isfinite(log_q), jnp.exp(log_q), 0.0)
    if not moves:
        return density, jnp.zeros((0, *u.shape), u.dtype)
    scores = over_directions(lambda moving: log_density_along(fn, u, moving)[1], moves)
    return density, jnp.where(density > 0, scores, 0.0)


def _edges(points: np.ndarray) -> np.ndarray:
    """The panels' edges: far to the left, between each two points, far to the right."""
    spread = np.maximum((points[-1] - points[0]) / 4, np.finfo(np.float32).tiny)
    gaps = np.diff(points, axis=0)
    inside = np.stack([points[:-1] + part * gaps for part in _WITHIN], axis=1).reshape(-1, *points.shape[1:])
    left = np.stack([points[0] - far * spread for far in _TAIL[:0:-1]])
    right = np.stack([points[-1] + far * spread for far in _TAIL])
    return np.concatenate([left, inside, right])
