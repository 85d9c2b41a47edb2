"""The laws of distributions that are symmetric about their location, in the coordinates where they are log-concave."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtr, ndtri

from autovi.implicit.log_concave.base import LogConcave
from autovi.implicit.numerics.quadrature import num_nodes


def normal_law(loc: Array, scale: Array) -> LogConcave:
    """s = (z - loc) / scale; fall = start step + step^2 / 2."""

    def depth(start: Array, direction: Array, nats: Array) -> tuple[Array, Array]:
        from_mode = direction * start
        tail = ndtr(-from_mode) * jnp.exp(-nats)
        usable = tail > 1e3 * jnp.finfo(tail.dtype).tiny
        return -ndtri(jnp.where(usable, tail, 0.5)) - from_mode, usable

    return LogConcave(
        *_affine(loc, scale),
        fall=lambda start, step: step * (start + step / 2),
        stretch=_no_stretch,
        reach=lambda start, direction, nats: quadratic_reach(direction * start, nats),
        depth=depth,
    )


def laplace_law(loc: Array, scale: Array) -> LogConcave:
    """s = (z - loc) / scale; fall = |step|."""
    return LogConcave(
        *_affine(loc, scale),
        fall=lambda start, step: jnp.abs(step),
        stretch=_no_stretch,
        reach=lambda start, direction, nats: nats + jnp.zeros_like(start),
        depth=lambda start, direction, nats: (nats, None),
    )


def cosh_law(power: Array | int, loc: Array, scale: Array, heavy: bool) -> LogConcave:
    """p(s) proportional to cosh(s)^-power; a power that is an integer has a tail in closed form.

    s = (z - loc) / scale, or asinh((z - loc) / scale) where `heavy`: Logistic (power 2, twice its scale), SoftLaplace
    (power 1), and, heavy, Cauchy (power 1) and Student's t (power df, scale times sqrt(df)).
    """

    def reach(start: Array, direction: Array, nats: Array) -> Array:
        # From cosh(s + t) / cosh(s) >= 1 + tanh(s) t + t^2 / 2 and >= e^t / 2.
        quadratic = quadratic_reach(jnp.tanh(direction * start), jnp.expm1(jnp.minimum(nats / power, 40.0)))
        return jnp.minimum(nats / power + jnp.log(2.0).astype(start.dtype), quadratic)

    def position(value: Array) -> Array:
        return jnp.arcsinh((value - loc) / scale) if heavy else (value - loc) / scale

    def draw_at(s: Array) -> Array:
        largest = 0.75 * jnp.log(jnp.finfo(s.dtype).max)  # beyond, gradients would be infinite
        return loc + scale * (jnp.sinh(jnp.clip(s, -largest, largest)) if heavy else s)

    return LogConcave(
        position,
        draw_at,
        fall=lambda start, step: power * _log_cosh_ratio(start, step),
        stretch=_log_cosh_ratio if heavy else _no_stretch,
        reach=reach,
        bend=lambda start, direction: jnp.full_like(start, 5.0 if num_nodes(start.dtype) < 20 else 12.0),
        depth={1: _arctan_depth, 2: _logistic_depth}[power] if isinstance(power, int) else None,
    )


def _logistic_depth(start: Array, direction: Array, nats: Array) -> tuple[Array, None]:
    """The tail beyond s is e^(-2s) / (1 + e^(-2s))."""
    odds = jnp.exp(-2 * direction * start)
    return 0.5 * (nats + jnp.log1p(-odds * jnp.expm1(-nats))), None


def _arctan_depth(start: Array, direction: Array, nats: Array) -> tuple[Array, None]:
    """The tail beyond s is 2 / pi arctan(e^-s). Far out that is e^-s itself, from which both logarithms depart."""
    odds = jnp.exp(-direction * start)
    angle = jnp.arctan(odds)
    smaller = angle * jnp.exp(-nats)
    tiny = jnp.finfo(nats.dtype).tiny

    def ratio(of: Array, to: Array) -> Array:
        return jnp.where(to > tiny, of / jnp.maximum(to, tiny), 1.0)

    return nats - jnp.log(ratio(jnp.tan(smaller), smaller) * ratio(angle, odds)), None


def _affine(loc: Array, scale: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    return lambda value: (value - loc) / scale, lambda s: loc + scale * s


def _no_stretch(start: Array, step: Array) -> Array:
    return jnp.zeros_like(step)


def quadratic_reach(slope: Array, nats: Array) -> Array:
    """The t > 0 with slope t + t^2 / 2 = nats, for slope >= 0."""
    slope = jnp.maximum(slope, 0.0)
    return 2 * nats / (slope + jnp.sqrt(slope * slope + 2 * nats))


def _log_cosh_ratio(start: Array, step: Array) -> Array:
    """log(cosh(start + step) / cosh(start)) for a step away from 0, to a small relative error."""
    length = jnp.abs(step)
    near = jnp.minimum(length, 20.0)
    growth = jnp.expm1(near)
    inward = jnp.tanh(start) * jnp.sign(step)
    excess = growth * (growth + inward * (2 + growth)) / (2 * (1 + growth))
    return jnp.log1p(excess) + (length - near)
