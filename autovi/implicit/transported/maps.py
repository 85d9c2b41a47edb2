"""The two maps of noise to gammas: Marsaglia and Tsang's accepted normals, with shape augmentation, and logarithms
standardized by location and scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.distributions.special import digamma_gap, log1p_minus, trigamma
from autovi.implicit.transported.transport import Transport, stirling
from autovi.implicit.univariate.gamma import draw_log_ratio

# Ruiz, Titsias and Blei (2016), "The Generalized Reparameterization Gradient". They standardize log z for the Dirichlet
# too, by its K x K covariance, although the simplex has K - 1 dimensions only. The K - 1 log-ratios to the last
# coordinate, used here, are coordinates of it: noise in them has a density.


def rejection(augmentation: int) -> Transport:
    """The transport of rejection sampling, each gamma through a sampler of shape `a + augmentation`.

    z = h(x; b) prod_i u_i^(1/(a + i - 1)) ~ Gamma(a, 1) for b = a + B, i = 1..B: h(x; b) ~ Gamma(b, 1) for x, the
    normal that Marsaglia and Tsang accept, and u_i uniform, which has no parameters. The larger b, the more normal x is
    and the less its distribution depends on it. Logarithms throughout, so that small shapes do not underflow. Naesseth,
    Ruiz, Linderman and Blei (2017), "Reparameterization Gradients through Acceptance-Rejection Sampling Algorithms".
    """

    def log_ratio(rng_key: Array, a: Array) -> tuple[Array, Array]:
        normal_key, uniform_key = jax.random.split(rng_key)
        b = a + augmentation
        fixed = jax.lax.stop_gradient(b)
        x = accepted(draw_log_ratio(normal_key, fixed, b.shape), fixed)
        raised = 3 * jnp.log1p(_step(x, b)) + jnp.log1p((augmentation - 1 / 3) / a)  # log(h/a)
        logs = jax.random.exponential(uniform_key, (augmentation, *a.shape), a.dtype)  # -log u
        return raised - sum(logs[i] / (a + i) for i in range(augmentation)), log_accepted(x, b)

    def simplex(rng_key: Array, a: Array) -> tuple[Array, Array]:
        value, log_noise = log_ratio(rng_key, a)
        return value + jnp.log(a), jnp.sum(log_noise, axis=-1)

    return Transport(log_ratio, simplex)


def accepted(log_ratio: Array, b: Array) -> Array:
    """The normal x of the draw b exp(log_ratio) = h(x; b) = d (1 + c x)^3, d = b - 1/3, c = 1 / (3 sqrt(d)).

    One draw belongs to one x, so that it need not be kept while sampling.
    """
    return jnp.expm1((log_ratio - jnp.log1p(-1 / (3 * b))) / 3) * 3 * jnp.sqrt(b - 1 / 3)


def log_accepted(x: Array, b: Array) -> Array:
    """log pi(x; b), the density of the accepted normals at shape b: log Gamma(h(x; b); b, 1) + log dh/dx.

    = (b - 1/2) log d - d - log Gamma(b) - x^2 / 2 + what Marsaglia and Tsang accept with, on x > -1/c
    = (b - 1/2) log d - d - log Gamma(b) + 3 d (log(1 + c x) - c x - (c x)^2 - (c x)^3 / 3)

    The derivative in b is of order 1 / b^2, and so arranged that rounding errors are of order eps / b.
    """
    third = 1 / (3 * b)
    constant = stirling(b) + (b - 0.5) * jnp.log1p(-third) - 0.5 * jnp.log(b) + 1 / 3
    step = _step(x, b)
    return constant + 3 * (b - 1 / 3) * (log1p_minus(step) - step * step - step**3 / 3)


def _step(x: Array, b: Array) -> Array:
    """c x."""
    return x / (3 * jnp.sqrt(b - 1 / 3))


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
