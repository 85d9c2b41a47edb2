"""Modes of a log density from several starts at once, by L-BFGS.

Optax's line searches are loops inside of the loop. With several starts each step then takes as long as the longest
search among them, and the density is compiled two or three times. Here all is one loop, whose round is one gradient
at one point of every start: where a start's point is good enough its direction changes (Optax's L-BFGS), and where it
is not the next point is another on the same line.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from autovi.ladder.normal import LogDensity

MEMORY = 10  # pairs of steps and gradients
MAX_TRIALS = 30  # points on one line
DECREASE = 1e-4  # the part of what the slope promises that a step has to gain (Armijo)
FLATTER = 0.9  # the part of the slope above which a step could be longer (Wolfe)
LONGER = 3.0  # the factor of a step that could be longer
NEARER, MAX_NEARER = 0.1, 12  # a start without a number is moved so much nearer to zero, so many times
SHORTER = 0.25  # the factor of a step that met no number
GAIN = 1e-3  # nats: a start whose steps promise less, again and again, has converged
LARGEST_NOISE = 0.1  # nats: where rounding of log p hides more, a gradient that promises more is not hidden
NOISE_ULPS = 16  # rounding of a sum of log densities, in units in the last place of the sum

DEPTH = 0.1  # nats, of a valley between two modes
POINTS_BETWEEN = 7  # at which it is looked for

_LBFGS = optax.scale_by_lbfgs(memory_size=MEMORY)


class Status(IntEnum):
    """How a start ended."""

    CONVERGED = 0
    MAX_ITERATIONS = 1  # log p still rose
    STALLED = (
        2  # no step raises log p, though its gradient is not zero: rounding, as where a scale goes to 0, or a kink
    )
    NON_FINITE = 3  # log p or its gradient is no number at the start, nor between it and zero
    UNBOUNDED = 4  # log p rises as far as there are numbers


RUNNING = -1


class Modes(NamedTuple):
    """Where the starts ended, one row for each.

    Args:
        points: the best point seen, shape `(S, D)`; of a start that met no finite number, the start.
        values: the log density there, shape `(S,)`.
        gradient_norms: of its gradient in units of `scales`, shape `(S,)`.
        iterations: gradients that were taken, shape `(S,)`.
        status: `Status`, shape `(S,)`.
    """

    points: jax.Array
    values: jax.Array
    gradient_norms: jax.Array
    iterations: jax.Array
    status: jax.Array


class _Search(NamedTuple):
    """One start, in units of its scales; `value` is minus the log density."""

    point: jax.Array
    value: jax.Array
    gradient: jax.Array
    direction: jax.Array
    slope: jax.Array
    length: jax.Array  # of the next trial on the line
    low: jax.Array  # the longest step on the line at whose end log p still rises
    high: jax.Array  # the shortest that does not
    trials: jax.Array
    calm: jax.Array  # how many steps in a row promised no gain
    fresh: jax.Array  # is the direction the gradient's?
    memory: Any
    iterations: jax.Array
    status: jax.Array


def find_modes(
    log_density: LogDensity, starts: jax.Array, max_iterations: int = 1000, scales: jax.Array | None = None
) -> Modes:
    """Modes of a log density, by L-BFGS from every start.

    A trial point counts if log p has risen by `DECREASE` of what the slope promised, or if log p is the same up to
    rounding and the slope is smaller. A step at whose end log p still rises about as steeply gets longer first. Points
    without a finite value or gradient are too far. So a start stays at its best finite point whatever happens to it,
    and to the others.

    Args:
        log_density: from `(D,)` to a number.
        starts: shape `(S, D)`.
        max_iterations: gradients for each start.
        scales: positive, shape `(D,)` or `(S, D)`: what counts as a step of one in each coordinate. The search is the
            same in any units if these are given in them.

    Example:
        >>> modes = find_modes(lambda u: -((u - 3.0) ** 2).sum(), jnp.zeros((4, 2)))
        >>> [round(float(u), 3) for u in modes.points[0]], Status(int(modes.status[0])).name
        ([3.0, 3.0], 'CONVERGED')

    Source: Nocedal and Wright, Numerical Optimization (2006), chapter 7; for the line search, Lewis and Overton,
    Nonsmooth optimization via quasi-Newton methods (2013); for values within rounding, Hager and Zhang (2006).
    """
    units = jnp.ones_like(starts) if scales is None else jnp.broadcast_to(scales, starts.shape).astype(starts.dtype)

    def falling(point: jax.Array, unit: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(lambda v: -log_density(v * unit))(point)
        return value.astype(point.dtype), gradient

    evaluated = jax.vmap(falling)
    first = jax.vmap(_begun)(starts / units)

    def running(carry: tuple[jax.Array, _Search]) -> jax.Array:
        return (carry[0] < max_iterations) & (carry[1].status == RUNNING).any()

    def body(carry: tuple[jax.Array, _Search]) -> tuple[jax.Array, _Search]:
        count, searches = carry
        trials = jax.vmap(_next_point)(searches)
        return count + 1, jax.vmap(_advanced)(searches, trials, *evaluated(trials, units))

    _, last = jax.lax.while_loop(running, body, (jnp.asarray(0), first))
    return Modes(
        jnp.where((last.status == Status.NON_FINITE)[:, None], starts, last.point * units),
        -last.value,
        jnp.linalg.norm(last.gradient, axis=-1),
        last.iterations,
        jnp.where(last.status == RUNNING, Status.MAX_ITERATIONS, last.status),
    )


def _begun(point: jax.Array) -> _Search:
    zero, zeros, count = jnp.zeros((), point.dtype), jnp.zeros_like(point), jnp.asarray(0)
    infinite = jnp.asarray(jnp.inf, point.dtype)
    return _Search(
        point, infinite, zeros, zeros, zero, zero, zero, infinite, count, count,
        jnp.asarray(True), _memory(point), count, jnp.asarray(RUNNING),
    )  # fmt: skip


def _memory(point: jax.Array) -> Any:
    """An empty memory, in the precision of the point: Optax makes a part of it in JAX's default."""
    return _cast(_LBFGS.init(point), point.dtype)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _next_point(search: _Search) -> jax.Array:
    return search.point + search.length * search.direction


