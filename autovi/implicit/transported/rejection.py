"""Gamma draws as Marsaglia and Tsang's map of the normals that their sampler accepts, with shape augmentation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.numerics.special import log1p_minus
from autovi.implicit.transported.transport import Transport, stirling
from autovi.implicit.univariate.gamma import draw_log_ratio


def rejection(augmentation: int) -> Transport:
    """The transport of rejection sampling, each gamma through a sampler of shape `a + augmentation`.

    z = h(x; b) prod_i u_i^(1/(a + i - 1)) ~ Gamma(a, 1) for b = a + B, i = 1..B: h(x; b) ~ Gamma(b, 1) for x, the
    normal that Marsaglia and Tsang accept, and u_i uniform, whose law has no parameters. The larger b, the more normal
    x is and the less its law depends on it. Logarithms throughout, so that small shapes do not underflow. Naesseth,
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
