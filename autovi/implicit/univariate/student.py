"""Student-t draws, univariate and multivariate: the degrees of freedom act on the radius alone, implicitly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions.special import digamma_excess, log1p_minus
from autovi.implicit.attach import attach
from autovi.implicit.numerics.matrices import inverse_lower, matvec
from autovi.implicit.numerics.quadrature import cutoff, integrate, reach
from autovi.implicit.univariate.gamma import draw_log_ratio

RAISED_BELOW = 3.0  # half degrees of freedom that the recurrence raises by one, so that the tail falls fast enough


def draw_student(rng_key: Array, fn: dist.StudentT, shape: tuple[int, ...]) -> Array:
    """Draws of a `StudentT`, which may broadcast to `shape`: loc + scale * t, only t's radius implicit."""
    dtype = jnp.result_type(fn.df, fn.loc, fn.scale, float)
    return fn.loc + fn.scale * _standard(rng_key, jnp.asarray(fn.df, dtype), shape, 1)[..., 0]


def draw_multivariate_student(rng_key: Array, fn: dist.MultivariateStudentT, shape: tuple[int, ...]) -> Array:
    """Draws of a `MultivariateStudentT`, of shape `shape + fn.event_shape`: loc + scale_tril t."""
    dtype = jnp.result_type(fn.df, fn.loc, fn.scale_tril, float)
    standard = _standard(rng_key, jnp.asarray(fn.df, dtype), shape, fn.event_shape[0])
    return fn.loc + matvec(fn.scale_tril, standard)


def student_velocity(fn: dist.StudentT, value: Array, moving: dist.StudentT) -> Array:
    """d loc + t d scale + scale t d log|t|/d df d df, t = (value - loc) / scale."""
    t = (value - fn.loc) / fn.scale
    stretch = log_radius_slope(_log_norm(t[..., None]), jnp.asarray(fn.df, t.dtype), 1) * moving.df
    return moving.loc + t * (moving.scale + fn.scale * stretch)


def multivariate_student_velocity(
    fn: dist.MultivariateStudentT, value: Array, moving: dist.MultivariateStudentT
) -> Array:
    """d loc + d scale_tril t + scale_tril t d log|t|/d df d df, t = scale_tril^-1 (value - loc)."""
    apart = value - fn.loc
    t = matvec(inverse_lower(fn.scale_tril), apart)
    stretch = log_radius_slope(_log_norm(t), jnp.asarray(fn.df, t.dtype), t.shape[-1]) * moving.df
    return moving.loc + matvec(moving.scale_tril, t) + apart * stretch[..., None]


def _standard(rng_key: Array, df: Array, shape: tuple[int, ...], size: int) -> Array:
    """Draws of t with location 0 and scale 1: a normal vector over the square root of Gamma(df/2)/(df/2).

    Its length stops where its number type could not hold the gradient, and keeps the gradient of its logarithm there.
    """
    normal_key, gamma_key = jax.random.split(rng_key)
    normal = jax.random.normal(normal_key, (*shape, size), df.dtype)
    drawn = -0.5 * draw_log_ratio(gamma_key, jax.lax.stop_gradient(df) / 2, shape)

    def velocity(parameters: tuple[Array, Array], log_scale: Array, moving: tuple[Array, Array]) -> Array:
        df, log_norm = parameters
        return log_radius_slope(log_norm + log_scale, df, size) * moving[0]

    log_norm = _log_norm(normal)
    log_scale = attach(drawn, (df, log_norm), velocity)
    ceiling = 0.75 * jnp.log(jnp.finfo(df.dtype).max) - log_norm
    # The derivative goes with the product, as the scale's own might overflow.
    value = normal * jnp.exp(jnp.minimum(drawn, ceiling))[..., None]
    return value * jnp.exp(log_scale - drawn)[..., None]


def _log_norm(vector: Array) -> Array:
    """log |vector| over the last axis, finite at zero."""
    largest = jnp.maximum(jnp.max(jnp.abs(vector), -1), jnp.finfo(vector.dtype).tiny)
    return jnp.log(largest) + 0.5 * jnp.log(jnp.maximum(jnp.sum((vector / largest[..., None]) ** 2, -1), 1.0))


