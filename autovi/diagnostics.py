"""Numbers that say how good a fit is: ELBO and its error, gradient noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Elbo(NamedTuple):
    """An ELBO in nats with its Monte Carlo standard error."""

    value: float
    se: float


class SiteGradient(NamedTuple):
    """Noise of a block's gradient estimate: the trace of its covariance, and |mean| / sqrt(that)."""

    variance: float
    signal_to_noise: float


def elbo_of(log_weights: np.ndarray) -> Elbo:
    """Mean and standard error of log p(x, z) - log q(z) over draws from q, summed in double precision."""
    weights = np.asarray(log_weights, np.float64)
    se = weights.std(ddof=1) / np.sqrt(weights.size) if weights.size > 1 else np.nan
    return Elbo(float(weights.mean()), float(se))


def gradient_summary(sampled: Mapping[str, Any]) -> dict[str, SiteGradient]:
    """Per block, from independent gradient estimates stacked on the first axis of every leaf."""
    out = {}
    for name, leaves in sampled.items():
        flat = np.concatenate(
            [np.asarray(x, np.float64).reshape(x.shape[0], -1) for x in jax.tree.leaves(leaves)], axis=1
        )
        variance = float(flat.var(axis=0, ddof=1).sum())
        squared = max(float((flat.mean(axis=0) ** 2).sum()) - variance / flat.shape[0], 0.0)
        ratio = np.sqrt(squared / variance) if variance > 0 else np.inf
        out[name] = SiteGradient(variance, float(ratio))
    return out
