"""Log densities of truncated distributions, also far outside of the bounds and in narrow intervals.

NumPyro takes differences of distribution functions, which are 0 in float32 some standard deviations outside of the
bounds: the density is infinite there, and its derivative has the wrong sign. Here everything is taken relative to the
bound next to the mode, where the density is highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import erf, erfcx

from autovi.distributions.formulas import same_rank

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_FAR = -1e10  # in the place of a lower bound that is none
_NARROW = 0.5  # width times the slope of the log density, below which a quadrature over the interval is exact


class _Standard(NamedTuple):
    """A value in an interval, in units of the scale and mirrored where the lower bound is not the one next to the mode:
    `low` is at most as far from 0 as `high`. `offset` and `width` are the distances of value and `high` from `low`."""

    value: Array
    low: Array
    high: Array
    offset: Array
    width: Array


def truncated(fn: Any, value: Array) -> Array:
    """`dist.LeftTruncatedDistribution`, `dist.RightTruncatedDistribution` and `dist.TwoSidedTruncatedDistribution`."""
    formula = _FORMULAS.get(type(fn.base_dist))
    if formula is None:
        return jnp.asarray(fn.log_prob(value))
    bounds = (getattr(fn, "low", -jnp.inf), getattr(fn, "high", jnp.inf))
    dtype = jnp.result_type(value, fn.base_dist.loc, fn.base_dist.scale, *bounds, float)
    arrays = same_rank(value, fn.base_dist.loc, fn.base_dist.scale, *bounds)
    value, loc, scale, low, high = jnp.broadcast_arrays(*(jnp.asarray(x, dtype) for x in arrays))
    return formula(_standard(value, loc, scale, low, high)) - jnp.log(scale)


def _standard(value: Array, loc: Array, scale: Array, low: Array, high: Array) -> _Standard:
    mirrored = (high - loc) < (loc - low)
    start, end = jnp.where(mirrored, high, low), jnp.where(mirrored, low, high)
    sign = jnp.where(mirrored, -1.0, 1.0).astype(value.dtype) / scale
    open_end, nowhere = jnp.isinf(end), jnp.isinf(start)
    start = jnp.where(nowhere, loc, start)
    end = jnp.where(open_end, start, end)
    infinite = lambda x: jnp.where(open_end, jnp.inf, x)  # noqa: E731
    return _Standard(
        sign * (value - loc),
        jnp.where(nowhere, _FAR, sign * (start - loc)),
        infinite(sign * (end - loc)),
        sign * (value - start),
        infinite(sign * (end - start)),
    )


def _normal(at: _Standard) -> Array:
    outside = at.low > 0
    low = jnp.where(outside, at.low, 0.0)
    width = jnp.where(outside, at.width, 1.0)
    beyond = -0.5 * at.offset * (at.value + low) - jnp.log(_normal_mass(low, width))
    inside = jnp.where(outside, 0.0, at.low)
    high = jnp.where(outside, 1.0, at.high)
    mass = math.sqrt(math.pi / 2) * (erf(high / math.sqrt(2)) + erf(-inside / math.sqrt(2)))
    return jnp.where(outside, beyond, -0.5 * at.value**2 - jnp.log(mass))


def _normal_mass(low: Array, width: Array) -> Array:
    """The integral of exp(-low t - t^2 / 2) for t from 0 to `width`: a difference of Mills ratios."""
    narrow = width * (1 + low) < _NARROW
    short = jnp.where(narrow, width, 0.0)
    t = short[..., None] * jnp.asarray((1 + _NODES) / 2, low.dtype)
    weights = jnp.asarray(_WEIGHTS / 2, low.dtype)
    by_nodes = short * jnp.sum(weights * jnp.exp(-t * (low[..., None] + 0.5 * t)), axis=-1)
    whole = jnp.isinf(width)
    length = jnp.where(narrow | whole, 1.0, width)
    past = jnp.exp(-length * (low + 0.5 * length)) * _mills(low + length)
    return jnp.where(narrow, by_nodes, _mills(low) - jnp.where(whole, 0.0, past))


def _mills(x: Array) -> Array:
    """The mass beyond x >= 0 of the standard normal over its density at x: 1/x - 1/x^3 + 3/x^5 - ... (DLMF 7.12.1)."""
    # JAX's erfcx is exp(x^2) erfc(x) until the first overflows; erfc underflows before that, and it is 0 in between.
    limit, terms = (8.0, 9) if x.dtype == jnp.float32 else (17.0, 16)
    # Not `maximum`, which halves the derivative where the two are equal.
    far, near = jnp.where(x > limit, x, limit), jnp.where(x > limit, limit, x)
    square, series = 1 / (far * far), jnp.ones_like(x)
    for k in reversed(range(1, terms)):
        series = 1 - (2 * k - 1) * square * series
    return jnp.where(x > limit, series / far, math.sqrt(math.pi / 2) * erfcx(near / math.sqrt(2)))


def _laplace(at: _Standard) -> Array:
    outside = at.low > 0
    beyond = -at.offset - jnp.log(-jnp.expm1(-jnp.where(outside, at.width, 1.0)))
    mass = -jnp.expm1(-jnp.where(outside, 1.0, at.high)) - jnp.expm1(jnp.where(outside, -1.0, at.low))
    return jnp.where(outside, beyond, -jnp.abs(at.value) - jnp.log(mass))


def _logistic(at: _Standard) -> Array:
    outside = at.low > 0
    # sigmoid(high) - sigmoid(low) = sigmoid(high) sigmoid(-low) (1 - exp(-width)), and e^-low is taken out.
    log_mass = (
        -_log1p_exp(-at.high) - jnp.log1p(jnp.exp(jnp.where(outside, -at.low, at.low))) + jnp.log(-jnp.expm1(-at.width))
    )
    below = jnp.where(outside, -at.offset, -at.value)
    return below - 2 * _log1p_exp(-at.value) - log_mass


def _log1p_exp(x: Array) -> Array:
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _cauchy(at: _Standard) -> Array:
    whole = jnp.isinf(at.width)
    high = jnp.where(whole, 1.0, at.high)
    across = jnp.arctan2(jnp.where(whole, 1.0, at.width), jnp.where(whole, at.low, 1 + at.low * high))
    return -jnp.log1p(at.value**2) - jnp.log(across)


_FORMULAS: dict[type, Callable[[_Standard], Array]] = {
    dist.Normal: _normal,
    dist.Laplace: _laplace,
    dist.Logistic: _logistic,
    dist.Cauchy: _cauchy,
}