def _advanced(search: _Search, trial: jax.Array, value: jax.Array, gradient: jax.Array) -> _Search:
    """The search after one trial."""
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    begins = jnp.isinf(search.value)
    noise = NOISE_ULPS * jnp.finfo(value.dtype).eps * jnp.maximum(1.0, jnp.abs(search.value))
    slope = gradient @ search.direction
    # A gain below rounding would be none: `value` alone would allow steps of no length, for ever.
    gains = (value < search.value) & (value <= search.value + DECREASE * search.length * search.slope)
    # The same but for rounding: then the slope says whether the step is right, or too short to show.
    same, steep = value <= search.value + noise, slope < FLATTER * search.slope
    good = finite & (gains | (same & (jnp.abs(slope) <= FLATTER * jnp.abs(search.slope))))
    rises = good | (finite & same & steep)
    could_be_longer = rises & steep & jnp.isinf(search.high)
    endless = could_be_longer & (search.trials == MAX_TRIALS) & ~begins
    taken = begins & finite | (good & ~could_be_longer & ~begins)
    moved = _taken(search, trial, value, gradient, ~steep)
    stayed = _on_the_same_line(search, trial, value, finite, rises)
    out = jax.tree.map(lambda a, b: jnp.where(taken, a, b), moved, stayed)
    # A start without a number is nearer to zero next: in large units the usual ones may all be too far.
    ended = jnp.where(search.iterations < MAX_NEARER, RUNNING, Status.NON_FINITE)
    nearer = search._replace(point=NEARER * search.point, status=ended)
    out = jax.tree.map(lambda a, b: jnp.where(begins & ~finite, a, b), nearer, out)
    status = jnp.where(endless | (value == -jnp.inf), Status.UNBOUNDED, out.status)
    out = out._replace(iterations=search.iterations + 1, status=status)
    return jax.tree.map(lambda a, b: jnp.where(search.status == RUNNING, a, b), out, search)


def _taken(search: _Search, point: jax.Array, value: jax.Array, gradient: jax.Array, curved: jax.Array) -> _Search:
    """The trial is the new point."""
    # Without positive curvature along the step a pair is of no use: with no difference to the one before, it has no
    # weight.
    skipped = search.memory._replace(params=point, updates=gradient)
    memory = jax.tree.map(lambda a, b: jnp.where(curved, a, b), search.memory, skipped)
    updates, memory = _LBFGS.update(gradient, memory, point)
    slope = -(updates @ gradient)
    sound = jnp.isfinite(updates).all() & (slope < 0) & jnp.isfinite(slope)
    memory = jax.tree.map(lambda a, b: jnp.where(sound, a, b), _cast(memory, point.dtype), _memory(point))
    steepest, its_slope = _steepest(gradient)
    slope = jnp.where(sound, slope, its_slope)
    # The first direction is the gradient's, and promises nothing about what a better one could gain.
    known = sound & (memory.count > 1)
    calm = jnp.where(_is_calm(slope, value), search.calm + known, 0)
    # A few pairs know the steepest directions, and what they promise of the others is too little.
    ended = (calm > MEMORY) | (slope == 0)
    return search._replace(
        point=point, value=value, gradient=gradient, direction=jnp.where(sound, -updates, steepest), slope=slope,
        memory=memory, calm=calm, fresh=~sound, status=jnp.where(ended, Status.CONVERGED, RUNNING),
        **_new_line(point.dtype),
    )  # fmt: skip


