"""Inverse mass matrices out of draws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autovi.families.base import MAX_DENSE

Blocks = dict[tuple[str, ...], np.ndarray]


def shrunk_covariance(draws: np.ndarray, distinct: int | None = None) -> np.ndarray:
    r"""The covariance of draws with its correlations shrunk to zero by what noise they have.

    .. math:: r_{ij} \to (1 - \lambda) r_{ij}, \qquad
        \lambda = \frac{\sum_{i \ne j} \widehat{\mathrm{Var}}(r_{ij})}{\sum_{i \ne j} r_{ij}^2} \in [0, 1],

    which minimizes the expected squared error of the correlations: next to nothing with many draws, and a positive
    definite matrix where there are fewer draws than dimensions. Variances stay what they are. Schäfer and Strimmer
    (2005), "A shrinkage approach to large-scale covariance matrix estimation", section 2.4.

    Args:
        draws: shape `(num_draws, D)`.
        distinct: how many of them are different, where some repeat; they tell no more than these.

    Example:
        >>> shrunk_covariance(np.random.default_rng(0).normal(size=(20, 50))).shape
        (50, 50)
    """
    count, size = draws.shape
    distinct = count if distinct is None else distinct
    sd = draws.std(axis=0, ddof=1)
    scale = np.where(sd > 0, sd, 1.0)
    unit = (draws - draws.mean(axis=0)) / scale
    product = unit.T @ unit / count  # the mean of w_ij = x_i x_j
    variance = ((unit**2).T @ unit**2 / count - product**2) / max(distinct - 1, 1)
    off = ~np.eye(size, dtype=bool)
    total = np.sum(product[off] ** 2)
    shrinkage = float(np.clip(np.sum(variance[off]) / total, 0.0, 1.0)) if total > 0 else 1.0
    correlation = (1 - shrinkage) * product * (count / (count - 1))
    np.fill_diagonal(correlation, 1.0)
    return correlation * np.outer(scale, scale)


def dense_names(shapes: Mapping[str, tuple[int, ...]], most: int = MAX_DENSE) -> tuple[str, ...]:
    """The sites that share a dense block, sorted: as many as have `most` numbers together, the smallest first, since
    those are what large ones have in common."""
    sizes = {n: int(np.prod(shape, dtype=int)) for n, shape in shapes.items()}
    chosen: list[str] = []
    for name in sorted(sizes, key=lambda n: (sizes[n], n)):
        if sum(sizes[n] for n in chosen) + sizes[name] > most:
            break
        chosen.append(name)
    return tuple(sorted(chosen))


def inverse_mass_matrix(draws: Mapping[str, np.ndarray], most: int = MAX_DENSE) -> Blocks:
    """NumPyro's `inverse_mass_matrix`: a dense block of the sites of `dense_names`, and the variances of all others.

    Args:
        draws: site -> unconstrained values `(num_draws, *shape)`, all finite.
        most: numbers that may have a dense block.

    Returns:
        Names -> the matrix `(D, D)` or variances `(D,)` of their values, flattened and one after the other.
    """
    shapes = {n: v.shape[1:] for n, v in draws.items()}
    dense = dense_names(shapes, most)
    others = tuple(sorted(set(shapes) - set(dense)))
    blocks: Blocks = {}
    if dense:
        flat = flattened(draws, dense)
        blocks[dense] = shrunk_covariance(flat, len(np.unique(flat, axis=0)))
    if others:
        variances = flattened(draws, others).var(axis=0, ddof=1)
        blocks[others] = np.where(variances > 0, variances, 1.0)
    return blocks


def flattened(draws: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Draws of these sites as vectors `(num_draws, D)` in double precision, the sites one after the other."""
    return np.concatenate([np.asarray(draws[n], np.float64).reshape(len(draws[n]), -1) for n in names], axis=1)
