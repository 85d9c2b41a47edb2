"""Log densities of hurdle and zero-inflated counts, and a hurdle Poisson whose sampler does not reject."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions.counts import gamma_poisson, poisson
from autovi.distributions.formulas import floats


class HurdlePoissonLogits(dist.HurdleLogits):
    """NumPyro's `HurdleLogits` of a Poisson, which draws its positive counts without redrawing zeros.

    Of arrivals at a rate of 1 in a time `rate`, at least one, the first is at t = -log(1 - u (1 - exp(-rate))), u
    uniform, and a Poisson number of mean rate - t come later.
    """

    def __init__(self, rate: Any, gate_logits: Any):
        super().__init__(dist.Poisson(rate, validate_args=False), gate_logits, validate_args=False)

    def log_prob(self, value: Any) -> Array:
        return hurdle(self, jnp.asarray(value))

    def _sample_truncated(self, key: Array, sample_shape: tuple[int, ...]) -> Array:
        first, later = jax.random.split(key)
        rate = jnp.broadcast_to(self.base_dist.mean, sample_shape + self.batch_shape)
        uniform = jax.random.uniform(first, rate.shape, rate.dtype)
        at = -jnp.log1p(uniform * jnp.expm1(-rate))
        return 1 + jax.random.poisson(later, jnp.maximum(rate - at, 0.0), rate.shape)


def zero_inflated(fn: Any, value: Array) -> Array:
    """`dist.ZeroInflatedProbs`, `dist.ZeroInflatedLogits`, `dist.ZeroInflatedPoisson`."""
    log_gate, log_open = _log_gate(fn)
    base = _base_density(fn.base_dist, value)
    behind = log_open + base
    at_zero = jnp.logaddexp(log_gate, behind)
    if not isinstance(fn, dist.ZeroInflatedLogits):
        # Where the gate is surely open or closed, that has no derivative in it.
        (gate,) = floats(fn.gate)
        sum_ = gate + (1 - gate) * jnp.exp(base)
        sure = ((gate == 0) | (gate == 1)) & (sum_ > 0)
        at_zero = jnp.where(sure, jnp.log(jnp.where(sure, sum_, 1)), at_zero)
    return jnp.where(value == 0, at_zero, behind)


def hurdle(fn: Any, value: Array) -> Array:
    """`dist.HurdleProbs`, `dist.HurdleLogits`, `dist.HurdlePoisson` of counts or of positive numbers."""
    log_gate, log_open = _log_gate(fn)
    behind = log_open + _base_density(fn.base_dist, jnp.where(value == 0, jnp.ones_like(value), value))
    if fn.base_dist.support.is_discrete:
        behind -= jax.nn.log1mexp(-_base_density(fn.base_dist, jnp.zeros_like(value)))
    return jnp.where(value == 0, log_gate, behind)


def _log_gate(fn: Any) -> tuple[Array, Array]:
    """log g and log(1 - g), with a derivative of zero where they are minus infinity: a gate that has come so near to
    its end that it is rounded to it is no reason for the density of the other value to have no derivative."""
    if isinstance(fn, dist.ZeroInflatedLogits | dist.HurdleLogits):
        return jax.nn.log_sigmoid(fn.gate_logits), jax.nn.log_sigmoid(-fn.gate_logits)
    (gate,) = floats(fn.gate)
    log_gate = jnp.where(gate == 0, -jnp.inf, jnp.log(jnp.where(gate == 0, 1, gate)))
    return log_gate, jnp.where(gate == 1, -jnp.inf, jnp.log1p(-jnp.where(gate == 1, 0, gate)))


def _base_density(fn: Any, value: Array) -> Array:
    while isinstance(fn, dist.ExpandedDistribution):
        fn = fn.base_dist
    if type(fn) is dist.Poisson:
        return poisson(fn, value)
    if type(fn) in (dist.GammaPoisson, dist.NegativeBinomial2, dist.NegativeBinomialProbs):
        return gamma_poisson(fn, value)
    return jnp.asarray(fn.log_prob(value))
