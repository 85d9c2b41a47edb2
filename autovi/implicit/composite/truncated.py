"""Truncated distributions: draws and velocities, exact also far in a tail and in narrow intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.attach import attach
from autovi.implicit.dispatch import velocity
from autovi.implicit.log_concave.base import FAR, LogConcave, descend
from autovi.implicit.log_concave.families import log_concave_of
from autovi.implicit.numerics.sampling import clip_straight_through
from autovi.implicit.validation import float_type


def truncated_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """V(z) - (1 - u) p(low) / p(z) (V(low) - dlow) - u p(high) / p(z) (V(high) - dhigh).

    p, F and V are the density, the distribution function and the velocity of the base, u = (F(z) - F(low)) / (F(high) -
    F(low)): the derivative of z at fixed u. Bounds at infinity do not count.
    """
    density, low, high = _ends(fn)
    value = clip_straight_through(value, low.bound, high.bound)
    origin, s = _origin(low, high), density.position(value)
    kept = [_mass(density, origin, end.side, end.at) for end in (low, high)]
    total = velocity(fn.base_dist, value, moving.base_dist)
    at_ends = velocity(fn.base_dist, jnp.stack([low.inside, high.inside]), moving.base_dist)
    for k, (end, other, name) in enumerate(((low, high, "low"), (high, low, "high"))):
        if hasattr(fn, name):
            moved = jnp.where(end.open, 0.0, at_ends[k]) - getattr(moving, name)
            share = _mass_past(density, origin, s, other, kept[1 - k]) / (kept[0] + kept[1])
            total = total - share * _density_ratio(density, origin, s, end) * moved
    return total


def draw_truncated(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of a truncated distribution, which may broadcast to `shape`, with their gradient.

    By inversion on the side of the mode, or of the bound next to it, that a first draw has chosen. NumPyro's samplers
    invert the distribution function itself, which leaves the support where the mass that is kept underflows.
    """
    density, low, high = _ends(jax.lax.stop_gradient(fn))
    side_key, depth_key = jax.random.split(rng_key)
    origin = _origin(low, high)
    kept = [_mass(density, origin, end.side, end.at) for end in (low, high)]
    whole = [_mass(density, origin, end.side, end.side * FAR) for end in (low, high)]
    right = jax.random.uniform(side_key, shape, origin.dtype) >= kept[0] / (kept[0] + kept[1])
    share = jnp.where(right, kept[1] / whole[1], kept[0] / whole[0])
    depth = jax.random.uniform(depth_key, shape, origin.dtype) * jnp.minimum(share, 1.0)
    direction = jnp.where(right, 1.0, -1.0).astype(origin.dtype)
    length = descend(density, origin, direction, -jnp.log1p(-depth), jnp.where(right, whole[1], whole[0]))
    value = density.draw_at(origin + direction * length)
    return attach(jnp.clip(value, low.bound, high.bound), fn, truncated_velocity)


class _End(NamedTuple):
    """One bound of a truncation."""

    bound: Array  # as it is, infinite where there is none
    inside: Array  # the bound, or where it is open another point of the base's support
    open: Array  # whether the bound is no bound: it is where the base's support ends
    at: Array  # its coordinate, plus or minus FAR where it is open
    edge: Array  # where the density at the bound is taken
    side: float  # -1 for the lower bound, 1 for the upper


def _ends(fn: Any) -> tuple[LogConcave, _End, _End]:
    density = log_concave_of(fn.base_dist)
    if density is None:
        raise TypeError(f"{type(fn).__name__} of {type(fn.base_dist).__name__}: not a base that can be truncated")
    start = jnp.zeros_like(density.draw_at(jnp.zeros((), float_type(fn))))
    bounds = (getattr(fn, "low", -jnp.inf), getattr(fn, "high", jnp.inf))
    low, high = jnp.broadcast_arrays(*(jnp.asarray(x, start.dtype) + start for x in bounds))
    return density, _end(density, low, -1.0), _end(density, high, 1.0)


def _end(density: LogConcave, bound: Array, side: float) -> _End:
    limit = density.limits[0] if side < 0 else density.limits[1]
    open_end = jnp.isinf(bound) | (bound <= density.support_low)
    inside = jnp.where(open_end, density.draw_at(jnp.zeros((), bound.dtype)), bound)
    at = density.position(inside)
    return _End(bound, inside, open_end, jnp.where(open_end, side * FAR, at), jnp.where(open_end, limit, at), side)


def _origin(low: _End, high: _End) -> Array:
    """The point of the interval with the highest density, p(s). Masses are counted from there, relative to it."""
    return jnp.clip(jnp.zeros_like(low.at), low.at, high.at)


def _mass(density: LogConcave, start: Array, direction: Array | float, end: Array | float) -> Array:
    """From `start` to `end`, relative to the density at `start`."""
    return density.outward(start, jnp.full_like(start, direction), jnp.abs(end - start))


def _mass_past(density: LogConcave, origin: Array, s: Array, other: _End, behind: Array) -> Array:
    """Between the draw and `other`, relative to the density at the draw or at the origin, whichever is nearer `other`.

    `behind` is the mass between the origin and `other`.
    """
    past = _is_past(origin, s, other.side)
    start, end = jnp.where(past, s, origin), jnp.where(past, other.at, s)
    direction = jnp.where(past, other.side, -other.side).astype(start.dtype)
    return density.outward(start, direction, jnp.abs(end - start)) + jnp.where(past, 0.0, behind)


def _density_ratio(density: LogConcave, origin: Array, s: Array, end: _End) -> Array:
    """p(end) / p(z), p the density of z, times what makes up for the units of `_mass_past`: p(s) / p(origin) or 1."""
    past = _is_past(origin, s, -end.side)
    grown = density.stretch(origin, jnp.where(past, s - origin, 0.0))
    exponent = grown - density.drop(jnp.where(past, origin, s), end.edge)
    # The base's density may have a pole at the bound.
    return jnp.exp(jnp.minimum(exponent, 0.9 * jnp.log(jnp.finfo(exponent.dtype).max)))


def _is_past(origin: Array, s: Array, side: float) -> Array:
    """Whether the draw lies on that side of the origin."""
    return (s - origin) * side >= 0
