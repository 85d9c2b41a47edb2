"""Beta draws by their log-odds, exact near both ends, with the implicit gradient of both shapes by quadrature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from autovi.distributions.special import digamma_difference
from autovi.implicit.attach import attach
from autovi.implicit.numerics.quadrature import cutoff, integrate, reach
from autovi.implicit.numerics.sampling import fraction, smallest
from autovi.implicit.univariate.gamma import draw_log_ratio

RAISED_BELOW = 3.0  # shapes that a recurrence raises by one, so that the integrand falls fast enough
LEEWAY = 30.0  # how far left of its zero, in units of b / a, the score may be for the recurrence that raises b


def log_odds(rng_key: Array, a: ArrayLike, b: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Draws of log(x / (1 - x)), x ~ Beta(a, b), with the implicit gradient in both shapes.

    Never infinite: exact also where x underflows or rounds to one. The gradient is a function of the draw alone: the
    conditional mean, given the draw, of that of a ratio of two gammas, and so of smaller variance.

    Args:
        rng_key: a JAX key.
        a: the shape of x, positive, broadcast to `shape`.
        b: the shape of 1 - x, positive, broadcast to `shape`.
        shape: of the draws.
    """
    dtype = jnp.result_type(a, b, float)
    a, b = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
    # Both gammas by one sampler, whose code is long.
    both = jnp.stack([jnp.broadcast_to(x, shape) for x in jax.lax.stop_gradient((a, b))])
    drawn = draw_log_ratio(rng_key, both, both.shape) + jnp.log(both)
    return attach(drawn[0] - drawn[1], (a, b), log_odds_velocity)


def draw_beta(rng_key: Array, fn: dist.Beta, shape: tuple[int, ...]) -> Array:
    """Draws of a `Beta`, which may broadcast to `shape`.

    A draw that its number type would round to 0 or 1 is the nearest number inside, and keeps the gradient of its
    log-odds, so that log x and log(1 - x) keep theirs. Next to 1 the number type has no smaller step than its rounding
    error e, so that x itself may then move by up to e / b^2 too far per unit of b: 1e-3 in float32 for b = 0.01.
    """
    return fraction(log_odds(rng_key, fn.concentration1, fn.concentration0, shape))


def beta_velocity(fn: dist.Beta, value: Array, moving: dist.Beta) -> Array:
    """x (1 - x) d logit x; x no closer to 0 and 1 than a draw comes."""
    value = jnp.clip(value, smallest(value.dtype), 1 - jnp.finfo(value.dtype).eps)
    logit = jnp.log(value) - jnp.log1p(-value)
    shapes, speeds = (fn.concentration1, fn.concentration0), (moving.concentration1, moving.concentration0)
    return value * (1 - value) * log_odds_velocity(shapes, logit, speeds)


def log_odds_velocity(shapes: tuple[Array, Array], value: Array, moving: tuple[Array, Array]) -> Array:
    """D_a da + D_b db, what the log-odds do as the two shapes move."""
    value, a, b = jnp.broadcast_arrays(value, *shapes)
    # The same slope, seen from either end: one code for both, which is long.
    slope = log_odds_slope(jnp.stack([value, -value]), jnp.stack([a, b]), jnp.stack([b, a]))
    return slope[0] * moving[0] - slope[1] * moving[1]


def log_odds_slope(logit: Array, a: Array, b: Array) -> Array:
    """d logit x / da of a Beta(a, b) draw, given logit x; always positive. That in b is -log_odds_slope(-logit, b, a).

    With w(t) = x^a (1 - x)^b as a function of the log-odds t, it is `-int_{-inf}^{logit} (log x(t) - c) w(t) dt / w`,
    c = digamma(a) - digamma(a + b), or the integral over the other side. The score has one zero: on the side where the
    draw lies it keeps its sign, so that nothing cancels. Small shapes decay slowly; there, by parts,

        D(a, b) = (digamma(a + 1) - digamma(a + b) - log x) / a + (a + b) x / a D(a + 1, b)     on the left
        D(a, b) = (log x - c) / b + (a + b) (1 - x) / b D(a, b + 1)                             on the right.

    Each is an identity everywhere. The left one has positive terms up to the zero of the score of (a + 1, b), the right
    one down to the zero of the score of (a, b), and loses at most a digit and a half down to `LEEWAY`: so far it is
    used too, because left of there the density of a small b stays flat for long. Relative error about 1e-6 in float32,
    1e-12 in float64.
    """
    logit, a, b = jnp.broadcast_arrays(logit, a, b)
    log_x = -jax.nn.softplus(-logit)
    total = a + b
    next_score = log_x + digamma_difference(a + 1, b)  # log x less its expectation under (a + 1, b)
    score = next_score + b / (a * total)
    rightward = (b < RAISED_BELOW) & (score > -LEEWAY * b / a) & (score + 1 / total > 0)
    raised_a = (a < RAISED_BELOW) & (next_score < 0) & ~(rightward & (logit > 0))
    raised_b = rightward & ~raised_a
    start = jnp.where(raised_a, next_score, jnp.where(raised_b, score + 1 / total, score))
    slope = _integral(logit, start, jnp.where(raised_a, a + 1, a), jnp.where(raised_b, b + 1, b))
    from_a = ((1 / total - next_score) + total * jax.nn.sigmoid(logit) * slope) / a
    from_b = (score + total * jax.nn.sigmoid(-logit) * slope) / b
    return jnp.where(raised_a, from_a, jnp.where(raised_b, from_b, slope))


def _integral(logit: Array, score: Array, a: Array, b: Array) -> Array:
    """D(a, b) on the side where the score, `score` at the draw, keeps its sign.

    Written for the smaller of x and 1 - x, named p, with shapes c and d: at the distance s from the draw,
    log w changes by c s - (c + d) log(1 + p (e^s - 1)), of which no term is much larger than the sum.
    """
    left = score < 0
    below = logit < 0
    away = jnp.where(left, -1.0, 1.0).astype(logit.dtype)
    sign = jnp.where(below, away, -away)
    near, total = jnp.where(below, a, b), a + b
    p = jax.nn.sigmoid(-jnp.abs(logit))

    def growth(length: Array) -> tuple[Array, Array]:
        step = sign * length
        return step, jnp.log1p(p * jnp.expm1(step))

    def integrand(length: Array) -> Array:
        step, grown = growth(length)
        log_x = jnp.where(below, step - grown, -grown)
        return (score + log_x) * jnp.exp(near * step - total * grown)

    def fall(length: Array) -> tuple[Array, Array]:
        step, grown = growth(length)
        return total * grown - near * step, sign * (total * p * jnp.exp(step - grown) - near)

    tail = jnp.where(left, a, b)
    # 1 + p (e^s - 1) is at least p e^s and at least 1 - p, so the fall is at least linear with the tail's slope.
    first = (cutoff(logit.dtype) + total * jax.nn.softplus(-away * logit)) / tail
    return away * integrate(integrand, reach(fall, first))
