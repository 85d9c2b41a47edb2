"""The check of a distribution that a user wrote: do its draws, its density and its derivatives agree, on numbers?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to

from autovi.implicit.generic.by_log_prob import (
    constrained_velocity,
    increasing,
    log_density,
    log_density_along,
    unconstrain,
    unconstrained_velocity,
)
from autovi.implicit.generic.examples import moves
from autovi.implicit.numerics.quadrature import gauss_legendre

FALSE_ALARM = 1e-7  # the probability that the draws of a right sampler are refused
TOLERANCE = 1e-3  # of masses, and of derivatives of F in units of the mean absolute score
_MOST_DRAWS, _FEWEST_DRAWS, _MOST_NUMBERS, _MOST_POINTS = 8192, 256, 500_000, 1024
_DEEP = 20.0  # nats: 2e-9 of the density beside it
_WITHIN = (0.0, 1 / 64, 1 / 8, 1 / 2, 7 / 8, 63 / 64)  # panels between two draws: fine where a gap begins and ends
_TAIL = np.concatenate([[0.0], 2.0 ** np.arange(-8, 66)])  # panels beyond the outermost draws, in units of their spread
_NODES = 4
# derivative(fn, u, moving): dF at a fixed unconstrained coordinate u of the value.
Derivative = Callable[[Any, Array, Any], Array]


@dataclass(frozen=True)
class CheckReport:
    """What a check of a distribution class measured.

    Attributes:
        distribution: the name of its class.
        route: "cdf" or "log_prob", from which its draws' derivatives are taken.
        draws: the Kolmogorov-Smirnov distance between draws and the integral of the density.
        mass: by how much the density's integral misses 1.
        gradient: the largest error of a derivative of F, in units of the mean absolute score.
        note: why the cdf is not used, if there is one.

    Example:
        >>> autovi.implicit.check(Rayleigh(2.0)).route
        'log_prob'
    """

    distribution: str
    route: str
    draws: float
    mass: float
    gradient: float
    note: str = ""


@dataclass(frozen=True)
class _Reference:
    """Integrals of the density by a quadrature between sorted draws; NumPy, float64.

    Attributes:
        below: F at the points.
        total: the whole mass, for each batch element.
        along: dF at the points, for each parameter: the integral of the score times the density.
        size: what an error of `along` is compared to, for each parameter: the integral of the score's absolute value
            times the density, and what moving edges of the support contribute.
    """

    below: np.ndarray
    total: np.ndarray
    along: np.ndarray
    size: np.ndarray


def examine(fn: Distribution, rng_key: Array) -> CheckReport:
    """The report of a concrete univariate distribution with a `log_prob`, a sampler and a support.

    Raises:
        ValueError: a check failed; the message says which, what was expected and what to do.
    """
    name = type(fn).__name__
    points, draws = _points(fn, rng_key)
    reference = _reference(fn, points)
    mass, distance = _check_draws(fn, points, draws, reference)
    note = ""
    if type(fn).cdf is not Distribution.cdf:
        error, note = _cdf_error(fn, points, reference)
        if not note:
            return CheckReport(name, "cdf", distance, mass, error)
    error, wrong = _gradient_error(fn, points, reference, _by_log_prob)
    if wrong:
        hint = f" (its cdf does not do: {note})" if note else ""
        raise ValueError(
            f"{name}: a quadrature of its log_prob does not give the derivatives of its draws: {wrong}{hint}; the "
            "density may have narrow modes far apart; give it a differentiable cdf, or "
            f"autovi.implicit.register({name}, velocity=...)"
        )
    return CheckReport(name, "log_prob", distance, mass, error, note)


def _check_draws(fn: Distribution, points: Array, draws: np.ndarray, reference: _Reference) -> tuple[float, float]:
    """By how much the mass misses 1, and the Kolmogorov-Smirnov distance of the draws from the density.

    Raises:
        ValueError: one is too large, or the density vanishes between draws.
    """
    name = type(fn).__name__
    mass = float(np.max(np.abs(reference.total - 1)))
    if not mass <= TOLERANCE:
        raise ValueError(
            f"{name}: its log_prob should integrate to 1 over the support, and integrates to "
            f"{reference.total[_worst(np.abs(reference.total - 1))]:.6g}; if it lacks its normalizing constant, use "
            f"autovi.implicit.register({name}, velocity=autovi.implicit.unnormalized_velocity)"
        )
    distance, bound = _distance(draws, points, reference.below)
    if not distance <= bound:
        raise ValueError(
            f"{name}: its sample does not follow its log_prob: the Kolmogorov-Smirnov distance of {len(draws)} draws "
            f"should be at most {bound:.3g} and is {distance:.3g}"
        )
    if len(reference.along) and (gap := _gap(fn, points)) is not None:
        raise ValueError(
            f"{name}: its density vanishes between its draws, at about {gap:.4g}, and no derivative of a draw sees "
            "what moves from one side to the other; use the score function, or "
            f"autovi.implicit.register({name}, velocity=...)"
        )
    return mass, distance


def _points(fn: Distribution, rng_key: Array) -> tuple[Array, np.ndarray]:
    """Some of the sorted draws, and all of them, in their unconstrained coordinate."""
    name, batch = type(fn).__name__, int(np.prod(fn.batch_shape, dtype=int))
    num = int(np.clip(_MOST_NUMBERS // max(batch, 1), _FEWEST_DRAWS, _MOST_DRAWS))
    value = jnp.asarray(fn.sample(rng_key, (num,)))
    if value.shape != (num, *fn.batch_shape):
        raise ValueError(f"{name}: its sample should have shape {(num, *fn.batch_shape)}, and has {value.shape}")
    inside = jnp.isfinite(value) & fn.support(value)
    if not bool(jnp.all(inside)):
        raise ValueError(f"{name}: its draws should lie in its support, and {float(jnp.mean(~inside)):.3g} do not")
    draws = jnp.sort(unconstrain(fn, value), axis=0)
    return draws[:: -(-num // _MOST_POINTS)], np.asarray(draws, np.float64)


def _gap(fn: Distribution, points: Array) -> float | None:
    """A value between draws where the density is so far below what it is on either side that no draw will be there."""
    fractions = jnp.linspace(0.0, 1.0, _MOST_POINTS).reshape((-1,) + (1,) * (points.ndim - 1))
    between = jnp.sort(jnp.concatenate([points, points[0] + fractions * (points[-1] - points[0])]), axis=0)
    height = np.asarray(log_density(fn, between), np.float64)
    height = np.where(np.isnan(height), -np.inf, np.minimum(height, 1e9))  # NaN as the quadratures take it; no pole
    sides = np.minimum(np.maximum.accumulate(height, 0), np.maximum.accumulate(height[::-1], 0)[::-1])
    depth = np.where(np.isfinite(sides), sides - height, 0.0)
    worst = _worst(depth)
    return float(biject_to(fn.support)(between)[worst]) if depth[worst] > _DEEP else None


def _distance(draws: np.ndarray, points: Array, below: np.ndarray) -> tuple[float, float]:
    """The Kolmogorov-Smirnov distance, the largest of the batch, and its bound (Massart, 1990)."""
    num, batch = len(draws), max(1, draws[0].size)
    flat = draws.reshape(num, -1)
    at, exact = np.asarray(points, np.float64).reshape(-1, flat.shape[1]), below.reshape(-1, flat.shape[1])
    distance = 0.0
    for k in range(flat.shape[1]):
        upper = np.searchsorted(flat[:, k], at[:, k], side="right") / num
        lower = np.searchsorted(flat[:, k], at[:, k], side="left") / num
        distance = max(distance, float(np.max(upper - exact[:, k])), float(np.max(exact[:, k] - lower)))
    return distance, float(np.sqrt(np.log(2 * batch / FALSE_ALARM) / (2 * num)))


def _reference(fn: Distribution, points: Array) -> _Reference:
    """The integrals up to each of `points`, sorted along the first axis and of the batch shape of `fn` otherwise.

    As exact as the draws are dense where the density is not smooth, whatever its shape: nothing is assumed of modes.
    """
    edges = _edges(np.asarray(points, np.float64))
    start, width = edges[:-1], np.diff(edges, axis=0)

    @jax.jit
    def evaluate(u: Array) -> tuple[Array, Array]:
        log_q = log_density(fn, u)
        density = jnp.where(jnp.isfinite(log_q), jnp.exp(log_q), 0.0)
        scores = moves(fn, lambda fn, moving: log_density_along(fn, u, moving)[1], u)
        return density, jnp.where(density > 0, scores, 0.0)

    mass, along, size = np.zeros(width.shape), np.zeros(()), np.zeros(())
    for node, weight in gauss_legendre(_NODES):
        density, scores = evaluate(jnp.asarray(start + node * width, points.dtype))
        part = weight * width * np.asarray(density, np.float64)
        moved = part * np.asarray(scores, np.float64)
        mass, along, size = mass + part, along + moved, size + np.abs(moved).sum(axis=1)
    still = jnp.zeros_like(points)
    shift = jax.jit(lambda u: moves(fn, lambda fn, moving: constrained_velocity(fn, u, moving, still), u))(points)
    edge = np.abs(np.asarray(shift * jnp.exp(fn.log_prob(biject_to(fn.support)(points))), np.float64))
    size = size + edge.max(axis=1, initial=0.0) + np.finfo(np.float32).tiny
    ends = len(_TAIL) - 2 + len(_WITHIN) * np.arange(len(points))  # the last panel before each point
    return _Reference(np.cumsum(mass, axis=0)[ends], mass.sum(axis=0), np.cumsum(along, axis=1)[:, ends], size[:, None])


def _edges(points: np.ndarray) -> np.ndarray:
    """The panels' edges: far to the left, between each two points, far to the right."""
    spread = np.maximum((points[-1] - points[0]) / 4, np.finfo(np.float32).tiny)
    gaps = np.diff(points, axis=0)
    inside = np.stack([points[:-1] + part * gaps for part in _WITHIN], axis=1).reshape(-1, *points.shape[1:])
    left = np.stack([points[0] - far * spread for far in _TAIL[:0:-1]])
    right = np.stack([points[-1] + far * spread for far in _TAIL])
    return np.concatenate([left, inside, right])


