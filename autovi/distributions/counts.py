"""Log densities of counts, relative to the parameters at which the count is what is expected.

A count of k has log densities of size k log k whose sum is a few nats. Taken relative to the parameters that expect it,
which are made of data alone, they are small as they are computed, and cost what the plain formulas cost.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions.deviance import against_expected, gamma_remainder, gap
from autovi.distributions.error_free import Exact, two_sum
from autovi.distributions.formulas import bernoulli_sum, floats, log_binomial_coefficient, log_shares

_LONGEST = 80.0  # log-odds: the exponential of more is infinite in float32


def poisson(fn: dist.Poisson, value: Array) -> Array:
    """`dist.Poisson`, also between its values."""
    if fn.is_sparse:
        return fn.log_prob(value)
    value, rate = floats(value, fn.rate)
    return _poisson(value, rate)


@jax.custom_jvp
def _poisson(count: Array, rate: Array) -> Array:
    none = count <= 0
    seen = jnp.where(none, 1.0, count)
    excess = jnp.log(rate) - jnp.log(seen)
    relative = seen * (excess - jnp.expm1(excess)) - jnp.log(seen) - gamma_remainder(seen)
    return jnp.where(none, -rate, relative)


@_poisson.defjvp
def _poisson_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (count, rate), (dcount, drate) = primals, tangents
    # At a rate of 0 a count is impossible, so that nothing moves with it: an infinite derivative would make NaN of a
    # branch that has no weight.
    slope = jnp.where(count == 0, -1.0, (count - rate) / jnp.where(rate == 0, jnp.inf, rate))
    log_rate = jnp.log(jnp.where(rate == 0, 1.0, rate))
    return _poisson(count, rate), drate * slope + dcount * (log_rate - jax.scipy.special.digamma(count + 1))


def binomial_logits(fn: dist.BinomialLogits, value: Array) -> Array:
    """`dist.BinomialLogits`, also between its values."""
    return _binomial(*floats(value, fn.total_count, fn.logits))


def binomial_probs(fn: dist.BinomialProbs, value: Array) -> Array:
    """`dist.BinomialProbs`, also between its values."""
    value, trials, probs = floats(value, fn.total_count, fn.probs)
    log_probs, log_rest = log_shares(probs)
    return _binomial(value, trials, log_probs - log_rest)


@jax.custom_jvp
def _binomial(value: Array, trials: Array, logits: Array) -> Array:
    none = trials <= 0
    trials, value = jnp.where(none, 1.0, trials), jnp.where(none, 0.0, value)
    # The reference: the share seen, moved inside where all or none are.
    share = jnp.clip(value, 0.5, trials - 0.5) / trials
    other = jnp.clip(trials - value, 0.5, trials - 0.5) / trials
    moved = logits - (jnp.log(share) - jnp.log(other))
    # The rarer of the two outcomes, whose terms are the smaller ones.
    rare = share <= 0.5
    number, base, moved = jnp.where(rare, value, trials - value), jnp.where(rare, share, other), _sign(rare) * moved
    beyond = jnp.maximum(moved - _LONGEST, 0.0)
    relative = number * moved - trials * (jnp.log1p(base * jnp.expm1(moved - beyond)) + beyond)
    return jnp.where(none, 0.0, relative + _binomial_at_share(value, trials))


def _sign(positive: Array) -> Array:
    return jnp.where(positive, 1.0, -1.0)


def _binomial_at_share(value: Array, trials: Array) -> Array:
    """The log density at the reference: of data alone."""
    rest = trials - value
    inside = (value > 0) & (rest > 0)
    k, r, n = (jnp.where(inside, x, 1.0) for x in (value, rest, trials))
    within = jnp.log(n) - jnp.log(k) - jnp.log(r) + gamma_remainder(n) - gamma_remainder(k) - gamma_remainder(r)
    return jnp.where(inside, within, trials * jnp.log1p(-0.5 / trials))


@_binomial.defjvp
def _binomial_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    plain = lambda value, trials, logits: (  # noqa: E731
        bernoulli_sum(value, trials, logits) + log_binomial_coefficient(trials, value)
    )
    return _binomial(*primals), jax.jvp(plain, primals, tangents)[1]


def gamma_poisson(fn: dist.GammaPoisson, value: Array) -> Array:
    """`dist.GammaPoisson`, `dist.NegativeBinomial2`, `dist.NegativeBinomialProbs`."""
    value, concentration, rate = floats(value, fn.concentration, fn.rate)
    none = value <= 0
    count = jnp.where(none, 1.0, value)
    one = Exact.of(jnp.ones_like(rate))
    kept, lost = 1 / (1 + 1 / rate), 1 / (1 + rate)
    # A negative binomial is to its two shares what a beta is.
    total = two_sum(count, concentration)
    above = gap(Exact.of(rate), count, concentration, one) * lost
    relative = against_expected(total, kept, concentration, one, above) + jnp.log(kept)
    relative += against_expected(total, lost, count, one, -above) + jnp.log(lost) - jnp.log(count)
    relative += gamma_remainder(total.high) - gamma_remainder(concentration) - gamma_remainder(count)
    return jnp.where(none, -concentration * jnp.log1p(1 / rate), relative)
