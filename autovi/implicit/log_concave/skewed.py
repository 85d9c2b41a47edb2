"""The laws of Gamma and Beta, in logarithms and log-odds, where they are log-concave for every shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.log_concave.base import FAR, LogConcave
from autovi.implicit.log_concave.symmetric import quadratic_reach
from autovi.implicit.numerics.quadrature import num_nodes
from autovi.implicit.numerics.special import log_quotient


def gamma_law(a: Array, rate: Array) -> LogConcave:
    """s = log(z rate / a): p(s) proportional to exp(a (s - e^s))."""

    def fall(start: Array, step: Array) -> Array:
        growth = jnp.expm1(step)
        return a * ((growth - step) + jnp.expm1(start) * growth)

    def reach(start: Array, direction: Array, nats: Array) -> Array:
        return gamma_reach(a, jnp.expm1(start), direction < 0, nats)

    def bend(start: Array, direction: Array) -> Array:
        # Leftward e^s is gone after some units; rightward nothing happens before z rate is about 1.
        left = 8.0 if num_nodes(start.dtype) < 20 else 20.0
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


def beta_law(a: Array, b: Array) -> LogConcave:
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
        short = num_nodes(start.dtype) < 20
        return jax.nn.softplus(-direction * (mode + start)) + (8.0 if short else 20.0)

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
