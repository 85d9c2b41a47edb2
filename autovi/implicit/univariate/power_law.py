"""Power laws between two bounds: the velocity in the exponent and in both bounds, stable through exponent -1."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions.special import log1p_ratio, log_quotient
from autovi.implicit.attach import attach
from autovi.implicit.numerics.quadrature import integrate

FURTHEST = 1e8  # log(z / low) where low is 0


def power_law_velocity(fn: dist.DoublyTruncatedPowerLaw, value: Array, moving: dist.DoublyTruncatedPowerLaw) -> Array:
    """The unique dz = -dF / p of a density z^alpha on [low, high].

    With x = log(z/low), d = log(high/z), w = x + d and b = alpha + 1 the draw x is a truncated exponential of rate -b,

        F = (1 - e^(-b x)) / (1 - e^(-b w)) e^(-b d),    dx/db = x d / g(w) (x psi(b x) + d e^(-b x) chi(b d)),

    g(y) = (1 - e^(-b y)) / b, psi(y) = int_0^1 s e^(-y s) ds, chi(y) = int_0^1 (1 - s) e^(-y s) ds: all terms positive,
    nothing cancels for b >= 0. A negative b is the same distribution seen from the other bound.
    """
    dtype = jnp.result_type(fn.alpha, fn.low, fn.high, value)
    value, low, high = (jnp.asarray(x, dtype) for x in (value, fn.low, fn.high))
    x = jnp.where(low > 0, log_quotient(value, jnp.where(low > 0, low, 1.0)), FURTHEST)
    d = log_quotient(high, value)
    rising = fn.alpha >= -1  # z^b grows: most of the mass of log z is near high
    rate = jnp.where(rising, 1 + fn.alpha, -1 - fn.alpha)
    light, heavy = jnp.where(rising, x, d), jnp.where(rising, d, x)
    whole = _span(rate, x + d)
    slope = light * _start(rate * light) + heavy * jnp.exp(-rate * light) * _end(rate * heavy)
    near = _span(rate, light) / whole  # how far a move of the heavy bound carries log z
    # Exponents are summed before the exponential, which alone might overflow.
    largest = jnp.log(jnp.finfo(dtype).max) / 2
    beside = _span(rate, heavy) / whole
    by_low = jnp.where(rising, beside, near) * jnp.exp(jnp.minimum(jnp.where(rising, -fn.alpha * x, x), largest))
    by_high = jnp.where(rising, near, beside) * jnp.exp(-d - jnp.where(rising, 0.0, rate * light))
    by_alpha = value * light * heavy / whole * slope
    return by_alpha * moving.alpha + by_low * moving.low + by_high * moving.high


def draw_power_law(rng_key: Array, fn: dist.DoublyTruncatedPowerLaw, shape: tuple[int, ...]) -> Array:
    """Draws with their gradient, to rounding also for exponents next to -1, where NumPyro's powers cancel."""
    dtype = jnp.result_type(fn.alpha, fn.low, fn.high, float)
    alpha, low, high = (jax.lax.stop_gradient(jnp.asarray(x, dtype)) for x in (fn.alpha, fn.low, fn.high))
    width = jnp.where(low > 0, log_quotient(high, jnp.where(low > 0, low, 1.0)), FURTHEST)
    rising = alpha >= -1
    share = jax.random.uniform(rng_key, shape, dtype) * _span(jnp.abs(1 + alpha), width)
    from_heavy = share * log1p_ratio(-jnp.abs(1 + alpha) * share)
    value = jnp.where(rising, high * jnp.exp(-from_heavy), low * jnp.exp(jnp.where(rising, 0.0, from_heavy)))
    return attach(jnp.clip(value, low, high), fn, power_law_velocity)


def _span(rate: Array, length: Array) -> Array:
    """(1 - e^(-rate length)) / rate, which is `length` at rate 0."""
    y = rate * length
    far = jnp.maximum(y, 1.0)
    return length * jnp.where(y < 1, _moment(y, jnp.ones_like), -jnp.expm1(-far) / far)


def _start(y: Array) -> Array:
    """int_0^1 s e^(-y s) ds for y >= 0."""
    far = jnp.maximum(y, 1.0)
    return jnp.where(y < 1, _moment(y, lambda s: s), (-jnp.expm1(-far) - far * jnp.exp(-far)) / far / far)


def _end(y: Array) -> Array:
    """int_0^1 (1 - s) e^(-y s) ds for y >= 0."""
    far = jnp.maximum(y, 1.0)
    return jnp.where(y < 1, _moment(y, lambda s: 1 - s), (far + jnp.expm1(-far)) / far / far)


def _moment(y: Array, weight: Callable[[Array], Array]) -> Array:
    near = jnp.where(y < 1, y, 0.0)
    return integrate(lambda s: weight(s) * jnp.exp(-near * s), jnp.ones_like(near), nodes=8)
