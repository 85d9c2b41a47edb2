"""Gamma functions against powers: log densities with large concentrations, without the cancellation between the two.

With concentrations a, the log density of a Gamma, Beta or Dirichlet is a difference of terms of size a log a, in which
float32 keeps nothing of the answer from a = 1e5 on. In Stirling's form the large terms meet before they are rounded:

    log Gamma(a) = a log a - a + remainder(a),   remainder(a) = log(2 pi / a) / 2 + 1/(12 a) - ...
    a log(r) - a (r - 1) = -a (u - log(1 + u)),  r = n x / (a s) the observed over the expected, u = r - 1

and u comes from n x - a s, products whose rounding is kept (`error_free`). Loader (2000), "Fast and Accurate
Computation of Binomial Probabilities".
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlogy

from autovi.distributions.error_free import Exact, two_product
from autovi.distributions.special import digamma_gap, log1p_minus

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)  # DLMF 5.11.1
_CLOSE = -0.75  # u below which 1 + u has lost digits that x still has


@jax.custom_jvp
def gamma_remainder(a: Array) -> Array:
    """log Gamma(a) - (a log a - a), to the last digits for a > 0: about log(2 pi / a) / 2.

    The asymptotic series from where it has all digits, reached by Gamma(a + n) = a (a + 1) ... (a + n - 1) Gamma(a).
    """
    steps = 4 if a.dtype == jnp.float32 else 16
    small = a < steps
    far = jnp.where(small, a + steps, a)
    square = 1 / (far * far)
    series = jnp.zeros_like(a)
    for coefficient in reversed(_STIRLING):
        series = coefficient + square * series
    near = jnp.where(small, a, 1.0)
    climbed = near * jnp.log1p(steps / near) - steps
    climbed += jnp.log(math.prod((near + steps) / (near + k) for k in range(steps)))
    return 0.5 * jnp.log(2 * jnp.pi / far) + series / far + jnp.where(small, climbed, 0.0)


gamma_remainder.defjvps(lambda tangent, _, a: -tangent * digamma_gap(a))


@jax.custom_jvp
def _gap(n: Array, x: Array, a: Array, s: Array, n_low: Array, s_low: Array) -> Array:
    seen, expected = two_product(n, x), two_product(a, s)
    # Where it matters the two are close, and their difference has no rounding.
    return (seen.high - expected.high) + ((seen.low - expected.low) + (n_low * x - a * s_low))


@_gap.defjvp
def _gap_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (n, x, a, s, _, _), (dn, dx, da, ds, _, _) = primals, tangents
    return _gap(*primals), (n * dx + x * dn) - (a * ds + s * da)


def gap(n: Exact, x: Array, a: Array, s: Exact) -> Array:
    """n x - a s, the seen less the expected, to the last digits where the two are close."""
    high = jnp.broadcast_arrays(n.high, x, a, s.high)
    return _gap(*high, *(jnp.broadcast_to(jax.lax.stop_gradient(v.low), high[0].shape) for v in (n, s)))


def _log_ratio(n: Array, x: Array, a: Array, s: Array, u: Array) -> Array:
    """log(1 + u)."""
    close = u > _CLOSE
    apart = jnp.log(n) + jnp.log(jnp.where(close, 1.0, x)) - jnp.log(a) - jnp.log(s)
    return jnp.where(close, jnp.log1p(jnp.where(close, u, 0.0)), apart)


@jax.custom_jvp
def _against_expected(n: Array, x: Array, a: Array, s: Array, gap: Array) -> Array:
    u = gap / (a * s)
    close = u > _CLOSE
    near = a * log1p_minus(jnp.where(close, u, 0.0)) - jnp.log(jnp.where(close, x, 1.0))
    far = xlogy(a - 1, x) + a * (jnp.log(n) - jnp.log(a) - jnp.log(s)) - gap / s
    return jnp.where(close, near, far)


@_against_expected.defjvp
def _against_expected_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    n, x, a, s, gap = primals
    dn, dx, da, ds, _ = tangents  # the gap moves with the others, which is in their derivatives
    excess = gap / s
    u = excess / a
    close = u > _CLOSE
    # Below 2 it is a - 1 that must not be rounded, above it is the gap.
    small = (a < 2) & ~close
    flat = n / s - jnp.where(a == 1, 0.0, (a - 1) / jnp.where(small & (a != 1), x, 1.0))
    slope = jnp.where(small, flat, (excess + 1) / jnp.where(small, 1.0, x))
    tangent = da * _log_ratio(n, x, a, s, u) - excess * (dn / n - ds / s) - slope * dx
    return _against_expected(*primals), tangent


def against_expected(n: Exact, x: Array, a: Array, s: Exact, gap: Array) -> Array:
    """a (log r - r + 1) - log x for r = n x / (a s): the power x^(a - 1) of a density, relative to its mean.

    `gap` is n x - a s. Value and gradient to the last digits, for x > 0; at x = 0 as the density has it.
    """
    return _against_expected(*jnp.broadcast_arrays(n.high, x, a, s.high, gap))
