"""Mixtures: the distributional transform, which differentiates the choice of the component too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions import registry
from autovi.implicit.attach import attach
from autovi.implicit.composite.supports import moved_inside, part_fault, unequal_supports
from autovi.implicit.composite.tails import log_weights_of, tails
from autovi.implicit.dispatch import draw, velocity

_FEW = 16


class _Parts(NamedTuple):
    """What the components say of each coordinate of a value, arrays of one shape."""

    log_prob: Array
    velocity: Array
    below: Array
    above: Array
    log_prob_moving: Array  # at a value that stands still; needed only by later coordinates
    slope: Array  # the derivative of log_prob in the coordinate; likewise


def draw_mixture(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of a `MixtureSameFamily` or `MixtureGeneral` of continuous components, shape `shape + fn.event_shape`.

    One draw of every component, of which one is kept; the gradient is that of `mixture_velocity`.
    """
    fixed = jax.lax.stop_gradient(fn)
    index_key, component_key = jax.random.split(rng_key)
    cumulative = jnp.cumsum(jnp.exp(log_weights_of(fixed.mixing_distribution)), axis=-1)
    uniform = jax.random.uniform(index_key, shape, cumulative.dtype)
    value, *others = _component_draws(component_key, fixed, shape)
    for k, other in enumerate(others):
        beyond = uniform >= cumulative[..., k]
        value = jnp.where(jnp.reshape(beyond, shape + (1,) * fn.event_dim), other, value)
    return attach(value, fn, mixture_velocity)


def mixture_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """`dz = sum_k r_k dz_k - sum_k dw_k F_k / p` for a mixture, r_k = w_k p_k / p and dz_k the components' velocities.

    Several coordinates, independent in each component, come one after the other: coordinate i is a univariate mixture
    with the weights w_k prod_{j<i} p_k(z_j) over their sum, which move with the coordinates before it. Graves (2016),
    "Stochastic Backpropagation through Mixture Density Distributions"; Figurnov, Mohamed and Mnih (2018), section 4.

    Between components far apart p is tiny, and this gradient of the weights is astronomically large: so it is.
    """
    lead = jnp.shape(value)[: jnp.ndim(value) - fn.event_dim]
    full = (*lead, fn.mixture_size)
    parts = [jnp.moveaxis(jnp.reshape(part, (*full, -1)), (-1, -2), (0, 1)) for part in _parts(fn, value, moving)]
    log_weights, weights_moving = (jnp.moveaxis(jnp.broadcast_to(part, full), -1, 0) for part in _weights(fn, moving))
    weights = (log_weights, weights_moving)
    if parts[0].shape[0] == 1:
        moved = _coordinate(weights, _Parts(*(part[0] for part in parts)))[1]
    else:
        moved = jnp.moveaxis(jax.lax.scan(_coordinate, weights, _Parts(*parts))[1], 0, -1)
    return jnp.reshape(moved, jnp.shape(value))


def _coordinate(weights: tuple[Array, Array], parts: _Parts) -> tuple[tuple[Array, Array], Array]:
    """dz of one coordinate, `[...]`, from its parts `[K, ...]` and its log weights and their moves, `[K, ...]`.

    Also the log weights of the next coordinate, up to a constant, and their moves.
    """
    log_weights, weights_moving = weights
    log_weights = log_weights - _log_sum(log_weights)
    next_weights = log_weights + parts.log_prob
    log_total = _log_sum(next_weights)
    prior = jnp.exp(log_weights)
    # sum_k dw_k = 0, so that -F_k may be 1 - F_k: the side with less mass, where no digits are lost.
    lower = _sum(prior * (parts.below - parts.above)) < 0
    # Finite whatever the density between the components.
    largest = 0.9 * jnp.log(jnp.finfo(log_total.dtype).max)
    pull = jnp.where(lower, -parts.below, parts.above) * jnp.exp(jnp.minimum(log_weights - log_total, largest))
    share = jnp.exp(next_weights - log_total)
    moved = _sum(share * parts.velocity + pull * (weights_moving - _sum(prior * weights_moving)))
    return (next_weights, weights_moving + parts.log_prob_moving + parts.slope * moved), moved


def _log_sum(x: Array) -> Array:
    """log sum exp over the components, the first axis; x may be -inf, not everywhere."""
    largest = _fold(jnp.maximum, jax.lax.stop_gradient(x))
    return largest + jnp.log(_sum(jnp.exp(x - largest)))


