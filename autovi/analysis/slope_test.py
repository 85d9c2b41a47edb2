"""Is a cost's derivative, as JAX computes it, the cost's own slope? A numeric answer, without noise.

`interpreter.py` names the operations that could have another derivative; this test says whether the cost has. Around
points on segments between pairs of values it compares two numbers,

    m = (f(t + h) - f(t - h)) / 2h    and    q = the mean of JAX's derivative over [t - h, t + h],

the mean by Gauss' rule. Where the derivative is right they are equal but for the error of the rule and for rounding.
Halving h tells these apart from a wrong derivative. At a point where f is smooth the error of the rule falls as h^8; a
kink leaves the interval; a jump and rounding make m - q grow as 1/h; the difference that a wrong derivative makes stays
what it is. So it has to stay the same over six intervals, each half as long as the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal, jaxprs_in_params

POINTS = 8  # on a segment
HALVES = range(3, 13)  # h = 1/8, ..., 1/4096 of the segment
RUN = 6  # of these on which m - q has to be the same, up to AGREE of it
AGREE = 0.1
# m - q counts from this share of the slope on, and of the root mean square of the slopes on the segment.
LOCAL = 0.01
OVERALL = 1e-3
# The same in units of what the rounding of value and place may do; `SMALLEST` is in units of the cost on the segment.
NOISE = 32.0
SMALLEST = 1e-6
STAIRCASE = 1e-10
# An even number of nodes, so that a kink in the middle is integrated exactly.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
EVALUATIONS = POINTS * len(HALVES) * (2 + len(_NODES))  # that the test of one segment takes


class Slopes(NamedTuple):
    """What was found on a segment.

    known: points at which enough is finite to say something. wrong: those at which the derivative is wrong.
    slope, derivative: what f and its derivative do at the worst of these, per unit of length.
    """

    known: Array
    wrong: Array
    slope: Array
    derivative: Array


def slopes_along(fn: Callable[[Array], tuple[Array, Array]], start: Array, end: Array, eps: float) -> Slopes:
    """Compares value and derivative of a function along the segment from `start` to `end`.

    `fn(x)` gives the value, a scalar, and the gradient as JAX computes it, of the shape of x. `eps` is the relative
    rounding error of the coarsest type that it computes with. Takes `EVALUATIONS` evaluations.

    Not found: errors below one percent of the slope (where that is small: a thousandth of its root mean square on the
    segment), and those on stretches shorter than 1/16 of the segment. What is not finite says nothing.

    Example:
        >>> held = lambda x: jnp.sum(jax.lax.stop_gradient(x) * x)
        >>> found = slopes_along(jax.value_and_grad(held), jnp.zeros(3), jnp.ones(3), 1e-7)
        >>> int(found.wrong), float(found.slope / found.derivative)
        (8, 2.0)
    """
    unit = jnp.finfo(start.dtype).eps
    size = jnp.maximum(jnp.abs(start), jnp.abs(end))
    # An element that moves by a few rounding errors moves in steps; it is held fixed.
    direction = jnp.where(jnp.abs(end - start) > 1e4 * unit * size, end - start, 0.0)
    halves = np.array([0.5**k for k in HALVES])
    offsets = jnp.asarray(np.concatenate([[-1.0, 1.0], _NODES])[None] * halves[:, None], start.dtype)
    weights = jnp.asarray(_WEIGHTS / 2, start.dtype)

    def at(t: Array) -> tuple[Array, Array, Array]:
        x = start + t * direction
        value, gradient = fn(x)
        moves = direction != 0
        moved = jnp.sum(jnp.where(moves, gradient * direction, 0.0))
        rounded = jnp.where(moves, jnp.abs(gradient * x), 0.0)
        return value, moved, eps * jnp.abs(value) + unit * jnp.sum(rounded)

    def around(t: Array) -> tuple[Array, Array, Array]:
        value, moved, rounding = jax.vmap(jax.vmap(at))(t + offsets)
        width = 2 * jnp.asarray(halves, value.dtype)
        mean = (value[:, 1] - value[:, 0]) / width
        return mean, moved[:, 2:] @ weights.astype(moved.dtype), NOISE * rounding.max(1) / width

    # Anywhere, so that no point is where the functions that people write have their kinks.
    places = np.random.default_rng(0).uniform(0.125, 0.875, POINTS)
    mean, derivative, noise = jax.lax.map(around, jnp.asarray(places, start.dtype))
    finite = jnp.isfinite(mean) & jnp.isfinite(derivative) & jnp.isfinite(noise)
    # In single precision a value that stands still may be one step of a staircase that rounding makes.
    finite &= (mean != 0) | (derivative == 0) | (eps < STAIRCASE)
    mean, derivative = jnp.where(finite, mean, 0.0), jnp.where(finite, derivative, 0.0)
    size = jnp.maximum(jnp.abs(mean), jnp.abs(derivative))
    usual = jnp.sqrt(jnp.sum(size**2) / jnp.maximum(jnp.sum(finite), 1))
    off = mean - derivative
    counts = finite & (jnp.abs(off) > noise + LOCAL * size + OVERALL * usual + SMALLEST)
    same = jnp.abs(off[:, 1:] - off[:, :-1]) <= AGREE * jnp.minimum(jnp.abs(off[:, 1:]), jnp.abs(off[:, :-1]))
    wrong = _runs(counts[:, 1:] & counts[:, :-1] & same, RUN - 1)
    share = jnp.where(wrong, jnp.min(jnp.where(counts, jnp.abs(off), jnp.inf), 1), 0.0)
    worst = jnp.argmax(share)
    scale = jnp.argmax(counts[worst])  # the widest interval on which it counts
    length = jnp.sqrt(jnp.sum(direction**2))
    per_unit = lambda x: x[worst, scale] / jnp.where(length > 0, length, 1.0)  # noqa: E731
    return Slopes(jnp.sum(_runs(finite, RUN)), jnp.sum(wrong), per_unit(mean), per_unit(derivative))


def _runs(good: Array, length: int) -> Array:
    """Which rows hold so many in succession that are good."""
    windows = jnp.stack([good[:, i : good.shape[1] - length + 1 + i] for i in range(length)])
    return jnp.any(jnp.all(windows, axis=0), axis=1)


def coarsest(jaxpr: Any) -> float:
    """The relative rounding error of the coarsest floating type that a program computes with, from its inputs on."""
    program: Any = getattr(jaxpr, "jaxpr", jaxpr)
    moving = set(program.invars)
    errors = [float(jnp.finfo(v.aval.dtype).eps) for v in program.invars if _is_floating(v)]
    for eqn in program.eqns:
        if any(v in moving for v in eqn.invars if not isinstance(v, Literal)):
            moving.update(eqn.outvars)
            errors += [float(jnp.finfo(v.aval.dtype).eps) for v in eqn.outvars if _is_floating(v)]
            errors += [coarsest(p) for p in jaxprs_in_params(eqn.params)]
    return max(errors, default=0.0)


def _is_floating(atom: Any) -> bool:
    return jnp.issubdtype(getattr(atom.aval, "dtype", np.bool_), jnp.floating)
