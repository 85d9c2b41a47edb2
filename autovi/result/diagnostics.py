"""Numbers that say how good a fit is: ELBO and its error, gradient noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

GRADIENT_REPEATS = 64  # estimates of one step's gradient, from which its noise is taken


class Elbo(NamedTuple):
    """An ELBO in nats with its Monte Carlo standard error."""

    value: float
    se: float


class SiteGradient(NamedTuple):
    """Noise of a gradient estimate: the trace of its covariance, and |mean| / sqrt(that)."""

    variance: float
    signal_to_noise: float


def elbo_of(log_weights: np.ndarray) -> Elbo:
    """Mean and standard error of log p(x, z) - log q(z) over draws from q, summed in double precision.

    One draw has no standard error, nor have draws of which some have no finite weight: it is NaN.
    """
    weights = np.asarray(log_weights, np.float64)
    if weights.size < 2 or not np.isfinite(weights).all():
        with np.errstate(invalid="ignore"):  # infinities of both signs
            return Elbo(float(weights.mean()), float("nan"))
    return Elbo(float(weights.mean()), float(weights.std(ddof=1) / np.sqrt(weights.size)))


def gradient_summary(sampled: Mapping[str, Any]) -> dict[str, SiteGradient]:
    """Per entry, from independent gradient estimates stacked on the first axis of every leaf.

    Estimates that are not finite, which the loop skips, are left out; an entry without two others is NaN. The squared
    mean is freed of the bias that noise gives it. A gradient without noise has the ratio infinity.
    """
    return {name: _noise(_rows(leaves)) for name, leaves in sampled.items() if jax.tree.leaves(leaves)}


def _rows(leaves: Any) -> np.ndarray:
    """One estimate per row, in double precision."""
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(leaves)]
    return np.concatenate([x.reshape(x.shape[0], -1) for x in arrays], axis=1)


def _noise(rows: np.ndarray) -> SiteGradient:
    rows = rows[np.isfinite(rows).all(axis=1)]
    count = rows.shape[0]
    if count < 2:
        return SiteGradient(float("nan"), float("nan"))
    variance = float(rows.var(axis=0, ddof=1).sum())
    squared = max(float((rows.mean(axis=0) ** 2).sum()) - variance / count, 0.0)
    return SiteGradient(variance, float(np.sqrt(squared / variance)) if variance > 0 else float("inf"))
