"""NumPyro's log-concave distributions, in the coordinates where they are: what truncations and copulas are built on.

Gamma in logarithms and Beta in log-odds, where they are log-concave for every shape, and symmetric ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import ndtr, ndtri

from autovi.distributions.special import log_quotient
from autovi.implicit.log_concave.base import FAR, LogConcave


def log_concave_of(fn: Any) -> LogConcave | None:
    """The density of `fn`, an instance of one of the classes below or of a subclass that only sets its parameters."""
    for cls, build in _BUILD.items():
        if isinstance(fn, cls) and type(fn).log_prob is cls.log_prob:
            return build(fn)
    return None


def _floats(*parameters: Any) -> list[Array]:
    dtype = jnp.result_type(*parameters, float)
    return [jnp.asarray(x, dtype) for x in parameters]


def _student(fn: dist.StudentT) -> LogConcave:
    df, loc, scale = _floats(fn.df, fn.loc, fn.scale)
    return cosh_density(df, loc, scale * jnp.sqrt(df), heavy=True)


def _cosh(fn: Any, power: int, width: float, heavy: bool) -> LogConcave:
    loc, scale = _floats(fn.loc, fn.scale)
    return cosh_density(power, loc, width * scale, heavy)


def gamma_density(a: Array, rate: Array) -> LogConcave:
    """s = log(z rate / a): p(s) proportional to exp(a (s - e^s))."""

    def fall(start: Array, step: Array) -> Array:
        growth = jnp.expm1(step)
        return a * ((growth - step) + jnp.expm1(start) * growth)

    def reach(start: Array, direction: Array, nats: Array) -> Array:
        return gamma_reach(a, jnp.expm1(start), direction < 0, nats)

    def bend(start: Array, direction: Array) -> Array:
        # Leftward e^s is gone after some units; rightward nothing happens before z rate is about 1.
        left = 8.0 if _is_single(start) else 20.0
        rightward = -(start + jnp.log(a))
        return jnp.where(direction < 0, left, jnp.where(rightward > 0, rightward, FAR))

    numbers = jnp.finfo(a.dtype)
    highest = 0.9 * jnp.log(numbers.max)
    position = lambda value: jnp.minimum(log_quotient(value, a / rate), highest)  # noqa: E731
    draw_at = lambda s: jnp.maximum(a / rate * jnp.exp(s), numbers.tiny)  # noqa: E731
    limits = (position(jnp.asarray(numbers.tiny, a.dtype)), highest)
    return LogConcave(position, draw_at, fall, lambda start, step: step, reach, limits, 0.0, bend)


def gamma_reach(a: Array, excess: Array, leftward: Array, nats: Array | float) -> Array:
    """A length of s over which log p(s) loses at least so many nats, from where z rate is a (1 + excess).

    From lower bounds of e^t - 1 - t: t^2 / (2 + |t|) to the left, t^2 / 2 and cosh(t) - 1 to the right.
    """
    surplus = a * excess  # z rate - a
    linear = nats + 2 * surplus
    root = jnp.sqrt(linear * linear + 8 * a * nats)
    left = jnp.where(linear > 0, (linear + root) / (2 * a), 4 * nats / (root - jnp.minimum(linear, 0.0)))
    share = nats / (a + surplus)
    right = jnp.log1p(share + jnp.sqrt(share * (share + 2)))
    quadratic = quadratic_reach(surplus, (a + surplus) * nats) / (a + surplus)
    return jnp.where(leftward, left, jnp.minimum(right, quadratic))


def beta_density(a: Array, b: Array) -> LogConcave:
    """s = logit z - log(a / b): p(s) proportional to z^a (1 - z)^b."""
    mode = jnp.log(a) - jnp.log(b)

    def toward(start: Array, right: Array) -> tuple[Array, Array]:
        """The shape and the log-odds that shrink with such a step: to the right those of 1 - z."""
        return jnp.where(right, b, a), jnp.where(right, -(mode + start), mode + start)

    def fall(start: Array, step: Array) -> Array:
        shape, logit = toward(start, step > 0)
        length = jnp.abs(step)
        # log(1 - z (1 - e^-t)) = log(1 + (1 - z) (e^t - 1)) - t; the first loses its digits where z is near 1.
        late = (logit > 0) & (length < 20)
        weight = jax.nn.sigmoid(jnp.where(late, -logit, logit))
        growth = jnp.expm1(jnp.where(late, jnp.minimum(length, 20.0), -length))
        return jnp.where(late, shape - (a + b), shape) * length + (a + b) * jnp.log1p(weight * growth)

    def reach(start: Array, direction: Array, nats: Array) -> Array:
        shape, logit = toward(start, direction > 0)
        # Newton's method from beyond: the logarithm in `fall` is never below log(1 - z).
        length = (nats + (a + b) * jax.nn.softplus(logit)) / shape
        for _ in range(6):
            slope = shape - (a + b) * jax.nn.sigmoid(logit - length)
            fallen = fall(start, direction * length)
            length = length - jnp.maximum(fallen - nats, 0.0) / jnp.maximum(slope, jnp.finfo(length.dtype).tiny)
        return length

    def bend(start: Array, direction: Array) -> Array:
        return jax.nn.softplus(-direction * (mode + start)) + (8.0 if _is_single(start) else 20.0)

    def draw_at(s: Array) -> Array:
        limits = jnp.finfo(s.dtype)
        return jax.nn.sigmoid(jnp.clip(mode + s, jnp.log(2 * limits.tiny), -jnp.log(limits.eps)))

    def stretch(start: Array, step: Array) -> Array:
        return _log_slope(mode + start + step) - _log_slope(mode + start)

    position = lambda value: jnp.log(value) - jnp.log1p(-value) - mode  # noqa: E731
    return LogConcave(position, draw_at, fall, stretch, reach, support_low=0.0, bend=bend)


def _log_slope(logit: Array) -> Array:
    """log(z (1 - z)) for a given logit z."""
    return -jax.nn.softplus(logit) - jax.nn.softplus(-logit)


def normal_density(loc: Array, scale: Array) -> LogConcave:
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


def laplace_density(loc: Array, scale: Array) -> LogConcave:
    """s = (z - loc) / scale; fall = |step|."""
    return LogConcave(
        *_affine(loc, scale),
        fall=lambda start, step: jnp.abs(step),
        stretch=_no_stretch,
        reach=lambda start, direction, nats: nats + jnp.zeros_like(start),
        depth=lambda start, direction, nats: (nats, None),
    )


def cosh_density(power: Array | int, loc: Array, scale: Array, heavy: bool) -> LogConcave:
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
        bend=lambda start, direction: jnp.full_like(start, 5.0 if _is_single(start) else 12.0),
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


def _is_single(x: Array) -> bool:
    return jnp.finfo(x.dtype).bits <= 32


_BUILD: dict[type[dist.Distribution], Callable[[Any], LogConcave]] = {
    dist.Beta: lambda fn: beta_density(*_floats(fn.concentration1, fn.concentration0)),
    dist.Cauchy: lambda fn: _cosh(fn, 1, 1.0, heavy=True),
    dist.Gamma: lambda fn: gamma_density(*_floats(fn.concentration, fn.rate)),
    dist.Laplace: lambda fn: laplace_density(*_floats(fn.loc, fn.scale)),
    dist.Logistic: lambda fn: _cosh(fn, 2, 2.0, heavy=False),
    dist.Normal: lambda fn: normal_density(*_floats(fn.loc, fn.scale)),
    dist.SoftLaplace: lambda fn: _cosh(fn, 1, 1.0, heavy=False),
    dist.StudentT: _student,
}
