"""Correlated standard normals with sinh-arcsinh marginals, as maps of independent ones.

Jones and Pewsey (2009), "Sinh-arcsinh distributions", with the median at 0 and the slope there 1 whatever skew and
tails: then location and scale keep their meaning while the optimizer tries these out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular


def bend(y: jax.Array, skew: jax.Array, log_tail: jax.Array) -> tuple[jax.Array, jax.Array]:
    """z = (sinh(a + s) - sinh(s)) / (t cosh(s)) elementwise, a = t asinh(y), t = exp(log_tail), s = skew; log dz/dy.

    Increasing, with z = 0 and dz/dy = 1 at y = 0; z = y for s = log_tail = 0. Positive skew lengthens the right tail,
    t > 1 both.
    """
    tail = jnp.exp(log_tail)
    a = tail * jnp.arcsinh(y)
    # sinh(a + s) - sinh(s) = cosh(s) (sinh(a) + tanh(s) (cosh(a) - 1)): nothing large that cancels, and
    # cosh(a) - 1 = 2 sinh(a / 2)^2 keeps the digits of small a.
    z = (jnp.sinh(a) + 2 * jnp.tanh(skew) * jnp.square(jnp.sinh(0.5 * a))) / tail
    return z, _log_cosh(a + skew) - _log_cosh(skew) - 0.5 * jnp.log1p(jnp.square(y))


def unbend(z: jax.Array, skew: jax.Array, log_tail: jax.Array) -> tuple[jax.Array, jax.Array]:
    """y of `bend`, and log dz/dy there."""
    tail = jnp.exp(log_tail)
    a = jnp.arcsinh(jnp.cosh(skew) * tail * z + jnp.sinh(skew)) - skew
    y = jnp.sinh(a / tail)
    return y, _log_cosh(a + skew) - _log_cosh(skew) - 0.5 * jnp.log1p(jnp.square(y))


def _log_cosh(x: jax.Array) -> jax.Array:
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


def correlate(lower: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """y = D^-1 (I + strictly_lower(lower)) noise, D the lengths of the rows: every y_i is standard normal; log det."""
    lower = jnp.tril(lower, -1)
    log_length = _log_length(lower)
    return jnp.exp(-log_length) * (noise + lower @ noise), -jnp.sum(log_length)


def decorrelate(lower: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """noise of `correlate`, and the same log det."""
    lower = jnp.tril(lower, -1)
    log_length = _log_length(lower)
    return unmix(lower, y * jnp.exp(log_length)), -jnp.sum(log_length)


def unmix(lower: jax.Array, mixed: jax.Array) -> jax.Array:
    """x of mixed = (I + lower) x, with the same axes in front of both; `lower` strictly lower triangular."""
    if lower.shape[-1] <= 1:
        return mixed
    return solve_triangular(lower, mixed[..., None], lower=True, unit_diagonal=True)[..., 0]


def _log_length(lower: jax.Array) -> jax.Array:
    return 0.5 * jnp.log1p(jnp.sum(jnp.square(lower), -1))


def split_rows(loc: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scales of a normal around `loc` (*batch, D), a lower triangle or a vector -> the lengths of its rows, and `lower`
    of `correlate` of them."""
    if scale.ndim == loc.ndim:
        return scale, jnp.zeros((*scale.shape, scale.shape[-1]), scale.dtype)
    diagonal = jnp.diagonal(scale, axis1=-2, axis2=-1)
    lower = jnp.tril(scale / diagonal[..., None], -1)
    return diagonal * jnp.exp(_log_length(lower)), lower