def _sum(x: Array) -> Array:
    return _fold(jnp.add, x)


def _fold(combine: Callable[[Array, Array], Array], x: Array) -> Array:
    """Over the components: written out where they are few, which XLA fuses with what made them.

    A loop where they are many: XLA would fuse a reduction with what uses it, and do it again for each component.
    """
    if x.shape[0] <= _FEW:
        return functools.reduce(combine, x)
    return jax.lax.scan(lambda total, row: (combine(total, row), None), x[0], x[1:])[0]


def _weights(fn: Any, moving: Any) -> tuple[Array, Array]:
    """The log weights and their moves."""
    leaves, treedef = jax.tree.flatten(fn.mixing_distribution)
    tangents = jax.tree.leaves(moving.mixing_distribution)
    return jax.jvp(lambda leaves: log_weights_of(jax.tree.unflatten(treedef, leaves)), (leaves,), (tangents,))


def _parts(fn: Any, value: Array, moving: Any) -> _Parts:
    """The parts, of shape `[..., K, *event]`."""
    several = jnp.size(jnp.zeros(fn.event_shape)) > 1
    if isinstance(fn, dist.MixtureSameFamily):
        lead = jnp.shape(value)[: jnp.ndim(value) - fn.event_dim]
        full = (*lead, fn.mixture_size, *fn.event_shape)
        each = jnp.broadcast_to(jnp.expand_dims(value, fn.mixture_dim), full)
        return _component_parts(fn.component_distribution, each, moving.component_distribution, several)
    components = zip(fn.component_distributions, moving.component_distributions, strict=True)
    found = [_component_parts(component, value, speed, several) for component, speed in components]
    return _Parts(*(jnp.stack(part, axis=fn.mixture_dim) for part in zip(*found, strict=True)))


def _component_parts(component: Any, value: Array, moving: Any, several: bool) -> _Parts:
    component, moving = registry.strip(component), registry.strip(moving)
    inside = moved_inside(component, value)
    log_prob, log_prob_moving, slope = component.log_prob(inside), jnp.zeros_like(value), jnp.zeros_like(value)
    if several:
        leaves, treedef = jax.tree.flatten(component)
        density = lambda leaves, value: jax.tree.unflatten(treedef, leaves).log_prob(value)  # noqa: E731
        _, log_prob_moving = jax.jvp(lambda x: density(x, inside), (leaves,), (jax.tree.leaves(moving),))
        _, slope = jax.jvp(lambda x: density(leaves, x), (inside,), (jnp.ones_like(value),))
    moved = jnp.broadcast_to(velocity(component, inside, moving), jnp.shape(value))
    return _Parts(log_prob, moved, *tails(component, inside), log_prob_moving, slope)


def _component_draws(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> list[Array]:
    """A draw of each component, of shape `shape + fn.event_shape`."""
    if isinstance(fn, dist.MixtureSameFamily):
        draws = draw(rng_key, fn.component_distribution, (*shape, fn.mixture_size))
        return [jax.lax.index_in_dim(draws, k, fn.mixture_dim, keepdims=False) for k in range(fn.mixture_size)]
    keys = jax.random.split(rng_key, fn.mixture_size)
    return [draw(key, component, shape) for key, component in zip(keys, fn.component_distributions, strict=True)]


def validate_mixture(fn: Any) -> Any:
    """Components that can be differentiated: continuous, with independent coordinates, of one support.

    Other supports are refused: a derivative does not see the mass that jumps over a gap between two components, nor a
    second derivative the jumps of a density where one of them ends.
    """
    same = isinstance(fn, dist.MixtureSameFamily)
    name, instead = type(fn).__name__, "enumerate the component, or use the score function"
    for component in [fn.component_distribution] if same else fn.component_distributions:
        inside = registry.strip(component)
        if fault := part_fault(inside):
            raise TypeError(f"{name} of {type(inside).__name__}: {fault}; {instead}")
        if inside.event_shape:
            raise TypeError(
                f"{name} of {type(inside).__name__}: an implicit gradient needs components whose coordinates are "
                f"independent, a univariate distribution or Independent of one; {instead}"
            )
    if fault := unequal_supports(fn):
        raise TypeError(f"{fault}; {instead}")
    return fn
