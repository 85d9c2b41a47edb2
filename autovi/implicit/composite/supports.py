"""Which distributions may be parts of another one: those of one and the same support, whose densities are true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import AbsTransform, ComposeTransform

from autovi.distributions import registry
from autovi.implicit.numerics.sampling import smallest
from autovi.implicit.rule import acts_as, is_plain_transformed
from autovi.implicit.validation import parts_of

_MIXTURES = (dist.MixtureGeneral, dist.MixtureSameFamily)
# The least and the largest value; None where they are not known.
Ends = tuple[Any, Any] | None


def ends_of(fn: Any) -> Ends:
    """The ends of the interval that the draws of a univariate distribution fill; None where nothing says so.

    The `support` of a transformed distribution is the codomain of its last transform, which the draws fill only if the
    base fills the domain of the first, and so on. A mixture's is its first component's, or what it was told.
    """
    fn = registry.strip(fn)
    if any(acts_as(fn, cls) for cls in _MIXTURES):
        components = component_ends(fn)
        return components[0] if all_alike(components) else None
    transformed = is_plain_transformed(fn) and type(fn).support is dist.TransformedDistribution.support
    if not transformed and not acts_as(fn, dist.FoldedDistribution):
        return _bounds(fn.support)
    ends = ends_of(fn.base_dist)
    for transform in fn.transforms:
        for part in transform.parts if isinstance(transform, ComposeTransform) else [transform]:
            ends = _image(part, ends)
    return ends


def component_ends(mixture: Any) -> list[Ends]:
    """The ends of each component of a mixture of univariate distributions, or of independent ones."""
    if isinstance(mixture, dist.MixtureGeneral):
        return [ends_of(component) for component in mixture.component_distributions]
    ends, axis = ends_of(mixture.component_distribution), mixture.mixture_dim
    if ends is None or max(map(np.ndim, ends)) < -axis:
        return [None, None] if ends is None else [ends]
    if not all(map(_is_known, ends)):
        return [ends, None]
    low, high = (np.moveaxis(end, axis, 0) for end in np.broadcast_arrays(*ends))
    return list(zip(low, high, strict=True))


def all_alike(ends: Sequence[Ends]) -> bool:
    """Are they known to be one interval? That a single one stands for all of a family says so."""
    if len(ends) == 1:
        return True
    known = [pair for pair in ends if pair is not None]
    return len(known) == len(ends) and all(map(_all_equal, zip(*known, strict=True)))


def somewhere_in(fn: Any, like: Array) -> Array:
    """A value that a draw may have, an array like `like`."""
    fn = registry.strip(jax.lax.stop_gradient(fn))
    if not is_plain_transformed(fn):
        return biject_to(fn.support)(jnp.zeros_like(like))
    value = somewhere_in(fn.base_dist, like)
    for transform in fn.transforms:
        value = transform(value)
    return value


def moved_inside(fn: Any, value: Array) -> Array:
    """`value`, or where it is an end of the support, as samplers do give, a neighbour inside."""
    ends = ends_of(jax.lax.stop_gradient(fn))
    if ends is None:
        return value
    low, high = (jnp.asarray(end, value.dtype) for end in ends)
    return jnp.clip(value, low + _step(low), high - _step(high))


def part_fault(part: Any) -> str | None:
    """Why a mixture, a fold or a copula whose draws are differentiated cannot be made of `part`; None where it can."""
    part = registry.strip(part)
    row = registry.lookup(part)
    if row.discrete:
        return "its values are discrete"
    if row.not_pathwise or isinstance(part, dist.Delta):
        return "a value of its own has a probability"
    if row.observation_only:
        return "its log_prob is not the density of its draws"
    return composition_fault(part)


def composition_fault(fn: Any) -> str | None:
    """Why `fn`, or a distribution inside it, is a composition whose density is not taken for that of its draws.

    NumPyro's mixtures have their first component's support unless they are told one, and then count a transformed
    component beyond its ends; its folds forget the transforms of their base, and count a base that checks no values
    beyond its ends. None of this happens where all parts have one support, which is why nothing else is accepted, save
    a mixture of untransformed components that is told its support, whose density is right.
    """
    if any(acts_as(fn, cls) for cls in _MIXTURES):
        fault = _mixture_fault(fn)
    elif acts_as(fn, dist.FoldedDistribution):
        fault = fold_fault(fn)
    elif is_plain_transformed(fn) and any(isinstance(transform, AbsTransform) for transform in fn.transforms):
        fault = "TransformedDistribution: it has no log_prob, as AbsTransform has no inverse; use FoldedDistribution"
    else:
        fault = None
    return fault or next((fault for part in parts_of(fn) if (fault := composition_fault(part))), None)


def fold_fault(fold: dist.FoldedDistribution) -> str | None:
    """A fold has parts too: its base on either side of 0."""
    if not all(isinstance(transform, AbsTransform) for transform in fold.transforms):
        return "FoldedDistribution: its log_prob ignores the transforms of its base; fold a base that has none"
    ends = ends_of(fold.base_dist)
    if ends is None or not all_alike([ends, (-ends[1], -ends[0])]):
        return "FoldedDistribution: its base does not have one support on the left and on the right of 0"
    return None


def unequal_supports(mixture: Any) -> str | None:
    """The refusal of a mixture of univariate or independent components that are not known to have one support."""
    if all_alike(component_ends(mixture)):
        return None
    return f"{type(mixture).__name__}: its components do not all have the same support, or none that is known to be it"


def _mixture_fault(fn: Any) -> str | None:
    general = isinstance(fn, dist.MixtureGeneral)
    parts = [registry.strip(p) for p in (fn.component_distributions if general else [fn.component_distribution])]
    if any(part.event_shape for part in parts):
        return None
    composed = any(is_plain_transformed(p) or any(acts_as(p, c) for c in _MIXTURES) for p in parts)
    told = general and fn._support is not None and not composed
    fault = None if told else unequal_supports(fn)
    return fault and f"{fault}; its log_prob is then not the density of its draws"


def _bounds(support: Any) -> Ends:
    below, above = (hasattr(support, f"{end}_bound") for end in ("lower", "upper"))
    if not below and not above and support is not constraints.real:
        return None
    return (support.lower_bound if below else -np.inf), (support.upper_bound if above else np.inf)


def _image(transform: Any, ends: Ends) -> Ends:
    """The ends of what a transform makes of an interval: of its whole domain its codomain."""
    if ends is None:
        return None
    if isinstance(transform, AbsTransform):
        return (0.0, ends[1]) if all_alike([ends, (-ends[1], -ends[0])]) else None
    return _bounds(transform.codomain) if all_alike([ends, _bounds(transform.domain)]) else None


def _all_equal(numbers: Sequence[Any]) -> bool:
    """Are they known to be the same?"""
    if all(number is numbers[0] for number in numbers):
        return True
    return all(map(_is_known, numbers)) and all(np.all(np.equal(number, numbers[0])) for number in numbers)


def _is_known(end: Any) -> bool:
    """Is it a constant?"""
    return not isinstance(end, jax.core.Tracer)


def _step(end: Array) -> Array:
    """To a neighbour of `end` that is another number."""
    return smallest(end.dtype) + jnp.finfo(end.dtype).eps * jnp.where(jnp.isinf(end), 0.0, jnp.abs(end))
