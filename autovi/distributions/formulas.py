"""Log densities of NumPyro's common likelihoods, equal to its own and cheaper: the rows of `table.py` name them.

NumPyro's `log_prob` guards against values outside the support and against infinite parameters. Where the
observed values are known to lie inside the support, the guards only cost time: these leave them
out. Two gradients also differ, on purpose, because NumPyro's are wrong there: at a logit of exactly 0 (where
a linear predictor starts), and at a Poisson rate of 0 with a count of 0.

Terms that hold data alone (log factorials) are subexpressions of `value` only, so that they can be moved out
of an optimization loop.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.scipy.special import gammaln, i0e, i1e, logsumexp, xlogy
from jax.typing import ArrayLike

from autovi.distributions.deviance import gamma_remainder


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`, to the last digits for every float, with gradient `sigmoid(x)`; any shape.

    Computed as `max(x, 0) + log1p(exp(-|x|))`. The gradient is given because automatic differentiation gets
    `x = 0` wrong. About half the time of `jax.nn.softplus`, which pays for the handling of NaN.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvps(lambda tangent, _, x: tangent * jax.nn.sigmoid(x))


@jax.custom_jvp
def bernoulli_sum(successes: Array, trials: Array, logits: Array) -> Array:
    """`successes * logits - trials * softplus(logits)`, without cancellation between the two terms."""
    slope = jnp.where(logits > 0, successes - trials, successes)
    return slope * logits - trials * jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _bernoulli_sum_in_logits(tangent: Array, _: Array, successes: Array, trials: Array, logits: Array) -> Array:
    # successes - trials * sigmoid(logits), arranged so that it stays accurate where the sigmoid is nearly 1.
    tail = jnp.exp(-jnp.abs(logits))
    expected = trials * tail / (1 + tail)
    return tangent * jnp.where(logits > 0, successes - trials + expected, successes - expected)


bernoulli_sum.defjvps(
    lambda tangent, out, successes, trials, logits: jnp.broadcast_to(tangent * logits, out.shape),
    lambda tangent, out, successes, trials, logits: jnp.broadcast_to(-tangent * softplus(logits), out.shape),
    _bernoulli_sum_in_logits,
)


def bernoulli_logits(fn: dist.BernoulliLogits, value: Array) -> Array:
    """`dist.BernoulliLogits`, at its values."""
    value, logits = same_rank(value, fn.logits)
    logits = jnp.asarray(logits, jnp.result_type(value, logits, float))
    return -softplus(jnp.where(value != 0, -logits, logits))


def relaxed_bernoulli_logits(fn: dist.BernoulliLogits, value: Array) -> Array:
    """`dist.BernoulliLogits`, linear between its values."""
    float_type = jnp.result_type(value, fn.logits, float)
    value, logits = (jnp.asarray(array, float_type) for array in same_rank(value, fn.logits))
    sure = jnp.isinf(logits) & ((value == 0) | (value == 1))  # 0 times infinity below
    between = bernoulli_sum(value, jnp.ones((), float_type), jnp.where(sure, 0, logits))
    return jnp.where(sure, -softplus(jnp.where(value != 0, -logits, logits)), between)


def bernoulli_probs(fn: dist.BernoulliProbs, value: Array) -> Array:
    """`dist.BernoulliProbs`, linear between its values."""
    float_type = jnp.result_type(float)
    value, probs = same_rank(value.astype(float_type), fn.probs)
    log_probs, log_rest = log_shares(jnp.asarray(probs, jnp.result_type(probs, float)))
    return value * log_probs + (1 - value) * log_rest


@jax.custom_jvp
def log_shares(probs: Array) -> tuple[Array, Array]:
    """log p and log(1 - p), of p kept as far from 0 and 1 as NumPyro keeps it (`clamp_probs`): both are finite.

    Beyond these limits nothing moves, and the derivatives of every order are 0. Plainly they would be 0 times 1 / p or
    1 / p^2, which may be infinite: the Hessian of a model in which the dead stay dead would be NaN.
    """
    limits = jnp.finfo(probs.dtype)
    probs = jnp.clip(probs, limits.tiny, 1.0 - limits.eps)
    return jnp.log(probs), jnp.log1p(-probs)


@log_shares.defjvp
def _log_shares_tangent(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (probs,), (tangent,) = primals, tangents
    limits = jnp.finfo(probs.dtype)
    inside = (probs > limits.tiny) & (probs < 1.0 - limits.eps)
    probs_inside, moved = jnp.where(inside, probs, 0.5), jnp.where(inside, tangent, 0.0)
    return log_shares(probs), (moved * _inverse(probs_inside), -moved * _inverse(1.0 - probs_inside))


@jax.custom_jvp
def _inverse(x: Array) -> Array:
    """1 / x, whose derivative does not square x: that of a probability of 1e-25 underflows."""
    return 1 / x


@_inverse.defjvp
def _inverse_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    inverse = _inverse(*primals)
    return inverse, -inverse * (inverse * tangents[0])


def log_binomial_coefficient(trials: Array, value: Array) -> Array:
    """log of trials! / (value! (trials - value)!)."""
    return gammaln(trials + 1) - gammaln(value + 1) - gammaln(trials - value + 1)


def categorical_logits(fn: dist.CategoricalLogits, value: Array) -> Array:
    """`dist.CategoricalLogits`."""
    logits, value = jnp.asarray(fn.logits), value.astype(int)
    if logits.ndim == 1:
        # Shared by all values: normalize once and look up, instead of a copy of the logits per value.
        return jnp.take(logits - logsumexp(logits), value, mode="clip")
    batch = lax.broadcast_shapes(value.shape, fn.batch_shape)
    logits = logits.reshape((1,) * (len(batch) + 1 - logits.ndim) + logits.shape)
    chosen = jnp.take_along_axis(
        jnp.broadcast_to(logits, batch + logits.shape[-1:]),
        jnp.broadcast_to(value, batch)[..., None],
        axis=-1,
        mode="clip",
    )
    return chosen[..., 0] - logsumexp(logits, axis=-1)


def normal(fn: dist.Normal, value: Array) -> Array:
    """`dist.Normal`."""
    value, loc, scale = same_rank(value, fn.loc, fn.scale)
    standard = (value - loc) / scale
    return -0.5 * standard**2 - (jnp.log(scale) + 0.5 * math.log(2 * math.pi))


def student_t(fn: dist.StudentT, value: Array) -> Array:
    """`dist.StudentT`: its gamma functions, which agree for many degrees of freedom, by Stirling's formula."""
    value, df, loc, scale = same_rank(value, fn.df, fn.loc, fn.scale)
    half = 0.5 * jnp.asarray(df, jnp.result_type(value, df, loc, scale, float))
    more = half + 0.5
    # log Gamma(half + 1/2) - log Gamma(half) - log(half) / 2
    normalizer = more * jnp.log1p(0.5 / half) - 0.5 + gamma_remainder(more) - gamma_remainder(half)
    standard = (value - loc) / scale
    return normalizer - 0.5 * math.log(2 * math.pi) - jnp.log(scale) - more * jnp.log1p(standard**2 / (2 * half))


