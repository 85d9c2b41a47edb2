"""The implicit gradient of a univariate draw from nothing but a log density and a support, by quadrature.

All is done in an unconstrained coordinate u of the value, by NumPyro's bijection from the real line to the support.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.numerics.quadrature import cutoff, gauss_legendre

_CLIMBS = 12
_FIRST_PROBE, _RATIO, _NUM_PROBES = 4.0**-32, 4.0, 64
_HALVINGS = 8
_BULK = 6.0  # the part of a side that is integrated finely, in the logarithm of the distance


def log_prob_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """`dz = T'(u) du + dT`, `du = -(1/q(u)) int_{-inf}^u s(t) q(t) dt`, from the `log_prob` and the `support` of `fn`.

    z = T(u; theta) is NumPyro's bijection from the real line to the support, q the density of u and s the derivative of
    log q at a fixed u; an edge of the support that moves is in dT. The integral is taken over the side on which the
    density falls, or over the other with the other sign where the first has mass beyond the last numbers that can be
    told apart. Right for poles, edges and heavy tails. The density must be normalized, and no narrow mode may lie far
    away from another.
    """
    u = unconstrain(fn, value)
    return constrained_velocity(fn, u, moving, unconstrained_velocity(fn, u, moving))


def unconstrained_velocity(fn: Any, u: Array, moving: Any) -> Array:
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
    u = unconstrain(fn, value)
    side, seen = _better_side(fn, u)
    mass, score = integrals(fn, moving, u, side, seen)
    center = _mode(fn, u)
    mass_left, score_left = integrals(fn, moving, center, -1.0, extent(fn, center, -1.0))
    mass_right, score_right = integrals(fn, moving, center, 1.0, extent(fn, center, 1.0))
    mean = (score_left + score_right) / (mass_left + mass_right)
    return constrained_velocity(fn, u, moving, side * (score - mean * mass))


def tails_by_log_prob(fn: Any, value: Array) -> tuple[Array, Array]:
    """F(z) and 1 - F(z), each with a small relative error where it is the smaller one."""
    u = unconstrain(fn, value)
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


class Extent(NamedTuple):
    """What the probes on one side of the draws found."""

    length: Array  # no mass that can be seen lies beyond it
    scale: Array  # the distance at which most of the mass lies
    log_mass: Array  # the log of the mass, roughly
    lost: Array  # the share of the mass that lies beyond the last numbers that can be told apart, roughly


def unconstrain(fn: Any, value: Array) -> Array:
    """u, where `value = T(u)` and T is NumPyro's bijection from the real line to the support; finite on the edges."""
    u = dist.biject_to(fn.support).inv(value)
    edge = -jnp.log(jnp.finfo(u.dtype).tiny)
    return jnp.where(jnp.isinf(u) & jnp.isfinite(value), jnp.sign(u) * edge, u)


def log_density(fn: Any, u: Array) -> Array:
    """The log density of u."""
    transform = dist.biject_to(fn.support)
    value = transform(u)
    return fn.log_prob(value) + transform.log_abs_det_jacobian(u, value)


def log_density_along(fn: Any, u: Array, moving: Any) -> tuple[Array, Array]:
    """The log density of u and its derivative as the parameters move, u held; a moving edge of the support is in it."""
    leaves, treedef = jax.tree.flatten(fn)
    density = lambda leaves: log_density(jax.tree.unflatten(treedef, leaves), u)  # noqa: E731
    return jax.jvp(density, (leaves,), (jax.tree.leaves(moving),))


def constrained_velocity(fn: Any, u: Array, moving: Any, u_moving: Array) -> Array:
    """d value = T'(u) du + dT: what a draw does whose u moves by `u_moving`."""
    leaves, treedef = jax.tree.flatten(fn)

    def value(leaves: list[Array], u: Array) -> Array:
        return dist.biject_to(jax.tree.unflatten(treedef, leaves).support)(u)

    return jax.jvp(value, (leaves, u), (jax.tree.leaves(moving), u_moving))[1]


def increasing(fn: Any, u: Array) -> Array:
    """Whether T increases; the bijection to a support that has only an upper bound does not."""
    transform = dist.biject_to(fn.support)
    return transform(jnp.ones_like(u)) > transform(-jnp.ones_like(u))


