"""Where the draws of a univariate distribution lie.

The `support` of a transformed distribution is what its transforms may reach, where its draws lie in the image of its
base's; that of a mixture is its first component's, unless it was told another.
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
from numpyro.distributions.transforms import AbsTransform, ComposeTransform

from autovi.distributions import registry
from autovi.implicit.numerics.extremes import smallest
from autovi.implicit.rule import acts_as, is_plain_transformed

MIXTURES = (dist.MixtureGeneral, dist.MixtureSameFamily)
JUMPS = "the density jumps where a part of it ends, which a second derivative of a draw does not see"
# The least and the largest value; None where the values are not known to fill an interval.
Ends = tuple[Any, Any] | None


def lies_in(fn: Any, value: Array) -> Array:
    """Whether a draw may have that value, the ends of the support included."""
    fn = registry.strip(jax.lax.stop_gradient(fn))
    ends = ends_of(fn)
    return fn.support(value) if ends is None else (value >= ends[0]) & (value <= ends[1])


def moved_inside(fn: Any, value: Array) -> Array:
    """`value`, or another where `fn` has no density: inside an end that it is on, anywhere where it is beyond."""
    ends = ends_of(registry.strip(jax.lax.stop_gradient(fn)))
    value = jnp.where(lies_in(fn, value), value, somewhere_in(fn, value))
    if ends is None:
        return value
    low, high = (jnp.asarray(end, value.dtype) for end in ends)
    return jnp.clip(value, low + _step(low), high - _step(high))


def somewhere_in(fn: Any, like: Array) -> Array:
    """A value that a draw may have, an array like `like`."""
    fn = registry.strip(jax.lax.stop_gradient(fn))
    if acts_as(fn, dist.MixtureGeneral):
        return somewhere_in(fn.component_distributions[0], like)
    if acts_as(fn, dist.MixtureSameFamily):
        each = jnp.broadcast_to(like[..., None], (*jnp.shape(like), fn.mixture_size))
        return somewhere_in(fn.component_distribution, each)[..., 0]
    if not is_composed(fn):
        return biject_to(fn.support)(jnp.zeros_like(like))
    value = somewhere_in(fn.base_dist, like)
    for transform in fn.transforms:
        value = transform(value)
    return value


def ends_of(fn: Any) -> Ends:
    """The ends of the interval in which all draws lie; constants where all that makes them is constant."""
    fn = registry.strip(fn)
    if not is_composed(fn):
        return _bounds(fn.support)
    if any(acts_as(fn, cls) for cls in MIXTURES):
        return _hull(component_ends(fn))
    ends = ends_of(fn.base_dist)
    for transform in fn.transforms:
        ends = _image(transform, ends)
    return ends


def component_ends(mixture: Any) -> list[Ends]:
    """The ends of each component of a mixture of univariate distributions, or of independent ones."""
    if isinstance(mixture, dist.MixtureGeneral):
        return [ends_of(component) for component in mixture.component_distributions]
    ends, axis = ends_of(mixture.component_distribution), mixture.mixture_dim
    if ends is None or max(map(np.ndim, ends)) < -axis:
        return [ends]
    with _constants(ends):
        low, high = (jnp.moveaxis(end, axis, 0) for end in jnp.broadcast_arrays(*ends))
        return list(zip(low, high, strict=True))


def is_composed(fn: Any) -> bool:
    """Does its own `support` not tell where its draws lie?"""
    return is_plain_transformed(fn) or any(acts_as(fn, cls) for cls in (dist.FoldedDistribution, *MIXTURES))


def is_known(end: Any) -> bool:
    """Is it a constant?"""
    return not isinstance(end, jax.core.Tracer)


def all_equal(numbers: Sequence[Any]) -> bool:
    """Are they known to be the same?"""
    if all(number is numbers[0] for number in numbers):
        return True
    return all(map(is_known, numbers)) and all(np.all(np.equal(number, numbers[0])) for number in numbers)


def all_alike(ends: Sequence[Ends]) -> bool:
    """Are they known to be one interval? That a single one stands for all of a family says so."""
    if len(ends) == 1:
        return True
    known = [pair for pair in ends if pair is not None]
    return len(known) == len(ends) and all(map(all_equal, zip(*known, strict=True)))


def _step(end: Array) -> Array:
    """To a neighbour of `end` that is another number."""
    return smallest(end.dtype) + jnp.finfo(end.dtype).eps * jnp.where(jnp.isinf(end), 0.0, jnp.abs(end))


def _bounds(support: Any) -> Ends:
    below, above = (hasattr(support, f"{end}_bound") for end in ("lower", "upper"))
    if not below and not above and support is not constraints.real:
        return None
    return (support.lower_bound if below else -np.inf), (support.upper_bound if above else np.inf)


def _image(transform: Any, ends: Ends) -> Ends:
    """The ends of what a transform makes of an interval: of its whole domain its codomain."""
    if isinstance(transform, ComposeTransform):
        return functools.reduce(lambda ends, part: _image(part, ends), transform.parts, ends)
    if ends is None:
        return None
    if isinstance(transform, AbsTransform):
        return _folded(*ends)
    if all_alike([ends, _bounds(transform.domain)]):
        return _bounds(transform.codomain)
    with _constants([*ends, *jax.tree.leaves(transform)]):
        images = [transform(jnp.asarray(end, float)) for end in ends]
        return jnp.minimum(*images), jnp.maximum(*images)


def _folded(low: Any, high: Any) -> Ends:
    with _constants([low, high]):
        return jnp.maximum(jnp.maximum(low, -high), 0.0), jnp.maximum(-low, high)


def _hull(ends: Sequence[Ends]) -> Ends:
    known = [pair for pair in ends if pair is not None]
    if len(known) < len(ends) or len(known) == 1:
        return None if len(known) < len(ends) else known[0]
    lower, upper = zip(*known, strict=True)
    with _constants([*lower, *upper]):
        return functools.reduce(jnp.minimum, lower), functools.reduce(jnp.maximum, upper)


def _constants(values: Iterable[Any]) -> Any:
    """Under `jit` too, what is made of constants is one."""
    return jax.ensure_compile_time_eval() if all(map(is_known, values)) else nullcontext()