def _cdf_error(fn: Any, points: Array, reference: _Reference) -> tuple[float, str]:
    """As `_gradient_error` for the `cdf`, whose values count too; a wrong one may be an ancestor's."""
    try:
        below = np.asarray(_unconstrained_cdf(fn, points), np.float64)
    except NotImplementedError:  # a `cdf` that only refuses
        return np.inf, "it is not implemented"
    error = np.abs(below - reference.below)
    worst = _worst(error)
    if not error[worst] <= TOLERANCE:
        return np.inf, f"it is {below[worst]:.6g} where the integral of log_prob is {reference.below[worst]:.6g}"
    return _gradient_error(fn, points, reference, _by_cdf)


def _gradient_error(fn: Any, points: Array, reference: _Reference, derivative: Derivative) -> tuple[float, str]:
    """The largest error of a derivative of F in a parameter, and what is wrong with it: nothing if it is small."""
    try:
        got = np.asarray(jax.jit(lambda u: moves(fn, lambda fn, moving: derivative(fn, u, moving), u))(points))
    except (NotImplementedError, TypeError, ValueError) as reason:
        return np.inf, f"no derivative in its parameters: {reason}"
    if not len(got):
        return 0.0, ""
    error = np.abs(got.astype(np.float64) - reference.along) / reference.size
    worst = _worst(error)
    if error[worst] <= TOLERANCE:
        return float(error[worst]), ""
    values = f"{reference.along[worst]:.6g} and is {got[worst]:.6g}"
    return np.inf, f"the derivative of F in its real parameter {worst[0]} should be {values}"


def _by_cdf(fn: Any, u: Array, moving: Any) -> Array:
    leaves, treedef = jax.tree.flatten(fn)
    below = lambda leaves: _unconstrained_cdf(jax.tree.unflatten(treedef, leaves), u)  # noqa: E731
    return jax.jvp(below, (leaves,), (jax.tree.leaves(moving),))[1]


def _by_log_prob(fn: Any, u: Array, moving: Any) -> Array:
    """By the quadrature that draws will use."""
    return -unconstrained_velocity(fn, u, moving) * jnp.exp(log_density(fn, u))


def _unconstrained_cdf(fn: Any, u: Array) -> Array:
    below = fn.cdf(biject_to(fn.support)(u))
    return jnp.where(increasing(fn, u), below, 1 - below)


def _worst(error: np.ndarray) -> tuple[int, ...]:
    """Where the error is largest, or not a number."""
    return tuple(int(k) for k in np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape))
