"""Gaussian copulas: draws for any marginal, and their gradient in the marginals and in the correlation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import log_ndtr, ndtr, ndtri

from autovi.distributions import registry
from autovi.implicit.attach import attach
from autovi.implicit.composite.supports import ends_of, part_fault
from autovi.implicit.composite.tails import tails
from autovi.implicit.dispatch import velocity
from autovi.implicit.log_concave.base import FAR, LogConcave, descend
from autovi.implicit.log_concave.families import log_concave_of
from autovi.implicit.numerics.matrices import inverse_lower, matvec
from autovi.implicit.numerics.sampling import invert
from autovi.implicit.rule import is_plain_transformed


def draw_copula(rng_key: Array, fn: dist.GaussianCopula, shape: tuple[int, ...]) -> Array:
    """z_i = F_i^-1(Phi(x_i)), x = scale_tril eps: draws of shape `shape + fn.event_shape` with their gradient.

    Needs no inverse distribution function from anyone: NumPyro's sampler does, and has none for Gamma and Beta.
    """
    noise = jax.random.normal(rng_key, shape + fn.event_shape, fn.base_dist.scale_tril.dtype)
    scores = matvec(fn.base_dist.scale_tril, noise)
    marginal = fn.marginal_dist
    value = quantile(jax.lax.stop_gradient(marginal), jax.lax.stop_gradient(scores))
    return attach(value, (marginal, scores), _move)


def copula_velocity(fn: dist.GaussianCopula, value: Array, moving: dist.GaussianCopula) -> Array:
    """dz_i = V_i(z_i) + phi(x_i) / p_i(z_i) dx_i with dx = dscale_tril eps, at fixed eps = scale_tril^-1 x.

    V_i and p_i are the marginals' velocity and density, x_i = Phi^-1(F_i(z_i)).
    """
    marginal, factor = fn.marginal_dist, fn.base_dist.scale_tril
    scores = attach(normal_scores(marginal, value), (marginal, value), _score_velocity)
    turned = matvec(moving.base_dist.scale_tril, matvec(inverse_lower(factor), scores))
    return _move((marginal, scores), value, (moving.marginal_dist, turned))


def validate_copula(fn: dist.GaussianCopula) -> dist.GaussianCopula:
    """Marginals on a line, without atoms: an angle is cut where its distribution function begins, and that shows."""
    marginal = registry.strip(fn.marginal_dist)
    cut = "its draws jump where the circle is cut" if registry.lookup(marginal).periodic else None
    if fault := part_fault(marginal) or cut:
        raise TypeError(f"{type(fn).__name__} of {type(marginal).__name__}: {fault}; use the score function")
    return fn


def _move(parameters: tuple[Any, Array], value: Array, moving: tuple[Any, Array]) -> Array:
    (marginal, scores), (marginal_moving, turned) = parameters, moving
    return velocity(marginal, value, marginal_moving) + _density_ratio(marginal, value, scores) * turned


def _score_velocity(parameters: tuple[Any, Array], scores: Array, moving: tuple[Any, Array]) -> Array:
    (marginal, value), (marginal_moving, along) = parameters, moving
    return (along - velocity(marginal, value, marginal_moving)) / _density_ratio(marginal, value, scores)


def _density_ratio(marginal: Any, value: Array, scores: Array) -> Array:
    """phi(x) / p(z)."""
    return jnp.exp(-0.5 * scores * scores - 0.5 * jnp.log(2 * jnp.pi) - registry.strip(marginal).log_prob(value))


def quantile(fn: Any, scores: Array) -> Array:
    """F^-1(Phi(x)) for a univariate distribution; values only.

    To the last digits in both tails where the distribution has a log-concave coordinate, also through transforms; else
    by the distribution's own `icdf`; else by inverting its distribution function, whatever that is made of.
    """
    fn = registry.strip(fn)
    density = log_concave_of(fn)
    if density is not None:
        return density.draw_at(_coordinate(density, scores))
    if is_plain_transformed(fn):
        for transform in fn.transforms:
            scores = scores * transform.sign
        value = quantile(fn.base_dist, scores)
        for transform in fn.transforms:
            value = transform(value)
        return value
    numbers = jnp.finfo(scores.dtype)
    u = jnp.clip(ndtr(scores), numbers.tiny, 1 - numbers.epsneg)
    try:
        return fn.icdf(u)
    except (ImportError, NotImplementedError):  # NumPyro has none, or one that needs another package
        lower, upper = ends_of(fn) or (-jnp.inf, jnp.inf)
        # Each half in its own tail, where the digits are.
        below = scores < 0
        goal = jnp.where(below, ndtr(scores), -ndtr(-scores))
        return invert(lambda value: jnp.where(below, tails(fn, value)[0], -tails(fn, value)[1]), goal, lower, upper)


def normal_scores(fn: Any, value: Array) -> Array:
    """x = Phi^-1(F(z)) for a univariate distribution; values only."""
    fn, value = jax.lax.stop_gradient((registry.strip(fn), value))
    density = log_concave_of(fn)
    if density is not None:
        return _scores(density, value)
    if is_plain_transformed(fn):
        sign = 1
        for transform in reversed(fn.transforms):
            value, sign = transform.inv(value), sign * transform.sign
        return sign * normal_scores(fn.base_dist, value)
    below, above = tails(fn, value)
    nearer = jnp.maximum(jnp.minimum(below, above), jnp.finfo(value.dtype).tiny)
    return jnp.where(below < above, ndtri(nearer), -ndtri(nearer))


def _sides(density: LogConcave, like: Array) -> tuple[Array, Array]:
    """The mass on either side of the mode, relative to the density there."""
    mode = jnp.zeros_like(density.draw_at(jnp.zeros((), like.dtype)))
    far = jnp.full_like(mode, FAR)
    return density.outward(mode, -jnp.ones_like(mode), far), density.outward(mode, jnp.ones_like(mode), far)


def _coordinate(density: LogConcave, scores: Array) -> Array:
    left, right = _sides(density, scores)
    below = ndtr(scores) < left / (left + right)
    side = jnp.where(below, left, right)
    # The tail's share of its side, in nats: where it is small ndtr would lose it.
    nats = jnp.log(side / (left + right)) - log_ndtr(jnp.where(below, scores, -scores))
    direction = jnp.where(below, -1.0, 1.0).astype(scores.dtype)
    start = jnp.zeros_like(nats)
    return direction * descend(density, start, direction, jnp.maximum(nats, 0.0), side)


def _scores(density: LogConcave, value: Array) -> Array:
    left, right = _sides(density, value)
    s = density.position(value)
    below = s < 0
    direction = jnp.where(below, -1.0, 1.0).astype(s.dtype)
    beyond = density.outward(s, direction, jnp.full_like(s, FAR))
    tail = beyond * jnp.exp(-density.fall(jnp.zeros_like(s), s)) / (left + right)
    return -direction * ndtri(jnp.maximum(tail, jnp.finfo(s.dtype).tiny))
