"""Log densities: the table's formula where a class has one, NumPyro's otherwise; wrappers are read through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.typing import ArrayLike

from autovi.distributions.formulas import same_rank
from autovi.distributions.table import TABLE, Density, Known


def log_density(fn: dist.Distribution, value: ArrayLike) -> Array:
    """`fn.log_prob(value)` for a finite value, known to be inside the support of `fn` unless that moves.

    `ExpandedDistribution`, `Independent` and `MaskedDistribution` are read through; a class without a `density` in
    the table falls back to `fn.log_prob(value)`. Values may be integers, booleans or floats. A value outside the
    support is not detected, as data are checked first, unless `fn` validates its arguments and its bounds are traced:
    there the density is minus infinity.

    Args:
        fn: the distribution, batch shape `B` and event shape `E`.
        value: shape `(..., *E)`, its batch part broadcasting with `B`. Masked elements may be anything.

    Returns:
        The log density, shape: the batch part of `value` broadcast with `B`.
    """
    return _by_table(lambda row: row.density, fn, value)


def relaxed_log_density(fn: dist.Distribution, value: ArrayLike) -> Array:
    """NumPyro's formula of `fn.log_prob(value)`, without its check, for any value between those of a discrete support.

    Linear in the value for a Bernoulli: `value * logits - log(1 + exp(logits))`. Arguments and shape as for
    `log_density`.
    """
    return _by_table(lambda row: row.relaxed_density, unvalidated(fn), value)


def weighted_log_density(fn: dist.Distribution, weights: Array) -> Array:
    """sum_k w_k log q(k) of a categorical, for weights `[*B, K]` of its values 0, 1, ...: that of a value where they
    are one-hot, and linear between."""
    values = jnp.arange(weights.shape[-1])
    each = jax.vmap(lambda k: log_density(fn, jnp.full(fn.shape(), k)), out_axes=-1)(values)
    # An impossible value counts where it has a weight only.
    return jnp.sum(weights * jnp.where(jnp.isfinite(each) | (weights != 0), each, 0), -1)


def _by_table(formula: Callable[[Known], Density | None], fn: dist.Distribution, value: ArrayLike) -> Array:
    name = type(fn).__name__
    # A subclass may have a log_prob of its own: rows are for NumPyro's classes themselves.
    if name in TABLE and getattr(dist, name) is type(fn):
        if name in _WRAPPERS:
            return _WRAPPERS[name](partial(_by_table, formula), fn, jnp.asarray(value))
        if (density := formula(TABLE[name])) is not None:
            return _checked(density, fn, jnp.asarray(value)) if _moves(fn) else density(fn, jnp.asarray(value))
    # As an array: NumPyro compares a plain number with NumPy, which a bound that is traced does not allow.
    return jnp.asarray(fn.log_prob(jnp.asarray(value)))


def read_through(density: Density, fn: dist.Distribution, value: ArrayLike) -> Array:
    """`density` of what is inside the wrappers of `fn`: expanded, summed over events and masked as they say."""
    name = type(fn).__name__
    if name in _WRAPPERS and getattr(dist, name) is type(fn):
        return _WRAPPERS[name](partial(read_through, density), fn, jnp.asarray(value))
    return density(fn, jnp.asarray(value))


def _moves(fn: dist.Distribution) -> bool:
    """Must values be checked against bounds that are not known before the program runs?"""
    return bool(fn._validate_args) and any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(fn.support))


def _checked(density: Density, fn: dist.Distribution, value: Array) -> Array:
    inside = fn.support(value)
    within = inside.reshape(inside.shape + (1,) * fn.event_dim)
    # Outside, the derivative might be NaN, also where the density is not taken.
    densities = density(fn, jnp.where(within, value, fn.support.feasible_like(value)))
    return jnp.where(inside, densities, -jnp.inf)


def unvalidated(fn: dist.Distribution) -> dist.Distribution:
    """`fn` without its check that values are in the support, for values that need none."""
    fn = copy.copy(fn)
    fn._validate_args = False
    if isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        fn.base_dist = unvalidated(fn.base_dist)
    return fn


def _expanded(density: Density, fn: dist.ExpandedDistribution, value: Array) -> Array:
    batch = value.shape[: max(value.ndim - fn.event_dim, 0)]
    return jnp.broadcast_to(density(fn.base_dist, value), lax.broadcast_shapes(fn.batch_shape, batch))


def _independent(density: Density, fn: dist.Independent, value: Array) -> Array:
    elements = density(fn.base_dist, value)
    return elements.sum(tuple(range(-fn.reinterpreted_batch_ndims, 0)))


def _masked(density: Density, fn: dist.MaskedDistribution, value: Array) -> Array:
    mask = fn._mask  # NumPyro has no public name for it
    if mask is False:
        return jnp.asarray(fn.log_prob(value))
    if mask is True:
        return density(fn.base_dist, value)
    try:
        feasible = fn.support.feasible_like(value)
    except NotImplementedError:  # a support that names no point of its own
        return jnp.asarray(fn.log_prob(value))
    # Masked values are often NaN or fillers outside the support: replace them, or the gradient is NaN.
    kept, value, feasible = same_rank(mask.reshape(mask.shape + (1,) * fn.event_dim), value, feasible)
    densities = density(fn.base_dist, jnp.where(kept, value, feasible))
    mask, densities = same_rank(mask, densities)
    return jnp.where(mask, densities, 0.0)


# (density of what is inside, distribution, value) -> log density.
_WRAPPERS: dict[str, Callable[[Density, Any, Array], Array]] = {
    "ExpandedDistribution": _expanded,
    "Independent": _independent,
    "MaskedDistribution": _masked,
}
