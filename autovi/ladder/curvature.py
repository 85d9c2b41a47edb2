"""The normal distribution with the curvature of a log density at its mode, also where units and correlations are far
from one.

In float32 the Hessian of a density with a condition number above about 1e6 is lost to rounding, and with it the
direction in which the mode lies. What is lost depends on the coordinates: so gradient and Hessian are taken in
coordinates that the Hessian of the round before has made as round as it could, and again, until the Hessian is the
identity. Each round gains a factor of about 1e5 of the condition number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from autovi.ladder.normal import LOG_2_PI, LogDensity, Normal, behind, product

MAX_ROUNDS = 15
MAX_TRIALS = 60  # evaluations, of steps that were taken and of those that were too long
TOLERANCE = 1e-3  # root mean square of the whitened Hessian's eigenvalues less one, and of the gradient's elements
LANES = 64  # columns of the Hessian at a time, at most: as many copies of what the density needs are in memory
NOISE_ULPS = 16  # rounding of a sum of log densities, in units in the last place of the sum
SHRINK = 0.25  # of a step that was too long
SHORTEST = 1e-5  # of a step, as a part of Newton's
SMALL = 0.1  # of a step, in standard deviations
SUFFICIENT = 1e-4  # of the gain that the slope promises
ROUNDS_OF_GROWTH = 5  # in which a direction without curvature may get longer


class Curvature(NamedTuple):
    """What `curved` found.

    Args:
        normal: the map. Its `loc` is the mode, `scale scale'` the inverse of minus the Hessian there.
        value: the log density at `loc`; not finite where it was not at the point given, and then `normal` says nothing.
        gradient_norm: of the last gradient in whitened coordinates: how far the mode may be from `loc`, in standard
            deviations.
        identity_error: of the last Hessian in whitened coordinates: root mean square of its elements less the
            identity's, times the square root of the dimension.
        rounding: how far the rounding of `loc` moves it, in standard deviations along the narrowest directions. Nothing
            nearer to the mode than that can be had in this precision, nor a draw of the normal.
        condition: condition number of the correlation matrix of `normal`.
        negative: how many eigenvalues of minus the last Hessian were not positive beyond rounding. Their directions
            got the curvature's absolute value.
        rounds: how many Hessians were taken.
        trials: how many gradients were taken.
    """

    normal: Normal
    value: jax.Array
    gradient_norm: jax.Array
    identity_error: jax.Array
    rounding: jax.Array
    condition: jax.Array
    negative: jax.Array
    rounds: jax.Array
    trials: jax.Array

    @property
    def converged(self) -> jax.Array:
        """Is the last gradient zero and the last whitened Hessian the identity, as far as it takes to be within a
        hundredth of a standard deviation, or as rounding allows?"""
        near = self.gradient_norm <= 10 * TOLERANCE * self.normal.loc.shape[0] ** 0.5 + 3 * self.rounding
        return near & (self.identity_error <= 10 * TOLERANCE) & (self.negative == 0)

    @property
    def log_evidence(self) -> jax.Array:
        """Laplace's approximation of the logarithm of the integral of the density."""
        return self.value + 0.5 * self.normal.loc.shape[0] * LOG_2_PI + self.normal.log_det


class _State(NamedTuple):
    normal: Normal
    value: jax.Array
    step: jax.Array  # Newton's, in coordinates whitened by `normal`; the gradient, where these are right
    length: jax.Array  # of the next step, as a part of Newton's
    gradient_norm: jax.Array
    identity_error: jax.Array
    negative: jax.Array
    rounds: jax.Array
    trials: jax.Array
    stays: jax.Array  # how often no step was found
    done: jax.Array


class _Trial(NamedTuple):
    loc: jax.Array
    value: jax.Array
    gradient: jax.Array


