"""Draws as location and scale transforms of their own standardized logarithms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.numerics.special import digamma_gap, trigamma
from autovi.implicit.transported.transport import Transport, stirling
from autovi.implicit.univariate.gamma import draw_log_ratio

# Ruiz, Titsias and Blei (2016), "The Generalized Reparameterization Gradient". They standardize log z for the Dirichlet
# too, by its K x K covariance, although the simplex has K - 1 dimensions only. The K - 1 log-ratios to the last
# coordinate, used here, are coordinates of it: noise in them has a density.


def gamma_at(x: Array, a: Array) -> tuple[Array, Array]:
    """log(z/a) with log z = digamma(a) + sqrt(trigamma(a)) x, and the density of x that makes z a Gamma(a, 1):

    log pi(x; a) = log Gamma(z; a, 1) + log z + log sqrt(trigamma(a)).
    """
    scale = jnp.sqrt(trigamma(a))
    value = scale * x - digamma_gap(a)
    return value, a * (value - jnp.expm1(value)) + stirling(a) + jnp.log(scale)


def simplex_at(x: Array, a: Array) -> tuple[Array, Array]:
    """Logits of a Dirichlet(a) at noise `[..., K - 1]` for concentrations `[..., K]`, and the log density of the noise.

    The log-ratios y_k = log(z_k / z_K) are m + L x for their mean m_k = digamma(a_k) - digamma(a_K) and the lower
    Cholesky factor L of their covariance diag(trigamma(a_k)) + trigamma(a_K). Since |dz/dy| = prod_k z_k,

        log pi(x; a) = log Dirichlet(z; a) + sum_k log z_k + log det L.
    """
    diagonal, below = _cholesky(trigamma(a))
    means = jnp.log(a) - digamma_gap(a)
    shift = diagonal * x + _sum_before(below * x)
    logits = means + jnp.concatenate([shift, jnp.zeros_like(means[..., -1:])], axis=-1)
    total = jnp.sum(a, axis=-1)
    excess = jax.nn.log_softmax(logits, axis=-1) - jnp.log(a) + jnp.log(total)[..., None]  # of log z over its mean's
    log_density = jnp.sum(a * excess + stirling(a), axis=-1) - stirling(total)
    return logits, log_density + jnp.sum(jnp.log(diagonal), axis=-1)


def _gamma(rng_key: Array, a: Array) -> tuple[Array, Array]:
    fixed = jax.lax.stop_gradient(a)
    x = (draw_log_ratio(rng_key, fixed, a.shape) + digamma_gap(fixed)) / jnp.sqrt(trigamma(fixed))
    return gamma_at(x, a)


def _simplex(rng_key: Array, a: Array) -> tuple[Array, Array]:
    fixed = jax.lax.stop_gradient(a)
    centred = draw_log_ratio(rng_key, fixed, a.shape) + digamma_gap(fixed)  # log z - digamma(a) of gammas
    return simplex_at(_whitened(centred[..., :-1] - centred[..., -1:], trigamma(fixed)), a)


STANDARDIZED = Transport(_gamma, _simplex)


def _cholesky(variances: Array) -> tuple[Array, Array]:
    """The lower Cholesky factor of diag(v_1 .. v_K-1) + v_K: its diagonal, and what stands below it in each column.

    All entries below the diagonal in a column are the same. Only sums of positive numbers, so nothing cancels.
    """
    left = _left(variances)
    diagonal = jnp.sqrt(variances[..., :-1] + left)
    return diagonal, left / diagonal


def _left(variances: Array) -> Array:
    """The variance of the common part, v_K at first, given the coordinates before each."""
    return 1 / (1 / variances[..., -1:] + _sum_before(1 / variances[..., :-1]))


def _whitened(centred: Array, variances: Array) -> Array:
    """The Cholesky factor's inverse times the vector: each coordinate less what those before it foretell."""
    left = _left(variances)
    foretold = left * _sum_before(centred / variances[..., :-1])
    return (centred - foretold) / jnp.sqrt(variances[..., :-1] + left)


def _sum_before(x: Array) -> Array:
    """The sum of the entries before each along the last axis."""
    return jnp.cumsum(jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., :-1]], axis=-1), axis=-1)