def _steepest(gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The direction against the gradient, of a length of at most one, and the slope along it."""
    # Squares of large elements overflow in float32, and a norm of infinity makes no direction.
    largest = jnp.abs(gradient).max()
    norm = largest * jnp.linalg.norm(gradient / jnp.where(largest > 0, largest, 1))
    direction = -gradient / jnp.maximum(norm, 1)
    return direction, gradient @ direction


def _is_calm(slope: jax.Array, value: jax.Array) -> jax.Array:
    """Does the next step promise no more than is asked for, or known?"""
    noise = NOISE_ULPS * jnp.finfo(value.dtype).eps * jnp.abs(value)
    return -0.5 * slope <= jnp.clip(noise, GAIN, LARGEST_NOISE)


def _new_line(dtype: Any) -> dict[str, jax.Array]:
    return {
        "length": jnp.ones((), dtype),
        "low": jnp.zeros((), dtype),
        "high": jnp.asarray(jnp.inf, dtype),
        "trials": jnp.asarray(0),
    }


def _on_the_same_line(
    search: _Search, trial: jax.Array, value: jax.Array, finite: jax.Array, rises: jax.Array
) -> _Search:
    """The next trial is another on the same line, or, where there is none left, on the gradient's."""
    low = jnp.where(rises, search.length, search.low)
    high = jnp.where(rises, search.high, search.length)
    # The top of the parabola through both values and the slope here.
    fall = value - search.value - search.length * search.slope
    top = -0.5 * search.slope * search.length**2 / jnp.where(fall > 0, fall, 1)
    inside = jnp.where(finite & (fall > 0), jnp.clip(top, 0.1 * search.length, 0.5 * search.length), SHORTER * high)
    between = jnp.where(low > 0, 0.5 * (low + high), inside)
    length = jnp.where(jnp.isinf(high), LONGER * search.length, between)
    on = search._replace(length=length, low=low, high=high, trials=search.trials + 1)
    over = (on.trials > MAX_TRIALS) | ((trial == search.point).all() & jnp.isfinite(high))
    direction, slope = _steepest(search.gradient)
    calm = (search.calm > 0) | _is_calm(search.slope, search.value)
    ended = jnp.where(calm, Status.CONVERGED, Status.STALLED)
    status = jnp.where(search.fresh | (search.calm > 0), ended, RUNNING)
    anew = search._replace(
        direction=direction, slope=slope, memory=_memory(search.point), fresh=jnp.asarray(True), status=status,
        **_new_line(search.point.dtype),
    )  # fmt: skip
    return jax.tree.map(lambda a, b: jnp.where(over, a, b), anew, on)


def distinct_modes(log_density: LogDensity, modes: Modes) -> jax.Array:
    """Which starts ended in one and the same mode: for each the row of the highest of its mode, shape `(S,)`.

    Two points belong to one mode if log p on the straight line between them falls nowhere by more than `DEPTH` below
    the lower of the two. This asks for no distance, and so for no unit. Starts without a finite value are -1.
    """
    between = jnp.arange(1, POINTS_BETWEEN + 1) / (POINTS_BETWEEN + 1)
    noise = NOISE_ULPS * jnp.finfo(modes.values.dtype).eps * jnp.abs(modes.values)
    finite = jnp.isfinite(modes.values)

    def reached(point: jax.Array, value: jax.Array) -> jax.Array:
        lines = point + between[:, None, None].astype(point.dtype) * (modes.points - point)
        lowest = jax.lax.map(jax.vmap(log_density), lines).min(0)  # NaN where any is NaN, and then no mode is the same
        return lowest >= jnp.minimum(value, modes.values) - DEPTH - noise

    # Row by row: with all pairs at once, memory would hold what the density needs as many times.
    same = jax.lax.map(lambda row: reached(*row), (modes.points, modes.values)) | jnp.eye(len(finite), dtype=bool)
    # Of the starts of one mode, the highest is met first.
    order = jnp.argsort(-jnp.where(finite, modes.values, -jnp.inf))
    return jnp.where(finite, order[jnp.argmax(same[:, order] & finite[order], axis=1)], -1)