def curved(log_density: LogDensity, point: jax.Array, max_rounds: int = MAX_ROUNDS, lanes: int = LANES) -> Curvature:
    r"""The normal distribution with mode and curvature of a log density near a point.

    In every round minus the Hessian in the present coordinates, :math:`A`, is brought to a unit diagonal and
    decomposed, :math:`A = D^{-1} Q W Q' D^{-1}`; the next coordinates are :math:`v = L w` with
    :math:`L L' = D Q |W|^{-1} Q' D`, and the next step :math:`w = L' g`, Newton's, except that it goes up along
    directions of negative curvature (saddle-free). A step is shortened until the density rises as its slope promises,
    or, where the difference is within rounding, until the gradient gets smaller. Neither the unit of a coordinate nor
    its origin has a part in this.

    Args:
        log_density: from `(D,)` to a number, twice differentiable.
        point: where to start, shape `(D,)`; best near a mode.
        max_rounds: of Hessians.
        lanes: columns of a Hessian that are taken side by side.

    Source: for the step, Dauphin et al., Identifying and attacking the saddle point problem (NeurIPS 2014).
    """
    dimension, dtype = point.shape[0], point.dtype
    zero = jnp.zeros(dimension, dtype)

    def running(state: _State) -> jax.Array:
        return ~state.done & (state.rounds < max_rounds) & (state.trials < MAX_TRIALS)

    def body(state: _State) -> _State:
        normal = state.normal._replace(loc=state.normal.at(state.length * state.step))
        # One trace of the density gives its value, its gradient and its Hessian.
        (value, gradient), along = jax.linearize(jax.value_and_grad(behind(log_density, normal)), zero)
        trial = _Trial(normal.loc, value, gradient)
        state = state._replace(trials=state.trials + 1)
        return jax.lax.cond(
            _is_taken(state, trial),
            lambda: _whitened(state, trial, _symmetric(_columns(lambda v: along(v)[1], dimension, dtype, lanes))),
            lambda: _shortened(state),
        )

    start = Normal(point, jnp.eye(dimension, dtype=dtype))
    number, count = jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
    first = _State(
        start, jnp.asarray(-jnp.inf, dtype), zero, jnp.zeros((), dtype), number, number, count, count, count, count,
        jnp.asarray(False),
    )  # fmt: skip
    last = jax.lax.while_loop(running, body, first)
    return Curvature(
        last.normal, last.value, last.gradient_norm, last.identity_error, _rounding(last.normal),
        _condition(last.normal), last.negative, last.rounds, last.trials,
    )  # fmt: skip


def _is_taken(state: _State, trial: _Trial) -> jax.Array:
    finite = jnp.isfinite(trial.value) & jnp.isfinite(trial.gradient).all()
    noise = NOISE_ULPS * jnp.finfo(trial.value.dtype).eps * jnp.maximum(1.0, jnp.abs(state.value))
    slope = (state.step**2).sum()  # the step is the gradient in these coordinates
    rises = trial.value >= state.value + SUFFICIENT * state.length * slope
    # The value no longer tells a step that is right from one that is not, but the gradient does; until that is rounding
    # too, of the point, along the narrowest direction. Small steps still put right what is wrong along the others.
    known = (jnp.linalg.norm(trial.gradient) < jnp.sqrt(slope)) | (jnp.sqrt(slope) < SMALL)
    calms = (trial.value >= state.value - noise) & known
    return finite & (rises | calms | ((state.length == 0) & jnp.isfinite(state.value)))


def _shortened(state: _State) -> _State:
    """The step shorter, or, where that would be no step, none: at the same point the Hessian is known better in
    coordinates that are rounder."""
    length = state.length * SHRINK
    stays = length < SHORTEST
    # At the very first trial there is nothing to go back to.
    done = (state.rounds == 0) | (stays & (state.stays > 0))
    value = jnp.where(state.rounds == 0, jnp.nan, state.value)
    return state._replace(value=value, length=jnp.where(stays, 0, length), stays=state.stays + stays, done=done)


