"""The implicit gradient of a univariate draw from nothing but a log density and a support, by quadrature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.generic.line import Extent, extent, from_line, increasing, integrals, log_density, to_line

_CLIMBS = 12


def log_prob_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """`dz = T'(u) du + dT`, `du = -(1/q(u)) int_{-inf}^u s(t) q(t) dt`, from the `log_prob` and the `support` of `fn`.

    z = T(u; theta) is NumPyro's bijection from the real line to the support, q the density of u and s the derivative of
    log q at a fixed u; an edge of the support that moves is in dT. The integral is taken over the side on which the
    density falls, or over the other with the other sign where the first has mass beyond the last numbers that can be
    told apart. Right for poles, edges and heavy tails. The density must be normalized, and no narrow mode may lie far
    away from another.
    """
    u = to_line(fn, value)
    return from_line(fn, u, moving, line_velocity(fn, u, moving))


def line_velocity(fn: Any, u: Array, moving: Any) -> Array:
    """The du of `log_prob_velocity`."""
    side, seen = _better_side(fn, u)
    _, score = integrals(fn, moving, u, side, seen)
    return side * score


def unnormalized_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """The velocity of a univariate distribution whose `log_prob` lacks its normalizing constant, for `register`.

    `du = -[(1 - F) S_left - F S_right] / q`, S the integrals of the score times the density over either side: the
    same as one side's integral with a score less its mean, which is the derivative of the log of the constant. Then
    `dz = T'(u) du + dT` for the bijection z = T(u; theta) from the real line to the support: Figurnov, Mohamed and Mnih
    (2018), "Implicit Reparameterization Gradients", equation 5, S the distribution function.

    Args:
        fn: a distribution with a `log_prob`, up to a constant, and a `support` that NumPyro can map to the real line.
        value: draws, whose shape the batch shape of `fn` broadcasts to.
        moving: `fn` holding tangents for its parameters.

    Returns:
        d value, of the shape of `value`. Wrong where a narrow mode lies far away from another; nothing is checked.

    Raises:
        NotImplementedError: `fn` has no `log_prob`, or its support no bijection.

    Example:
        >>> autovi.implicit.register(Unnormalized, autovi.implicit.unnormalized_velocity)
    """
    u = to_line(fn, value)
    side, seen = _better_side(fn, u)
    mass, score = integrals(fn, moving, u, side, seen)
    center = _mode(fn, u)
    mass_left, score_left = integrals(fn, moving, center, -1.0, extent(fn, center, -1.0))
    mass_right, score_right = integrals(fn, moving, center, 1.0, extent(fn, center, 1.0))
    mean = (score_left + score_right) / (mass_left + mass_right)
    return from_line(fn, u, moving, side * (score - mean * mass))


def tails_by_log_prob(fn: Any, value: Array) -> tuple[Array, Array]:
    """F(z) and 1 - F(z), each with a small relative error where it is the smaller one."""
    u = to_line(fn, value)
    side, seen = _better_side(fn, u)
    mass, _ = integrals(fn, None, u, side, seen)
    near = jnp.exp(log_density(fn, u)) * mass
    lower = (side < 0) == increasing(fn, u)
    return jnp.where(lower, near, 1 - near), jnp.where(lower, 1 - near, near)


def _better_side(fn: Any, u: Array) -> tuple[Array, Extent]:
    """-1 or 1, the side to integrate over, and how far there is mass.

    Both integrals are the same but for the sign, so the error is that of the quadrature, or what is lost, of the side's
    own mass: the lighter side is better, unless much of it is out of sight. Where the density falls from the draw on
    the quadrature is exact to rounding; where it rises its mass may end suddenly far away, which takes half the digits.
    """
    fn, u = jax.lax.stop_gradient((fn, u))
    left, right = extent(fn, u, -1.0), extent(fn, u, 1.0)
    rises = jax.jvp(lambda u: log_density(fn, u), (u,), (jnp.ones_like(u),))[1] > 0
    rounding = jnp.finfo(u.dtype).eps
    error_left = left.log_mass + jnp.log(left.lost + jnp.where(rises, rounding, rounding**0.5))
    error_right = right.log_mass + jnp.log(right.lost + jnp.where(rises, rounding**0.5, rounding))
    rightward = error_right < error_left
    seen = Extent(*(jnp.where(rightward, *pair) for pair in zip(right, left, strict=True)))
    return jnp.where(rightward, 1.0, -1.0).astype(u.dtype), seen


def _mode(fn: Any, u: Array) -> Array:
    """A point near the highest density, from u by steps over the distances that hold the most mass."""
    fn, u = jax.lax.stop_gradient((fn, u))

    def climb(_: int, u: Array) -> Array:
        for side in (-1.0, 1.0):
            other = u + side * extent(fn, u, side).scale
            u = jnp.where(log_density(fn, other) > log_density(fn, u), other, u)
        return u

    return jax.lax.fori_loop(0, _CLIMBS, climb, u)
