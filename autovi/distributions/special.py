"""Differences of special functions that the library's own terms would lose to cancellation."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

# Coefficients of x^-2k, k = 1, 2, ..., in log x - digamma(x) - 1/(2x) = 1/(12 x^2) - 1/(120 x^4) + ...: B_2k / 2k.
_BERNOULLI = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def digamma_gap(x: ArrayLike) -> Array:
    """`log(x) - digamma(x)` for x > 0, to the last digits also where the two agree: about 1/(2x) for large x.

    The asymptotic series (DLMF 5.11.2) from where it is exact, reached by digamma(x) = digamma(x + n) - sum 1/(x + k).
    """
    x = jnp.asarray(x, jnp.result_type(x, float))
    steps = _steps(x)
    small = x < steps
    far = jnp.where(small, x + steps, x)
    near = jnp.where(small, x, 1.0)
    climbed = jnp.log(near / (near + steps)) + sum(1 / (near + k) for k in range(steps))
    return _series(far) + jnp.where(small, climbed, 0.0)


def trigamma(x: ArrayLike) -> Array:
    """The derivative of digamma for x > 0, to the last digits: the variance of log z, z ~ Gamma(x).

    Recurrence and asymptotic series (DLMF 5.15.5, 5.15.8), thirty times as fast as the zeta function.
    """
    x = jnp.asarray(x, jnp.result_type(x, float))
    far = x + _steps(x)
    square = 1 / (far * far)
    tail = jnp.zeros_like(x)
    for k, coefficient in reversed(list(enumerate(_terms(x), start=1))):
        tail = square * (2 * k * coefficient + tail)
    return sum(1 / (x + k) ** 2 for k in range(_steps(x))) + (1 + 0.5 / far + tail) / far


def digamma_difference(x: ArrayLike, step: ArrayLike) -> Array:
    """`digamma(x + step) - digamma(x)` for x, step > 0, to a small relative error for every size of `step`.

    Each term of the recurrence and of the asymptotic series (DLMF 5.5.2, 5.11.2) is differenced by itself.
    """
    dtype = jnp.result_type(x, step, float)
    x, step = jnp.asarray(x, dtype), jnp.asarray(step, dtype)
    steps = _steps(x)
    climbed = sum(step / ((x + k) * (x + step + k)) for k in range(steps))
    near, far = x + steps, x + steps + step
    total = climbed + jnp.log1p(step / near) + step / (2 * near * far)
    for k, coefficient in enumerate(_terms(x), start=1):
        # near^-2k - far^-2k, factored so that a small step is not lost.
        ratio = -jnp.expm1(-2 * k * jnp.log1p(step / near))
        total += coefficient * near ** (-2 * k) * ratio
    return total


def digamma_excess(x: Array, step: float | Array) -> Array:
    """`digamma(x + step) - digamma(x) - step / x` to the last digits, also where it is of order 1/x^2.

    The recurrence and the asymptotic series (DLMF 5.5.2, 5.11.2), each term differenced by itself.
    """
    steps = _steps(x)
    climbed = sum(1 / ((x + k) * (x + k + 1) * (x + k + step)) for k in range(steps))
    near, far = x + steps, x + steps + step
    near_power, far_power = 1 / (near * near), 1 / (far * far)
    first = step * (near + far) * near_power * far_power  # near^-2 - far^-2
    series, difference, far_powers = jnp.zeros_like(x), first, far_power
    for coefficient in _terms(x):
        series += coefficient * difference
        difference = near_power * difference + far_powers * first
        far_powers = far_powers * far_power
    return step * (1 - step) * climbed + log1p_minus(step / near) + step / (2 * near * far) + series


def log1p_minus(x: Array, log1p: Array | None = None) -> Array:
    """`log(1 + x) - x` for x > -1, to a small relative error: about -x^2/2 near 0.

    For |x| < 1/4 by the series of atanh: with r = x / (2 + x), log(1 + x) = 2 atanh(r) and 2r - x = -r x. Elsewhere by
    `log1p`, which a caller may know to more digits than x tells where x is near -1.
    """
    near = jnp.abs(x) < 0.25
    ratio = jnp.where(near, x / (2 + x), 0.0)
    square = ratio * ratio
    series = jnp.zeros_like(x)
    for k in reversed(range(4 if x.dtype == jnp.float32 else 10)):
        series = square * series + 2 / (2 * k + 3)
    if log1p is None:
        log1p = jnp.log1p(jnp.where(near, 0.0, x))
    return jnp.where(near, ratio * (square * series - x), log1p - x)


def log_quotient(value: Array, scale: Array) -> Array:
    """log(value / scale), to a small relative error where the two are close; finite at 0."""
    value = jnp.maximum(value, jnp.finfo(value.dtype).tiny)
    excess = (value - scale) / scale
    near = jnp.abs(excess) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, excess, 0.0)), jnp.log(value) - jnp.log(scale))


def log1p_ratio(x: Array) -> Array:
    """log(1 + x) / x for x > -1, which is 1 at 0."""
    safe = jnp.where(x == 0, 1.0, x)
    return jnp.where(x == 0, 1.0, jnp.log1p(safe) / safe)


def _steps(x: Array) -> int:
    """How far the recurrence climbs before the series is used."""
    return 6 if x.dtype == jnp.float32 else 12


def _terms(x: Array) -> tuple[float, ...]:
    """As many coefficients of the series as its number type sees from there on."""
    return _BERNOULLI[:4] if x.dtype == jnp.float32 else _BERNOULLI


def _series(x: Array) -> Array:
    inverse = 1 / x
    square = inverse * inverse
    tail = jnp.zeros_like(x)
    for coefficient in reversed(_terms(x)):
        tail = square * (coefficient + tail)
    return 0.5 * inverse + tail
