"""Where the draws of a univariate distribution lie, and whether the components of a mixture leave a gap between them.

The `support` of a transformed distribution is what its transforms may reach, where its draws lie in the image of its
base's; that of a mixture may be its first component's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import AbsTransform

from autovi import registry
from autovi.implicit.rule import is_plain_transformed

# The least and the largest value; twice the support itself where that is not known to be an interval.
Ends = tuple[Any, Any]


def lies_in(fn: Any, value: Array) -> Array:
    """Whether a draw may have that value."""
    fn = registry.strip(jax.lax.stop_gradient(fn))
    if not is_composed(fn):
        return fn.support(value)
    low, high = ends_of(fn)
    if isinstance(low, constraints.Constraint):
        return low(value)
    return (value >= low) & (value <= high)


def somewhere_in(fn: Any, like: Array) -> Array:
    """A value that a draw may have, an array like `like`."""
    fn = registry.strip(jax.lax.stop_gradient(fn))
    if not is_composed(fn):
        return biject_to(fn.support)(jnp.zeros_like(like))
    if isinstance(fn, dist.MixtureGeneral):
        return somewhere_in(fn.component_distributions[0], like)
    value = somewhere_in(fn.base_dist, like)
    for transform in fn.transforms:
        value = transform(value)
    return value


def ends_of(fn: Any) -> Ends:
    """The ends of the interval in which all draws lie; constants where all that makes them is constant."""
    fn = registry.strip(fn)
    if not is_composed(fn):
        return _bounds(fn.support)
    if isinstance(fn, dist.MixtureGeneral):
        return _hull(component_ends(fn))
    ends = ends_of(fn.base_dist)
    for transform in fn.transforms:
        ends = _image(transform, ends)
    return ends


def component_ends(mixture: Any) -> list[Ends]:
    """The ends of each component of a mixture of univariate distributions, or of independent ones."""
    if isinstance(mixture, dist.MixtureGeneral):
        return [ends_of(component) for component in mixture.component_distributions]
    ends = ends_of(mixture.component_distribution)
    axis = mixture.mixture_dim
    if any(isinstance(end, constraints.Constraint) for end in ends) or max(map(np.ndim, ends)) < -axis:
        return [ends]
    with _constants(ends):
        low, high = (jnp.moveaxis(end, axis, 0) for end in jnp.broadcast_arrays(*ends))
        return list(zip(low, high, strict=True))


def gap_between(ends: Sequence[Ends]) -> str | None:
    """Why intervals may not make one together; None where they do. Mass that jumps over a gap has no derivative.

    Ends that are traced are not known: then one that all have in common, a constant or none at all, settles it.
    """
    lower, upper = zip(*ends, strict=True)
    if _all_equal(lower) or _all_equal(upper):
        return None
    if not all(map(_is_known, lower + upper)):
        return "the supports of its components end where parameters say, so that there may be a gap between them"
    low, high = np.split(np.stack(np.broadcast_arrays(*lower, *upper)), 2)
    order = np.argsort(low, axis=0)
    low, high = np.take_along_axis(low, order, 0), np.take_along_axis(high, order, 0)
    reached = np.maximum.accumulate(high, axis=0)
    return "there is a gap between the supports of its components" if np.any(low[1:] > reached[:-1]) else None


def all_alike(ends: Sequence[Ends]) -> bool:
    """Are they known to be the same interval?"""
    return all(map(_all_equal, zip(*ends, strict=True)))


def is_composed(fn: Any) -> bool:
    """Does its own `support` not tell where its draws lie?"""
    return is_plain_transformed(fn) or type(fn) in (dist.FoldedDistribution, dist.MixtureGeneral)


def _bounds(support: Any) -> Ends:
    below, above = (hasattr(support, f"{end}_bound") for end in ("lower", "upper"))
    if not below and not above and support is not constraints.real:
        return support, support
    return (support.lower_bound if below else -np.inf), (support.upper_bound if above else np.inf)


def _image(transform: Any, ends: Ends) -> Ends:
    """The ends of what a transform makes of an interval: of its whole domain its codomain."""
    if isinstance(transform, AbsTransform):
        return _folded(*ends)
    if all_alike([ends, _bounds(transform.domain)]):
        return _bounds(transform.codomain)
    if isinstance(ends[0], constraints.Constraint):
        return transform.codomain, transform.codomain
    with _constants([*ends, *jax.tree.leaves(transform)]):
        images = [transform(jnp.asarray(end, float)) for end in ends]
        return jnp.minimum(*images), jnp.maximum(*images)


def _folded(low: Any, high: Any) -> Ends:
    with _constants([low, high]):
        return jnp.maximum(jnp.maximum(low, -high), 0.0), jnp.maximum(-low, high)


def _hull(ends: Sequence[Ends]) -> Ends:
    lower, upper = zip(*ends, strict=True)
    if any(isinstance(end, constraints.Constraint) for end in lower):
        return ends[0]
    with _constants([*lower, *upper]):
        return functools.reduce(jnp.minimum, lower), functools.reduce(jnp.maximum, upper)


def _constants(values: Iterable[Any]) -> Any:
    """Under `jit` too, what is made of constants is one."""
    traced = any(isinstance(value, jax.core.Tracer) for value in values)
    return nullcontext() if traced else jax.ensure_compile_time_eval()


def _is_known(end: Any) -> bool:
    if isinstance(end, (jax.core.Tracer, constraints.Constraint)):
        return False
    return not np.any(np.isnan(np.asarray(end)))


def _all_equal(ends: Sequence[Any]) -> bool:
    if all(end is ends[0] for end in ends) and isinstance(ends[0], (jax.core.Tracer, constraints.Constraint)):
        return True
    return all(map(_is_known, ends)) and all(np.all(np.equal(end, ends[0])) for end in ends)
