"""Log densities made of gamma functions, equal to NumPyro's and accurate for concentrations of any size."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.distributions.deviance import against_expected, gamma_remainder, gap
from autovi.distributions.error_free import Exact, sum_of, two_sum
from autovi.distributions.formulas import floats


def gamma(fn: dist.Gamma, value: Array) -> Array:
    """`dist.Gamma`, `dist.Chi2`."""
    value, concentration, rate = floats(value, fn.concentration, fn.rate)
    one = Exact.of(jnp.ones_like(rate))
    rate = Exact.of(rate)
    seen = against_expected(rate, value, concentration, one, gap(rate, value, concentration, one))
    return seen - gamma_remainder(concentration)


def inverse_gamma(fn: dist.InverseGamma, value: Array) -> Array:
    """`dist.InverseGamma`: its reciprocal has a gamma density."""
    value, concentration, rate = floats(value, fn.concentration, fn.rate)
    # Over what is expected, 1 / value is rate / (concentration value).
    rate, one, divisor = Exact.of(rate), jnp.ones_like(value), Exact.of(value)
    seen = against_expected(rate, one, concentration, divisor, gap(rate, one, concentration, divisor))
    return seen - jnp.log(value) - gamma_remainder(concentration)


def beta(fn: dist.Beta, value: Array) -> Array:
    """`dist.Beta`, `dist.BetaProportion`."""
    value, first, second = floats(value, fn.concentration1, fn.concentration0)
    total, one = two_sum(first, second), Exact.of(jnp.ones_like(value))
    above = gap(total, value, first, one)  # what one side has too much, the other has too little
    seen = against_expected(total, value, first, one, above) + against_expected(total, 1 - value, second, one, -above)
    return seen - gamma_remainder(first) - gamma_remainder(second) + gamma_remainder(total.high)


def dirichlet(fn: dist.Dirichlet, value: Array) -> Array:
    """`dist.Dirichlet`; a value whose elements do not quite add up to 1 counts as the point of the simplex it means."""
    value, concentration = floats(value, fn.concentration)
    total, whole = sum_of(concentration), sum_of(value)
    seen = against_expected(total, value, concentration, whole, gap(total, value, concentration, whole))
    return jnp.sum(seen - gamma_remainder(concentration), axis=-1) + gamma_remainder(total.high)[..., 0]
