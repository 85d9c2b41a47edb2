"""Log densities of observed values, equal to NumPyro's and cheaper, for the common likelihoods.

NumPyro's `log_prob` guards against values outside the support and against infinite parameters. Where the
observed values are known to lie inside the support, the guards only cost time: `log_density` leaves them
out. Two gradients also differ, on purpose, because NumPyro's are wrong there: at a logit of exactly 0 (where
a linear predictor starts), and at a Poisson rate of 0 with a count of 0.

Terms that hold data alone (log factorials) are subexpressions of `value` only, so that they can be moved out
of an optimization loop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.scipy.special import gammaln, logsumexp
from jax.typing import ArrayLike

Rule = Callable[[Any, Array], Array]


def log_density(fn: dist.Distribution, value: ArrayLike) -> Array:
    """`fn.log_prob(value)` for a value known to be finite and inside the support of `fn`.

    `ExpandedDistribution`, `Independent` and `MaskedDistribution` are read through; a class without a row in
    `FAST` falls back to `fn.log_prob(value)`. Values may be integers, booleans or floats. A value outside the
    support is not detected: check data first, or use `fn.log_prob`.

    Args:
        fn: the distribution, batch shape `B` and event shape `E`.
        value: shape `(..., *E)`, its batch part broadcasting with `B`. Masked elements may be anything.

    Returns:
        The log density, shape: the batch part of `value` broadcast with `B`.
    """
    return _by_table(FAST, fn, value)


def relaxed_log_density(fn: dist.Distribution, value: ArrayLike) -> Array:
    """NumPyro's formula of `fn.log_prob(value)`, without its check, for any value between those of a discrete support.

    Linear in the value for a Bernoulli: `value * logits - log(1 + exp(logits))`. Arguments and shape as for
    `log_density`.
    """
    return _by_table(RELAXED, unvalidated(fn), value)


def _by_table(rules: Mapping[str, Rule], fn: dist.Distribution, value: ArrayLike) -> Array:
    name = type(fn).__name__
    # A subclass may have a log_prob of its own: rules are for NumPyro's classes themselves.
    known = getattr(dist, name, None) is type(fn)
    if known and name in _WRAPPERS:
        return _WRAPPERS[name](partial(_by_table, rules), fn, jnp.asarray(value))
    if known and name in rules:
        return rules[name](fn, jnp.asarray(value))
    return jnp.asarray(fn.log_prob(value))


def unvalidated(fn: dist.Distribution) -> dist.Distribution:
    """`fn` without its check that values are in the support, for values that need none."""
    fn = copy.copy(fn)
    fn._validate_args = False
    if isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        fn.base_dist = unvalidated(fn.base_dist)
    return fn


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`, to the last digits for every float, with gradient `sigmoid(x)`; any shape.

    Computed as `max(x, 0) + log1p(exp(-|x|))`. The gradient is given because automatic differentiation gets
    `x = 0` wrong. About half the time of `jax.nn.softplus`, which pays for the handling of NaN.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvps(lambda tangent, _, x: tangent * jax.nn.sigmoid(x))


@jax.custom_jvp
def _bernoulli_sum(successes: Array, trials: Array, logits: Array) -> Array:
    """`successes * logits - trials * softplus(logits)`, without cancellation between the two terms."""
    slope = jnp.where(logits > 0, successes - trials, successes)
    return slope * logits - trials * jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _bernoulli_sum_in_logits(tangent: Array, _: Array, successes: Array, trials: Array, logits: Array) -> Array:
    # successes - trials * sigmoid(logits), arranged so that it stays accurate where the sigmoid is nearly 1.
    tail = jnp.exp(-jnp.abs(logits))
    expected = trials * tail / (1 + tail)
    return tangent * jnp.where(logits > 0, successes - trials + expected, successes - expected)


_bernoulli_sum.defjvps(
    lambda tangent, out, successes, trials, logits: jnp.broadcast_to(tangent * logits, out.shape),
    lambda tangent, out, successes, trials, logits: jnp.broadcast_to(-tangent * softplus(logits), out.shape),
    _bernoulli_sum_in_logits,
)


@jax.custom_jvp
def _count_log_rate(count: Array, rate: Array) -> Array:
    """`count * log(rate)`, 0 where the count is 0, whatever the rate."""
    # No second `where` guards the logarithm, so that XLA can cancel it against the `exp` of a log link.
    return jnp.where(count == 0, 0.0, count * jnp.log(rate))


_count_log_rate.defjvps(
    lambda tangent, _, count, rate: tangent * jnp.log(rate),
    lambda tangent, _, count, rate: tangent * count / jnp.where(count == 0, 1.0, rate),
)


def _bernoulli_logits(fn: dist.BernoulliLogits, value: Array) -> Array:
    value, logits = _same_rank(value, fn.logits)
    logits = jnp.asarray(logits, jnp.result_type(value, logits, float))
    return -softplus(jnp.where(value != 0, -logits, logits))


def _relaxed_bernoulli_logits(fn: dist.BernoulliLogits, value: Array) -> Array:
    float_type = jnp.result_type(value, fn.logits, float)
    value, logits = (jnp.asarray(array, float_type) for array in _same_rank(value, fn.logits))
    return _bernoulli_sum(value, jnp.ones((), float_type), logits)


def _bernoulli_probs(fn: dist.BernoulliProbs, value: Array) -> Array:
    float_type = jnp.result_type(float)
    value, probs = _same_rank(value.astype(float_type), fn.probs)
    limits = jnp.finfo(jnp.result_type(probs, float))
    probs = jnp.clip(probs, limits.tiny, 1.0 - limits.eps)  # NumPyro's clamp: keeps both logarithms finite
    return value * jnp.log(probs) + (1 - value) * jnp.log1p(-probs)


def _binomial_logits(fn: dist.BinomialLogits, value: Array) -> Array:
    value, trials, logits = _same_rank(value, fn.total_count, fn.logits)
    float_type = jnp.result_type(value, logits, float)
    value, trials, logits = (jnp.asarray(array, float_type) for array in (value, trials, logits))
    return _bernoulli_sum(value, trials, logits) + _log_binomial_coefficient(trials, value)


def _log_binomial_coefficient(trials: Array, value: Array) -> Array:
    return gammaln(trials + 1) - gammaln(value + 1) - gammaln(trials - value + 1)


def _categorical_logits(fn: dist.CategoricalLogits, value: Array) -> Array:
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


def _poisson(fn: dist.Poisson, value: Array) -> Array:
    if fn.is_sparse:
        return fn.log_prob(value)
    float_type = jnp.result_type(float)
    value, rate = _same_rank(value.astype(float_type), jnp.asarray(fn.rate, float_type))
    return _count_log_rate(value, rate) - rate - gammaln(value + 1)


def _normal(fn: dist.Normal, value: Array) -> Array:
    value, loc, scale = _same_rank(value, fn.loc, fn.scale)
    standard = (value - loc) / scale
    return -0.5 * standard**2 - (jnp.log(scale) + 0.5 * math.log(2 * math.pi))


def _expanded(density: Rule, fn: dist.ExpandedDistribution, value: Array) -> Array:
    batch = value.shape[: max(value.ndim - fn.event_dim, 0)]
    return jnp.broadcast_to(density(fn.base_dist, value), lax.broadcast_shapes(fn.batch_shape, batch))


def _independent(density: Rule, fn: dist.Independent, value: Array) -> Array:
    elements = density(fn.base_dist, value)
    return elements.sum(tuple(range(-fn.reinterpreted_batch_ndims, 0)))


def _masked(density: Rule, fn: dist.MaskedDistribution, value: Array) -> Array:
    mask = fn._mask  # NumPyro has no public name for it
    if mask is False:
        return jnp.asarray(fn.log_prob(value))
    if mask is True:
        return density(fn.base_dist, value)
    try:
        feasible = fn.support.feasible_like(value)
    except NotImplementedError:  # a support that names no point of its own
        return jnp.asarray(fn.log_prob(value))
    # Masked values are often NaN or fillers outside the support: replace them, or the gradient is NaN.
    kept, value, feasible = _same_rank(mask.reshape(mask.shape + (1,) * fn.event_dim), value, feasible)
    densities = density(fn.base_dist, jnp.where(kept, value, feasible))
    mask, densities = _same_rank(mask, densities)
    return jnp.where(mask, densities, 0.0)


def _same_rank(*arrays: ArrayLike) -> tuple[Any, ...]:
    """The arrays with leading axes of length 1 added, so that they broadcast without rank promotion.

    Scalars stay what they are: they broadcast anyway, and a Python number keeps its weak type.
    """
    rank = max(jnp.ndim(array) for array in arrays)
    return tuple(
        jnp.reshape(array, (1,) * (rank - jnp.ndim(array)) + jnp.shape(array)) if jnp.ndim(array) else array
        for array in arrays
    )


# Rules by class name: (distribution, value as an array) -> log density.
FAST: dict[str, Rule] = {
    "BernoulliLogits": _bernoulli_logits,
    "BernoulliProbs": _bernoulli_probs,
    "BinomialLogits": _binomial_logits,
    "CategoricalLogits": _categorical_logits,
    "Normal": _normal,
    "Poisson": _poisson,
}

# The rules that hold between the values of a support too. NumPyro's own Bernoulli has a wrong gradient at a logit of 0.
RELAXED: dict[str, Rule] = {
    **{name: FAST[name] for name in ("BernoulliProbs", "BinomialLogits", "Poisson")},
    "BernoulliLogits": _relaxed_bernoulli_logits,
}

# The same for wrappers: (density of what is inside, distribution, value) -> log density.
_WRAPPERS: dict[str, Callable[[Rule, Any, Array], Array]] = {
    "ExpandedDistribution": _expanded,
    "Independent": _independent,
    "MaskedDistribution": _masked,
}
