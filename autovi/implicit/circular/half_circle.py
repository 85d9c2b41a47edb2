"""Velocity of an angle whose density is an even function plus an odd one, by quadrature over half the circle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.implicit.numerics.quadrature import accumulate, gauss_legendre, num_nodes


class Place(NamedTuple):
    """An angle u in [0, pi], seen from the draw t."""

    square: Array  # sin^2(u/2)
    sine: Array  # sin u
    further: Array  # sin^2(u/2) - sin^2(t/2), to the last digits also where it is small


class Parts(NamedTuple):
    """The density at a place: `exp(exponent) (even + odd)` at u, and `exp(exponent) (even - odd)` at -u."""

    exponent: Array  # 0 at the draw
    even: Array
    odd: Array


# density(parameters, sin^2(t/2)) -> the density's parts at any place, up to a factor.
Density = Callable[[Any, Array], Callable[[Place], Parts]]
# ends(sin^2(t/2)) -> sin^2(u/2) at the two ends of what matters of the density at angles from 0 to pi.
Ends = Callable[[Array], tuple[Array, Array]]


def half_circle_velocity(density: Density, ends: Ends, t: Array, parameters: Any, moving: Any) -> Array:
    """dt of a draw t in [-pi, pi] as the parameters move.

    With e and o the even and the odd part, L and R the integrals of e from 0 to |t| and from there to pi, N = L + R,
    and O that of o from |t| to pi, the distribution function is F(t) = 1/2 + (sign(t) L - O) / (2N), so that

        dt = -(sign(t) (dL R - dR L) / N - dO + O dN / N) / (e(t) + o(t)).

    All are taken relative to the density at the draw, and so are their derivatives: the score is then 0 at the draw,
    and where it is monotone dL and dR have opposite signs, and nothing cancels.

    Args:
        density: see `Density`.
        ends: where the density matters.
        t: the draws.
        parameters: what `density` takes, arrays that broadcast to the shape of `t`.
        moving: their tangents.
    """
    leaves, treedef = jax.tree.flatten(parameters)
    integrals, drawn = _integrals(density, ends, jnp.abs(t), treedef)

    def along(direction: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        # One parameter at a time, for all draws: then the transpose of the velocity need not go through the nodes.
        tangents = [d * jnp.ones_like(leaf) for d, leaf in zip(direction, leaves, strict=True)]
        return jax.jvp(integrals, (leaves,), (tangents,))

    directions = jnp.eye(len(leaves), dtype=t.dtype)
    (inner, outer, odd), (d_inner, d_outer, d_odd) = jax.vmap(along, out_axes=(None, 0))(directions)
    total = inner + outer
    sign = jnp.where(t < 0, -1.0, 1.0).astype(t.dtype)
    change = sign * (d_inner * (outer / total) - d_outer * (inner / total)) - d_odd
    change += odd * ((d_inner + d_outer) / total)
    here = drawn(leaves)
    slopes = -4 * change / (here.even + sign * here.odd)
    return sum(slope * speed for slope, speed in zip(slopes, jax.tree.leaves(moving), strict=True))


def _integrals(density: Density, ends: Ends, angle: Array, treedef: Any) -> tuple[Callable, Callable]:
    """A quarter of L, R and O, and the density's parts at the draw, as functions of the parameters' leaves."""
    here = jnp.tan(angle / 4)
    shrink = 1 / (1 + here * here)
    half = 2 * here * shrink
    low, high = (_quarter_tangent(end) for end in ends(half * half))
    inward, outward = jnp.minimum(low - here, 0.0), jnp.maximum(high - here, 0.0)
    rule = np.asarray(gauss_legendre(num_nodes(here.dtype)))

    def place(y: Array) -> tuple[Place, Array]:
        there = here + y
        shrunk = 1 / (1 + there * there)
        other = 2 * there * shrunk
        step = 2 * y * (1 - here * there) * shrink * shrunk  # other - half
        return Place(other * other, 2 * other * (1 - there * there) * shrunk, step * (other + half)), shrunk

    def integrals(leaves: list[Array]) -> tuple[Array, Array, Array]:
        parts = density(jax.tree.unflatten(treedef, leaves), half * half)

        def add(totals: tuple[Array, Array, Array], row: Array) -> tuple[Array, Array, Array]:
            (near, near_width), (far, far_width) = place(inward * row[0]), place(outward * row[0])
            inner, outer = parts(near), parts(far)
            within = -inward * near_width * row[1] * jnp.exp(inner.exponent)
            beyond = outward * far_width * row[1] * jnp.exp(outer.exponent)
            left, right, odd = totals
            return left + within * inner.even, right + beyond * outer.even, odd + beyond * outer.odd

        zero = jnp.zeros_like(here)
        # The many terms of these densities, written out, would take minutes to compile.
        return accumulate(add, (zero, zero, zero), rule, together=1)

    def drawn(leaves: list[Array]) -> Parts:
        return density(jax.tree.unflatten(treedef, leaves), half * half)(place(jnp.zeros_like(here))[0])

    return integrals, drawn


def _quarter_tangent(square: Array) -> Array:
    """tan(u/4) where sin^2(u/2) is `square`, a constant to derivatives."""
    square = jnp.clip(square, 0.0, 1.0)
    return jax.lax.stop_gradient(jnp.sqrt(square) / (1 + jnp.sqrt(1 - square)))