def _whitened(state: _State, trial: _Trial, precision: jax.Array) -> _State:
    dimension = trial.loc.shape[0]
    triangle, negative = _rounded(precision, state.rounds < ROUNDS_OF_GROWTH)
    step = product(trial.gradient, triangle)
    scale = product(state.normal.scale, triangle)
    known = jnp.isfinite(scale).all() & jnp.isfinite(step).all()
    norm = jnp.linalg.norm(step)
    error = jnp.linalg.norm(precision - jnp.eye(dimension, dtype=precision.dtype)) / dimension**0.5
    round_enough = (error <= TOLERANCE) & (negative == 0)
    # A small step that did not halve the gradient in coordinates as round as this was made of rounding.
    rounding = (norm > 0.5 * state.gradient_norm) & (state.gradient_norm < SMALL)
    ended = round_enough & ((norm <= TOLERANCE * dimension**0.5) | rounding)
    return _State(
        Normal(trial.loc, jnp.where(known, scale, state.normal.scale)),
        trial.value,
        jnp.where(known, step, 0),
        jnp.ones_like(state.length),
        norm,
        error,
        negative,
        state.rounds + 1,
        state.trials,
        state.stays,
        ended | ~known | ((state.stays > 1) & (state.length == 0)),
    )


def _rounded(precision: jax.Array, may_grow: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A lower triangle L with L L' the inverse of the precision, its eigenvalues made positive, and how many were not.

    A unit diagonal first: so no unit has a part in what counts as rounding.
    """
    diagonal = jnp.abs(jnp.diagonal(precision))
    unit = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    equal = unit[:, None] * precision * unit
    # U U' with an upper triangle U is a Cholesky decomposition from the last row up; then L = U'^-1 is lower.
    upper = jnp.linalg.cholesky(equal[::-1, ::-1])[::-1, ::-1]
    plain = jnp.diagonal(upper).min() ** 2 > jnp.finfo(precision.dtype).eps ** 0.5  # not so where NaN
    eye = jnp.eye(len(unit), dtype=precision.dtype)
    triangle, negative = jax.lax.cond(
        plain,
        lambda: (solve_triangular(upper, eye, trans="T", lower=False), jnp.asarray(0)),
        lambda: _rounded_by_eigenvalues(equal, may_grow),  # ten times slower, and seldom twice
    )
    return unit[:, None] * triangle, negative


def _rounded_by_eigenvalues(precision: jax.Array, may_grow: jax.Array) -> tuple[jax.Array, jax.Array]:
    eigenvalues, vectors = jnp.linalg.eigh(precision)
    floor = 64 * jnp.finfo(precision.dtype).eps * jnp.abs(eigenvalues).max()
    size = jnp.abs(eigenvalues)
    # A curvature within rounding of zero is known better in the next round, in which its direction is longer; if it is
    # zero still, the direction stays as it is.
    size = jnp.where(size > floor, size, jnp.where(may_grow, floor, 1))
    # L L' = M'M = R'R with M = OR: a lower triangle without a Cholesky decomposition, which rounding could end.
    triangle = jnp.linalg.qr((vectors * jax.lax.rsqrt(size)).T, mode="r").T
    triangle = jnp.tril(triangle * jnp.where(jnp.diagonal(triangle) < 0, -1, 1))
    return triangle, (eigenvalues <= floor).sum()


def _columns(along: Callable[[jax.Array], jax.Array], dimension: int, dtype: Any, lanes: int) -> jax.Array:
    """The matrix of a linear function, some columns at a time."""
    lanes = min(dimension, lanes)
    parts = -(-dimension // lanes)
    # Padded with zeros to whole parts: a remainder would be compiled for itself.
    basis = jnp.eye(parts * lanes, dimension, dtype=dtype).reshape(parts, lanes, dimension)
    return jax.lax.map(jax.vmap(along), basis).reshape(parts * lanes, dimension)[:dimension]


def _symmetric(hessian: jax.Array) -> jax.Array:
    """Minus the Hessian, and symmetric to the last bit."""
    return -0.5 * (hessian + hessian.T)


def _condition(normal: Normal) -> jax.Array:
    """Of the correlation matrix, from its factor: of the matrix itself float32 shows none above 1e7."""
    rows = normal.scale / jnp.linalg.norm(normal.scale, axis=1, keepdims=True)
    values = jnp.linalg.svd(rows, compute_uv=False)
    return (values[0] / values[-1]) ** 2


def _rounding(normal: Normal) -> jax.Array:
    """The root mean square of `scale^-1 e` with errors e of half a last digit of `loc` at most."""
    errors = jnp.finfo(normal.loc.dtype).eps / 12**0.5 * jnp.abs(normal.loc)
    return jnp.linalg.norm(solve_triangular(normal.scale, jnp.diag(errors), lower=True))
