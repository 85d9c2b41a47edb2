"""Densities of NumPyro's that are not those of the draws, and parts that no composed distribution can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpyro.distributions as dist
from numpyro.distributions.transforms import AbsTransform

from autovi.distributions import registry
from autovi.implicit.composite.supports import MIXTURES, Ends, all_alike, component_ends, ends_of, is_composed, is_known
from autovi.implicit.guard import parts_of
from autovi.implicit.rule import acts_as, is_plain_transformed


def part_fault(part: Any, zeros: bool = False) -> str | None:
    """Why a mixture, a fold or a copula whose draws are differentiated cannot be made of `part`; None where it can.

    Derivatives are taken of copies that JAX makes, which do not check values. With `zeros`, those of a hurdle may be.
    """
    part = registry.strip(part)
    row = registry.lookup(part)
    if row.discrete:
        return "its values are discrete"
    if (row.not_pathwise and not zeros) or isinstance(part, dist.Delta):
        return "a value of its own has a probability"
    if row.observation_only:
        return "its log_prob is not the density of its draws"
    return density_fault(part, checked=False)


def density_fault(fn: Any, checked: bool = True, latent: bool = False) -> str | None:
    """Why NumPyro's density of `fn`, or of a distribution inside it, is not that of its draws; None where it may be.

    A mixture has its first component's support unless it is told its own: it has no density beyond, and no latent value
    comes there. Distributions that do not check values (`validate_args`) have a density beyond their own ends too,
    which a mixture counts where the end is a transform's, and a fold for both signs. A fold takes the transforms of its
    base for its own, and forgets them. Ends that parameters move may be the same; where they are not, a mixture that
    checks its values says so by a density of zero, if its value is given and not drawn.

    Args:
        fn: the distribution.
        checked: whether its checks of values, if it has them, will run.
        latent: whether its values are drawn.
    """
    if any(acts_as(fn, cls) for cls in MIXTURES):
        fault = _mixture_fault(fn, checked, latent)
    elif acts_as(fn, dist.FoldedDistribution):
        fault = transforms_fault(fn) or _fold_fault(fn, checked)
    elif is_plain_transformed(fn) and any(isinstance(transform, AbsTransform) for transform in fn.transforms):
        fault = "TransformedDistribution: it has no log_prob, as AbsTransform has no inverse; use FoldedDistribution"
    else:
        fault = None
    return fault or next((fault for part in parts_of(fn) if (fault := density_fault(part, checked, latent))), None)


def transforms_fault(fold: dist.FoldedDistribution) -> str | None:
    """Whether the base of a fold was a transformed distribution."""
    if all(isinstance(transform, AbsTransform) for transform in fold.transforms):
        return None
    return "FoldedDistribution: its log_prob ignores the transforms of its base; fold a base that has none"


def _mixture_fault(fn: Any, checked: bool, latent: bool) -> str | None:
    general, name = isinstance(fn, dist.MixtureGeneral), type(fn).__name__
    parts = fn.component_distributions if general else [fn.component_distribution]
    checks = checked and all(map(_checks, parts))
    told = not general or fn._support is not None
    if any(registry.strip(part).event_shape for part in parts):
        return None
    if _alike(component_ends(fn), sure=checks and (told or not latent)):
        return None
    if not told:
        return f"{name}: its log_prob ignores that its components end at different values; give it support="
    if checks or not any(is_composed(registry.strip(part)) for part in parts):
        return None
    return f"{name}: its log_prob ignores where its transformed components end, unless they check it (validate_args)"


def _fold_fault(fold: dist.FoldedDistribution, checked: bool) -> str | None:
    ends = ends_of(fold.base_dist)
    if ends is None or (checked and _checks(fold.base_dist)) or all_alike([ends, (-ends[1], -ends[0])]):
        return None
    return "FoldedDistribution: its log_prob ignores that its base ends elsewhere on the left than on the right"


def _alike(ends: Sequence[Ends], sure: bool) -> bool:
    """Are they the same interval, or, if `sure` is asked for, not known to differ?"""
    known = all(pair is not None and all(map(is_known, pair)) for pair in ends)
    return all_alike(ends) or (sure and not known)


def _checks(fn: Any) -> bool:
    """Has it, and all inside it, a density of 0 beyond its ends?"""
    return bool(fn._validate_args) and all(map(_checks, parts_of(fn)))