def extent(fn: Any, u: Array, side: Array | float) -> Extent:
    """How far there is mass on one side of u, by looking at distances that grow geometrically.

    The mass about a distance t weighs t q(u + t), so that heavy tails count; what weighs less than the cutoff allows
    is none. The length is at most four times too large.
    """
    fn, u = jax.lax.stop_gradient((fn, u))

    def weigh(distance: Array) -> tuple[Array, Array]:
        log_q = log_density(fn, u + side * distance)
        usable = _told_apart(fn, u + side * distance) & (log_q < jnp.inf)  # not NaN either
        return usable, jnp.where(usable, log_q + jnp.log(distance), -jnp.inf)

    def probe(found: tuple, distance: Array) -> tuple[tuple, None]:
        heaviest, scale, length, open_end = found
        usable, weight = weigh(distance)
        scale = jnp.where(weight > heaviest, distance, scale)
        heaviest = jnp.maximum(weight, heaviest)
        relevant = weight > heaviest - cutoff(u.dtype)
        # The length ends at the first probe without mass; if that is no number to use, nearer, which is seen to below.
        length = jnp.where(relevant | (open_end & usable), distance, length)
        open_end = relevant | (open_end & ~usable)
        return (heaviest, scale, length, open_end), None

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        inner, ratio = bracket
        ratio = jnp.sqrt(ratio)
        return jnp.where(weigh(inner * ratio)[0], inner * ratio, inner), ratio

    first = jnp.full_like(u, _FIRST_PROBE)
    start = (jnp.full_like(u, -jnp.inf), first, first, jnp.zeros(u.shape, bool))
    distances = jnp.asarray(_FIRST_PROBE * _RATIO ** np.arange(_NUM_PROBES), u.dtype)
    (heaviest, scale, length, open_end), _ = jax.lax.scan(probe, start, distances)
    edge, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (length, jnp.full_like(u, _RATIO)))
    lost = jnp.where(open_end, jnp.exp(weigh(edge)[1] - heaviest), 0.0)
    return Extent(jnp.where(open_end, edge, length), scale, heaviest, lost)


def integrals(fn: Any, moving: Any, u: Array, side: Array | float, extent: Extent) -> tuple[Array, Array]:
    """`int q dt / q(u)` and `int s q dt / q(u)` over one side of u, s the derivative of log q along `moving` (or 0).

    With t = scale (e^y - 1) the nodes are evenly spaced in the bulk and geometrically in the tail. They are a loop, not
    written out, since the log density may be of any size to the compiler; its body is recomputed in reverse mode, so
    that memory does not grow with the nodes.
    """
    scale = extent.scale
    width = jnp.log1p(extent.length / scale)
    near, far = jnp.minimum(width, _BULK), jnp.maximum(width - _BULK, 0.0)
    at_draw = log_density(fn, u)

    def node(totals: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        y, weight = near * row[0] + far * row[1], near * row[2] + far * row[3]
        at = u + side * scale * jnp.expm1(y)
        # Where the density is 0 or undefined there is no weight; the derivatives must not see such a point.
        seen = jnp.isfinite(jax.lax.stop_gradient(log_density(fn, at)))
        at = jnp.where(seen, at, u)
        log_q, slope = (log_density(fn, at), 0.0) if moving is None else log_density_along(fn, at, moving)
        share = jnp.where(seen, weight * scale * jnp.exp(y + log_q - at_draw), 0.0)
        return (totals[0] + share, totals[1] + share * slope), None

    start = jnp.zeros_like(u), jnp.zeros_like(u)
    totals, _ = jax.lax.scan(jax.checkpoint(node), start, jnp.asarray(_nodes(jnp.finfo(u.dtype).bits), u.dtype))
    return totals


@cache
def _nodes(bits: int) -> np.ndarray:
    """Rows of nodes and weights as shares of the bulk's and of the tail's length: node, node, weight, weight.

    Panels of a Gauss-Legendre rule, more of them in the bulk: the tail only decays.
    """
    bulk_panels, tail_panels, num_nodes = (8, 4, 8) if bits <= 32 else (12, 6, 12)
    nodes, weights = _composite(bulk_panels, num_nodes)
    bulk = np.stack([nodes, 0 * nodes, weights, 0 * weights], axis=1)
    nodes, weights = _composite(tail_panels, num_nodes)
    return np.concatenate([bulk, np.stack([1 + 0 * nodes, nodes, 0 * weights, weights], axis=1)])


def _composite(num_panels: int, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.array(gauss_legendre(num_nodes)).T
    panels = (np.arange(num_panels)[:, None] + nodes) / num_panels
    return panels.ravel(), np.tile(weights / num_panels, num_panels)


def _told_apart(fn: Any, u: Array) -> Array:
    """Whether T(u) is a number that still knows its u: near an edge of the support it no longer is."""
    transform = dist.biject_to(fn.support)
    value = jax.lax.optimization_barrier(transform(u))  # or the compiler takes log(exp(u)) for u
    return jnp.abs(transform.inv(value) - u) < 0.1  # False for NaN
