"""Densities of NumPyro's composed distributions that are not those of their draws."""

from __future__ import annotations

from typing import Any

import jax
import numpyro.distributions as dist
from numpyro.distributions.transforms import AbsTransform

from autovi import registry
from autovi.implicit.composite.supports import all_alike, component_ends, ends_of, is_composed
from autovi.implicit.guard import parts_of


def density_fault(fn: Any) -> str | None:
    """Why NumPyro's density of `fn`, or of a distribution inside it, is not that of its draws; None where it may be.

    A mixture has its first component's support unless it is told its own. Distributions that do not check values have
    a density beyond their ends too, which a mixture counts where the end is a transform's, and a fold for both signs. A
    fold takes the transforms of its base for its own, and forgets them.
    """
    if type(fn) is dist.MixtureGeneral and not all_alike(component_ends(fn)):
        right = all(_checks(part) or not is_composed(registry.strip(part)) for part in fn.component_distributions)
        if fn._support is None or not right:
            return "MixtureGeneral: its log_prob ignores that its components end at different values; give it support="
    if type(fn) is dist.FoldedDistribution:
        if not all(isinstance(transform, AbsTransform) for transform in fn.transforms):
            return "FoldedDistribution: its log_prob ignores the transforms of its base; fold a base that has none"
        low, high = ends_of(fn.base_dist)
        if not _checks(fn.base_dist) and not all_alike([(low, high), (-high, -low)]):
            return "FoldedDistribution: its log_prob ignores that its base ends elsewhere on the left than on the right"
    faults = map(density_fault, parts_of(fn))
    return next((fault for fault in faults if fault), None)


def embedded_fault(fn: Any) -> str | None:
    """As `density_fault`, for a part whose density is differentiated: the copies that JAX makes do not check values."""
    return density_fault(jax.tree.map(lambda leaf: leaf, fn))


def _checks(fn: Any) -> bool:
    """Has it, and all inside it, a density of 0 beyond its ends?"""
    return bool(fn._validate_args) and all(map(_checks, parts_of(fn)))
