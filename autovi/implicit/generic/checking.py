"""Checks, on numbers, that the draws, the `cdf` and the `log_prob` of a distribution tell of the same law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to

from autovi.implicit.generic.by_log_prob import line_velocity
from autovi.implicit.generic.fine import Integrals, integrate_between
from autovi.implicit.generic.line import from_line, increasing, log_density, to_line
from autovi.implicit.generic.twin import directions, over_directions

FALSE_ALARM = 1e-7  # the probability that the draws of a right sampler are refused
TOLERANCE = 1e-3  # of masses, and of derivatives of F in units of the mean absolute score
_MOST_DRAWS, _FEWEST_DRAWS, _MOST_NUMBERS, _MOST_POINTS = 8192, 256, 500_000, 1024
_DEEP = 20.0  # nats: 2e-9 of the density beside it
_REGISTER = "autovi.implicit.register({name}, velocity=...)"


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


class _Unfit(Exception):
    """The `cdf` cannot be differentiated, or not rightly: the log density may do."""


def examine(fn: Distribution, rng_key: Array) -> CheckReport:
    """The report of a concrete univariate distribution with a `log_prob`, a sampler and a support.

    Raises:
        ValueError: a check failed; the message says which, what was expected and what to do.
    """
    name = type(fn).__name__
    points, draws = _points(fn, rng_key)
    moves = directions(fn)
    fine = integrate_between(fn, moves, points)
    mass = float(np.max(np.abs(fine.total - 1)))
    if not mass <= TOLERANCE:
        raise ValueError(
            f"{name}: its log_prob should integrate to 1 over the support, and integrates to "
            f"{fine.total[_worst(np.abs(fine.total - 1))]:.6g}; if it lacks its normalizing constant, use "
            f"{_REGISTER.format(name=name).replace('...', 'autovi.implicit.unnormalized_velocity')}"
        )
    distance, bound = _distance(draws, points, fine.below)
    if not distance <= bound:
        raise ValueError(
            f"{name}: its sample does not follow its log_prob: the Kolmogorov-Smirnov distance of {len(draws)} draws "
            f"should be at most {bound:.3g} and is {distance:.3g}"
        )
    if moves and (valley := _valley(fn, points)) is not None:
        raise ValueError(
            f"{name}: its density vanishes between its draws, at about {valley:.4g}, and no derivative of a draw sees "
            f"what moves from one side to the other; use the score function, or {_REGISTER.format(name=name)}"
        )
    note = ""
    if type(fn).cdf is not Distribution.cdf:
        try:
            _compare_cdf(fn, points, fine)
            return CheckReport(name, "cdf", distance, mass, _compare(fn, points, moves, fine, _by_cdf))
        except _Unfit as reason:
            note = str(reason)
    try:
        error = _compare(fn, points, moves, fine, _by_log_prob)
    except _Unfit as reason:
        hint = f" (its cdf does not do: {note})" if note else ""
        raise ValueError(
            f"{name}: a quadrature of its log_prob does not give the derivatives of its draws: {reason}{hint}; the "
            f"density may have narrow modes far apart; give it a differentiable cdf, or {_REGISTER.format(name=name)}"
        ) from None
    return CheckReport(name, "log_prob", distance, mass, error, note)


def _points(fn: Distribution, rng_key: Array) -> tuple[Array, np.ndarray]:
    """Some of the sorted draws, and all of them, on the real line."""
    name, batch = type(fn).__name__, int(np.prod(fn.batch_shape, dtype=int))
    num = int(np.clip(_MOST_NUMBERS // max(batch, 1), _FEWEST_DRAWS, _MOST_DRAWS))
    value = jnp.asarray(fn.sample(rng_key, (num,)))
    if value.shape != (num, *fn.batch_shape):
        raise ValueError(f"{name}: its sample should have shape {(num, *fn.batch_shape)}, and has {value.shape}")
    inside = jnp.isfinite(value) & fn.support(value)
    if not bool(jnp.all(inside)):
        raise ValueError(f"{name}: its draws should lie in its support, and {float(jnp.mean(~inside)):.3g} do not")
    draws = jnp.sort(to_line(fn, value), axis=0)
    return draws[:: -(-num // _MOST_POINTS)], np.asarray(draws, np.float64)


def _valley(fn: Distribution, points: Array) -> float | None:
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
    at, law = np.asarray(points, np.float64).reshape(-1, flat.shape[1]), below.reshape(-1, flat.shape[1])
    distance = 0.0
    for k in range(flat.shape[1]):
        upper = np.searchsorted(flat[:, k], at[:, k], side="right") / num
        lower = np.searchsorted(flat[:, k], at[:, k], side="left") / num
        distance = max(distance, float(np.max(upper - law[:, k])), float(np.max(law[:, k] - lower)))
    return distance, float(np.sqrt(np.log(2 * batch / FALSE_ALARM) / (2 * num)))


def _compare_cdf(fn: Any, points: Array, fine: Integrals) -> None:
    """Is the `cdf` the integral of the density? A cdf that is older than the density need not be.

    Raises:
        _Unfit: it cannot be used.
        ValueError: it is wrong.
    """
    differentiate = jax.jit(lambda u: jax.jvp(lambda u: _line_cdf(fn, u), (u,), (jnp.ones_like(u),)))
    try:
        law, slope = (np.asarray(x, np.float64) for x in differentiate(points))
    except NotImplementedError:  # a `cdf` that only refuses
        raise _Unfit("it is not implemented") from None
    error = np.abs(law - fine.below)
    density = np.asarray(jnp.exp(log_density(fn, points)), np.float64)
    uneven = np.mean(np.minimum(np.abs(slope / density - 1), 1.0))
    if np.max(error) <= TOLERANCE and uneven <= 10 * TOLERANCE:
        return
    if _is_older(type(fn), "cdf", "log_prob"):
        raise _Unfit("it is inherited, and does not belong to the class's own log_prob")
    if np.max(error) <= TOLERANCE:
        raise _Unfit(f"its derivative in the value misses exp(log_prob) by {uneven:.3g} of it")
    worst = _worst(error)
    raise ValueError(
        f"{type(fn).__name__}: its cdf should be the integral of its log_prob, which its draws follow: expected "
        f"{fine.below[worst]:.6g} and got {law[worst]:.6g}; correct the cdf, or remove it"
    )


def _compare(fn: Any, points: Array, moves: dict[str, Any], fine: Integrals, derivative: Any) -> float:
    """The largest error of a derivative of F in a parameter, in units of `_sizes`.

    Raises:
        _Unfit: it is too large, or there is no derivative.
    """
    if not moves:
        return 0.0
    try:
        along = jax.jit(lambda u: over_directions(lambda moving: derivative(fn, u, moving), moves))(points)
    except (NotImplementedError, TypeError, ValueError) as reason:
        raise _Unfit(f"no derivative in {' or '.join(moves)}: {reason}") from None
    got = np.asarray(along, np.float64)
    error = np.abs(got - fine.along) / _sizes(fn, points, moves, fine)
    if not np.max(error) <= TOLERANCE:
        worst = _worst(error)
        raise _Unfit(
            f"the derivative of F in {list(moves)[worst[0]]} should be {fine.along[worst]:.6g} and is {got[worst]:.6g}"
        )
    return float(np.max(error))


def _sizes(fn: Any, points: Array, moves: dict[str, Any], fine: Integrals) -> np.ndarray:
    """What an error of dF is compared to: the mean absolute score, and what moving edges of the support contribute."""
    still = jnp.zeros_like(points)
    shift = jax.jit(lambda u: over_directions(lambda moving: from_line(fn, u, moving, still), moves))(points)
    density = jnp.exp(fn.log_prob(biject_to(fn.support)(points)))
    edges = np.max(np.abs(np.asarray(shift * density, np.float64)), axis=1)
    return (fine.size + edges + np.finfo(np.float32).tiny)[:, None]


def _by_cdf(fn: Any, u: Array, moving: Any) -> Array:
    """dF at fixed u, by the cdf."""
    leaves, treedef = jax.tree.flatten(fn)
    law = lambda leaves: _line_cdf(jax.tree.unflatten(treedef, leaves), u)  # noqa: E731
    return jax.jvp(law, (leaves,), (jax.tree.leaves(moving),))[1]


def _by_log_prob(fn: Any, u: Array, moving: Any) -> Array:
    """dF at fixed u, by the quadrature that draws will use."""
    return -line_velocity(fn, u, moving) * jnp.exp(log_density(fn, u))


def _line_cdf(fn: Any, u: Array) -> Array:
    """The distribution function of u."""
    below = fn.cdf(biject_to(fn.support)(u))
    return jnp.where(increasing(fn, u), below, 1 - below)


def _is_older(cls: type, name: str, than: str) -> bool:
    """Does `name` come from an ancestor of the class that `than` comes from?"""
    owner = next(c for c in cls.__mro__ if name in vars(c))
    other = next(c for c in cls.__mro__ if than in vars(c))
    return owner is not other and issubclass(other, owner)


def _worst(error: np.ndarray) -> tuple[int, ...]:
    """Where the error is largest, or not a number."""
    return tuple(int(k) for k in np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape))
