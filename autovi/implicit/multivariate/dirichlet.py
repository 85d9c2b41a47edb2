"""Dirichlet draws by gammas in log space, and the gradient of draws that came from elsewhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.numerics.sampling import positive_below_one, smallest
from autovi.implicit.univariate.beta import log_odds_velocity
from autovi.implicit.univariate.gamma import loggamma

# The elements of a draw stand on the first axis here: loops over a short last axis are slow.


def draw_dirichlet(rng_key: Array, fn: dist.Dirichlet, shape: tuple[int, ...]) -> Array:
    """Draws of a `Dirichlet`, of shape `shape + fn.event_shape`: independent gammas over their sum.

    All in logarithms, so that the gradient of log x is right also where x underflows: such an element is the smallest
    positive number and keeps the gradient of its logarithm.
    """
    concentration = _ahead(fn.concentration, len(shape))
    log_value = jax.nn.log_softmax(loggamma(rng_key, concentration, fn.event_shape + shape), 0)
    return jnp.moveaxis(positive_below_one(log_value), 0, -1)


def dirichlet_velocity(fn: dist.Dirichlet, value: Array, moving: dist.Dirichlet) -> Array:
    """d x for given draws: each element's share of what the elements before it have left moves by itself.

    The shares f_i = x_i / (x_i + ... + x_K) are independent, f_i ~ Beta(a_i, a_{i+1} + ... + a_K): a triangular
    standardization, of which the last element is the rest (Figurnov, Mohamed and Mnih, 2018, section 4). With
    y_i = logit f_i, d log x_i = (1 - f_i) dy_i - sum_{j<i} f_j dy_j.
    """
    value = _ahead(jnp.maximum(value, smallest(value.dtype)))
    concentration, speed = (_ahead(x, value.ndim - 1) for x in (fn.concentration, moving.concentration))
    first, rest = value[:-1], _after(value)
    shapes, speeds = (concentration[:-1], _after(concentration)), (speed[:-1], _after(speed))
    moved = log_odds_velocity(shapes, jnp.log(first) - jnp.log(rest), speeds)
    left, none = first + rest, jnp.zeros_like(value[:1])
    lost = jnp.cumsum(jnp.concatenate([none, first / left * moved]), 0)
    return jnp.moveaxis(value * (jnp.concatenate([rest / left * moved, none]) - lost), 0, -1)


def _ahead(x: Array, ndim: int | None = None) -> Array:
    """The last axis first, before `ndim` axes."""
    x = jnp.moveaxis(jnp.asarray(x), -1, 0)
    return x.reshape(x.shape[0], *(1,) * ((x.ndim - 1 if ndim is None else ndim) - (x.ndim - 1)), *x.shape[1:])


def _after(x: Array) -> Array:
    """The sum of the elements after each but the last."""
    return jnp.flip(jnp.cumsum(jnp.flip(x[1:], 0), 0), 0)
