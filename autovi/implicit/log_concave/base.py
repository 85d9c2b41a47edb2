"""Log-concave densities integrated away from their mode: exact in every tail, nothing cancels.

Any mass between two points is a sum of positive integrals that lead away from the mode, each relative to the density
where it starts, so that neither the far tail of a truncation nor a narrow interval loses digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.implicit.numerics.quadrature import accumulate, cutoff, gauss_legendre, num_nodes

FAR = 1e18  # the coordinate of an infinite bound; its square is still finite in float32


@dataclass(frozen=True)
class LogConcave:
    """A distribution in a coordinate s of the draw z whose density p(s) is log-concave, with its mode at s = 0.

    Steps and directions (-1, +1) lead away from the mode.

    Attributes:
        position: s of a draw z.
        draw_at: z at s.
        fall: fall(start, step), the nats that log p(s) loses over a step.
        stretch: stretch(start, step), by how much log dz/ds grows over a step.
        reach: reach(start, direction, nats), a length over which at least so many nats are lost.
        limits: s of the smallest and of the largest draw; -FAR and FAR where those are infinite.
        support_low: where the support of z begins.
        bend: bend(start, direction), the length within which the density may change its slope fast; None: nowhere.
        depth: depth(start, direction, nats), in closed form the length beyond which lies e^-nats of the mass beyond
            `start`, and where that is usable (None: everywhere).
    """

    position: Callable[[Array], Array]
    draw_at: Callable[[Array], Array]
    fall: Callable[[Array, Array], Array]
    stretch: Callable[[Array, Array], Array]
    reach: Callable[[Array, Array, Array], Array]
    limits: tuple[Array | float, Array | float] = (-FAR, FAR)
    support_low: float = -float("inf")
    bend: Callable[[Array, Array], Array] | None = None
    depth: Callable[[Array, Array, Array], tuple[Array, Array | None]] | None = None

    def outward(self, start: Array, direction: Array, length: Array) -> Array:
        """`int_0^length p(start + direction t) / p(start) dt`; `length` may be `FAR`."""
        nats = jnp.asarray(cutoff(start.dtype), start.dtype)
        length = jnp.minimum(length, jax.lax.stop_gradient(self.reach(start, direction, nats)))
        first = length if self.bend is None else jnp.minimum(self.bend(start, direction), length / 2)

        def add(total: Array, row: Array) -> Array:
            t, weight = row[0] * first + row[1] * length, row[2] * first + row[3] * length
            return total + weight * jnp.exp(-self.fall(start, direction * t))

        return accumulate(add, jnp.zeros_like(length), _nodes(num_nodes(length.dtype), self.bend is not None))

    def drop(self, start: Array, end: Array) -> Array:
        """log p(z) at `start` less that at `end`, p the density of z and not that of s."""
        step = end - start
        return self.fall(start, step) + self.stretch(start, step)


@cache
def _nodes(count: int, two_panels: bool) -> np.ndarray:
    """Nodes and weights as multiples of `first` and of `length`, [nodes, 4]: of one Gauss-Legendre rule on [0, length],
    or of two smaller ones on [0, first] and [first, length]."""
    x, w = np.array(gauss_legendre(count * 3 // 4 if two_panels else count)).T
    none = np.zeros_like(x)
    rows = np.stack([none, x, none, w], 1)
    if not two_panels:
        return rows
    return np.concatenate([np.stack([x, none, w, none], 1), np.stack([1 - x, x, -w, w], 1)])


def descend(density: LogConcave, start: Array, direction: Array, nats: Array, beyond: Array) -> Array:
    """The length t, away from the mode, beyond which lies the share e^-nats of the mass beyond `start`; values only.

    In closed form where the density has one. Where that fails, far in a tail, and for others by Newton's method.

    Args:
        density: the distribution.
        start: its coordinate, broadcast with the others.
        direction: -1 or 1, away from the mode.
        nats: not negative.
        beyond: `density.outward(start, direction, FAR)`.
    """
    arguments = jax.lax.stop_gradient((start, direction, nats, beyond))
    start, direction, nats, beyond = jnp.broadcast_arrays(*arguments)
    nats = jnp.maximum(nats, float(jnp.finfo(nats.dtype).tiny) ** 0.75)  # at the mode there is no slope to divide by
    if density.depth is None:
        return _newton(density, start, direction, nats, beyond)
    length, usable = density.depth(start, direction, nats)
    length = jax.lax.stop_gradient(jnp.maximum(length, 0.0))
    if usable is None:
        return length
    otherwise = lambda: jnp.where(usable, length, _newton(density, start, direction, nats, beyond))  # noqa: E731
    return jax.lax.cond(jnp.all(usable), lambda: length, otherwise)


def _newton(density: LogConcave, start: Array, direction: Array, nats: Array, beyond: Array) -> Array:
    """Exact in every tail, since it works with logarithms and with integrals relative to where they start.

    g(t) = -log(share of the mass beyond t) is convex for a log-concave density. The tangent at 0 reaches `nats` beyond
    the solution, and so does the fall of the density itself: from there Newton's method comes down to it.
    """
    near = nats < 0.5  # the mass up to t keeps the digits that the mass beyond it would lose

    def step(_: int, length: Array) -> Array:
        here = jnp.where(near, start, start + direction * length)
        mass = density.outward(here, direction, jnp.where(near, length, FAR))
        fall = density.fall(start, direction * length)
        rest = jnp.where(near, (beyond - mass) * jnp.exp(fall), mass)  # the mass beyond t, relative to t
        lost = jnp.where(near, -jnp.log1p(-mass / beyond), fall + jnp.log(beyond / mass))
        return jnp.maximum(length - (lost - nats) * rest, 0.0)

    first = jnp.minimum(nats * beyond, density.reach(start, direction, nats))
    # A loop that is not written out: it compiles once, and its steps are not merged into one that computes more.
    steps = 5 if jnp.finfo(nats.dtype).bits <= 32 else 7
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, first))
