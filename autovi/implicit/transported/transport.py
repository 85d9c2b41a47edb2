"""Draws z = T(noise; theta) of Gamma, Beta and Dirichlet through noise whose density still depends on theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import gammaln

from autovi.distributions import registry
from autovi.distributions.special import digamma_gap
from autovi.implicit.attach import attach
from autovi.implicit.numerics.sampling import fraction, positive_below_one, scaled_exp

TRANSPORTED = ("Gamma", "Beta", "Dirichlet")


class Transport(NamedTuple):
    """A map from noise to gammas. Both functions give the draws, which move with the parameters while the noise stands
    still, and log pi(noise; theta), whose gradient is what such a draw leaves out.

    `gamma(rng_key, a)`: log(z/a), z ~ Gamma(a, 1), and log pi, elementwise.
    `simplex(rng_key, a)`: for concentrations `[..., K]` the logits `[..., K]` of a Dirichlet, which their softmax is,
    and log pi `[...]`.
    """

    gamma: Callable[[Array, Array], tuple[Array, Array]]
    simplex: Callable[[Array, Array], tuple[Array, Array]]


def draw(rng_key: Array, fn: Any, transport: Transport) -> tuple[Array, Array]:
    """A draw of `fn`, of shape `fn.shape()`, and log pi(noise; theta) of its noise, of shape `fn.batch_shape`.

    d/dtheta E f(z) = E f'(z) dT/dtheta + E f(z) d/dtheta log pi(noise; theta), pi the density that makes z = T(noise;
    theta) have the distribution of `fn`: q(T; theta) |dT/dnoise|. Ruiz, Titsias and Blei (2016), "The Generalized
    Reparameterization Gradient".

    Raises:
        TypeError: `fn` without its wrappers is no Gamma, Beta or Dirichlet.
    """
    inside = registry.strip(fn)
    if type(inside) not in _DRAW:
        raise TypeError(f"{type(inside).__name__}: expected one of {', '.join(TRANSPORTED)}")
    full = fn.shape()
    value, log_noise = _DRAW[type(inside)](rng_key, inside, full[: len(full) - inside.event_dim], transport)
    own = fn.event_dim - inside.event_dim  # dimensions that `Independent` joins
    return value, jnp.sum(log_noise, tuple(range(-own, 0))) if own else log_noise


def _gamma(rng_key: Array, fn: dist.Gamma, shape: tuple[int, ...], transport: Transport) -> tuple[Array, Array]:
    concentration, rate = _floating(fn.concentration, fn.rate)
    log_ratio, log_noise = transport.gamma(rng_key, jnp.broadcast_to(concentration, shape))
    return scaled_exp(log_ratio, jnp.broadcast_to(concentration / rate, shape)), log_noise


def _beta(rng_key: Array, fn: dist.Beta, shape: tuple[int, ...], transport: Transport) -> tuple[Array, Array]:
    both = [jnp.broadcast_to(c, shape) for c in _floating(fn.concentration1, fn.concentration0)]
    logits, log_noise = transport.simplex(rng_key, jnp.stack(both, axis=-1))
    return fraction(logits[..., 0] - logits[..., 1]), log_noise


def _dirichlet(rng_key: Array, fn: dist.Dirichlet, shape: tuple[int, ...], transport: Transport) -> tuple[Array, Array]:
    (concentration,) = _floating(fn.concentration)
    logits, log_noise = transport.simplex(rng_key, jnp.broadcast_to(concentration, shape + fn.event_shape))
    return positive_below_one(jax.nn.log_softmax(logits, axis=-1)), log_noise


_DRAW: dict[type, Callable[..., tuple[Array, Array]]] = {
    dist.Gamma: _gamma,
    dist.Beta: _beta,
    dist.Dirichlet: _dirichlet,
}


def _floating(*parameters: Any) -> list[Array]:
    dtype = jnp.result_type(*parameters, float)
    return [jnp.asarray(p, dtype) for p in parameters]


def stirling(a: Array) -> Array:
    """`a log a - a - log Gamma(a)` for a > 0, with the derivative `log a - digamma(a)` to the last digits."""
    value = a * jnp.log(a) - a - gammaln(a)
    return attach(value, a, lambda a, value, moving: digamma_gap(a) * moving)