def log_radius_slope(log_radius: Array, df: Array, size: int | Array) -> Array:
    """d log r / d df at a fixed direction, r the length of a standard Student-t vector of `size` elements.

    With a = df/2 and b = size/2, x = df / (df + r^2) is Beta(a, b) and log r = (log df - logit x) / 2, so the slope is
    (1/a - D_a) / 4, where D_a = d logit x / da. Both are near 1/a for large df, their difference of order 1/a^2. It
    is H(a) = int (log x - c + 1 - (1 + b/a) x) w dt / w, by D_a's own integral and that of dw/dt = (a - (a + b) x) w,
    over the log-odds left of the draw, or minus it over the right. With m = 1 - x the score is log(1 - m) + m + b m / a
    + e(a, b), all of order 1/a^2, e(a, b) = digamma(a + b) - digamma(a) - b/a. For one element it has one sign in the
    tail, the other at the centre. Small a decay slowly in the tail; there, by parts,

        H(a) = (log(1 - m) + m + (b - 1) m / (a + 1) + e(a + 1, b - 1)) / a + (a + b) x / a H(a + 1).
    """
    log_radius, df = jnp.broadcast_arrays(log_radius, df)
    a, b = df / 2, size / 2
    logit = 2 * log_radius - jnp.log(df)  # of m
    x, m = jax.nn.sigmoid(-logit), jax.nn.sigmoid(logit)
    log_x = -jax.nn.softplus(logit)
    raised = a < RAISED_BELOW
    shape = jnp.where(raised, a + 1, a)
    slope = _integral(log_x, m, shape, b)
    score = log1p_minus(-m, log_x) + (b - 1) * m / (a + 1) + digamma_excess(a + 1, b - 1)
    return 0.25 * jnp.where(raised, (score + (a + b) * x * slope) / a, slope)


def _integral(log_x: Array, m: Array, a: Array, b: float | Array) -> Array:
    """H(a) over the side of the mode where the draw lies, in which the density only falls.

    At the radius k times the draw's, log w changes by 2b log k - (a + b) log(1 + m (k^2 - 1)). The variable is p, with
    k = p^-2 outwards and k = p inwards, in which the tail and the centre are as good as polynomials.
    """
    outward = a * m > b * (1 - m)
    power = jnp.where(outward, -2.0, 1.0).astype(m.dtype)
    excess, total = digamma_excess(a, b), a + b

    def growth(widening: Array, log_k: Array) -> tuple[Array, Array]:
        """log(1 + m (k^2 - 1)) and the fall of log w, given k^2 - 1 and log k."""
        grown = jnp.log1p(m * widening)
        return grown, total * grown - 2 * b * log_k

    def integrand(length: Array) -> Array:
        p = 1 - length
        square, narrowing = p * p, length * (2 - length)  # p^2 and 1 - p^2
        widening = jnp.where(outward, narrowing * (1 + square) / (square * square), -narrowing)
        grown, lost = growth(widening, power * jnp.log1p(-length))
        far = m * (1 + widening) * jnp.exp(-grown)
        return (log1p_minus(-far, log_x - grown) + b / a * far + excess) * jnp.exp(-lost) / p

    def fall(log_distance: Array) -> tuple[Array, Array]:
        log_k = away * log_distance
        grown, lost = growth(jnp.expm1(2 * log_k), log_k)
        return lost, away * 2 * (total * m * jnp.exp(2 * log_k - grown) - b)

    away = jnp.sign(-power)
    # 1 + m (k^2 - 1) is at least m k^2 and at least 1 - m, so the fall is at least linear with the tail's slope.
    first = (cutoff(m.dtype) - total * jnp.where(outward, jnp.log(m), log_x)) / (2 * jnp.where(outward, a, b))
    return -2 * power * integrate(integrand, -jnp.expm1(-reach(fall, first) / jnp.abs(power)))