def von_mises(fn: dist.VonMises, value: Array) -> Array:
    """`dist.VonMises`: of the cosine its distance from 1."""
    value, loc, concentration = same_rank(value, fn.loc, fn.concentration)
    concentration = jnp.asarray(concentration, jnp.result_type(value, loc, concentration, float))
    fall = 2 * concentration * jnp.sin(0.5 * (value - loc)) ** 2
    return -fall - math.log(2 * math.pi) - _log_i0e(concentration)


@jax.custom_jvp
def _log_i0e(x: Array) -> Array:
    """log of I_0(x) exp(-x)."""
    return jnp.log(i0e(x))


@_log_i0e.defjvp
def _log_i0e_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """I_1(x) / I_0(x) - 1, of large x by its series in 1/x, as the two agree there."""
    (x,), (dx,) = primals, tangents
    far = jnp.maximum(x, 50.0)
    series = jnp.zeros_like(x)
    for coefficient in (1073 / 1024, 13 / 32, 25 / 128, 1 / 8, 1 / 8, 1 / 2):
        series = (series + coefficient) / far
    near = jnp.minimum(x, 50.0)
    return _log_i0e(x), dx * jnp.where(x > 50.0, -series, i1e(near) / i0e(near) - 1)


def kumaraswamy(fn: dist.Kumaraswamy, value: Array) -> Array:
    """`dist.Kumaraswamy`: 1 - x^a by its logarithm, near both ends."""
    value, a, b = same_rank(value, fn.concentration1, fn.concentration0)
    log_value = jnp.log(value)
    return jnp.log(a) + jnp.log(b) + xlogy(a - 1, value) + (b - 1) * jnp.log(-jnp.expm1(a * log_value))


def same_rank(*arrays: ArrayLike) -> tuple[Any, ...]:
    """The arrays with leading axes of length 1 added, so that they broadcast without rank promotion.

    Scalars stay what they are: they broadcast anyway, and a Python number keeps its weak type.
    """
    rank = max(jnp.ndim(array) for array in arrays)
    return tuple(
        jnp.reshape(array, (1,) * (rank - jnp.ndim(array)) + jnp.shape(array)) if jnp.ndim(array) else array
        for array in arrays
    )


def floats(*arrays: ArrayLike) -> tuple[Any, ...]:
    """The arrays as floats of one type, and of one rank so that they broadcast. What all share stays one number."""
    dtype = jnp.result_type(*arrays, float)
    return same_rank(*(jnp.asarray(array, dtype) for array in arrays))
