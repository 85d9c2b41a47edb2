"""Derivatives of distributions as differences of two distributions, which can be drawn from.

dq/dt = c (q+ - q-), so that d/dt E f(z) = c (E f(z+) - E f(z-)) for any f: Pflug (1996), "Optimization of Stochastic
Models"; Mohamed, Rosca, Figurnov and Mnih (2020), "Monte Carlo Gradient Estimation in Machine Learning", table 1. Where
q+ and q- have no finite mass between them (the concentrations of gammas and what is made of them), z+ is z and one more
jump y of the gamma process, and c depends on the jump: d/da E f(z) = E [(f(z + y) - f(z)) sqrt(2 pi) / |n|] with
y = n^2 / (2 rate) and n normal, since the jumps y have the measure exp(-rate y) / y.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from autovi.distributions import registry


class Pair(NamedTuple):
    """Draws z+ and z- and c, for one parameter. z- None: the draw itself."""

    up: Array
    down: Array | None
    constant: Array


class Weak(NamedTuple):
    """`parameters(q)` are those that the distribution has, with their gradient; `pairs(key, q, value)` what the
    derivative in each of them is made of, in that order, given a draw."""

    parameters: Callable[[Any], tuple[Array, ...]]
    pairs: Callable[[Array, Any, Array], tuple[Pair, ...]]


def weak_derivative(fn: dist.Distribution) -> tuple[Weak, Any]:
    """The row of a distribution and the distribution inside its wrappers; a subclass has its parent's."""
    inside = registry.strip(fn)
    rows = (WEAK_DERIVATIVES[kind.__name__] for kind in type(inside).__mro__ if kind.__name__ in WEAK_DERIVATIVES)
    return next(rows), inside


def _half(q: Any) -> tuple[Array, ...]:
    return (q.scale,)


def _normal_parameters(q: Any) -> tuple[Array, ...]:
    return q.mean, jnp.sqrt(q.variance)


def _located(q: Any) -> tuple[Array, ...]:
    return q.loc, q.scale


def _maxwell(key: Array, value: Array) -> tuple[Array, Array]:
    """The length of a normal vector of three numbers, and that of a normal number in the same sense far out."""
    one, two = jax.random.split(key)
    length = jnp.linalg.norm(jax.random.normal(one, (3, *value.shape), value.dtype), axis=0)
    return length, length * jax.random.uniform(two, value.shape, value.dtype)


def _normal(key: Array, loc: Array, scale: Array, value: Array) -> tuple[Pair, ...]:
    keys = jax.random.split(key, 3)
    rayleigh = jnp.sqrt(2 * jax.random.exponential(keys[0], value.shape, value.dtype))
    sign = jax.random.rademacher(keys[1], value.shape, value.dtype)
    maxwell, normal = _maxwell(keys[2], value)
    moved = Pair(loc + scale * rayleigh, loc - scale * rayleigh, 1 / (scale * np.sqrt(2 * np.pi)))
    return moved, Pair(loc + scale * sign * maxwell, loc + scale * sign * normal, 1 / scale)


def _log_normal(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    pairs = _normal(key, q.loc, q.scale, value)
    return tuple(Pair(jnp.exp(p.up), None if p.down is None else jnp.exp(p.down), p.constant) for p in pairs)


def _half_normal(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    maxwell, normal = _maxwell(key, value)
    return (Pair(q.scale * maxwell, q.scale * normal, 1 / q.scale),)


def _laplace(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    away = value - q.loc
    farther = jnp.where(away < 0, -1, 1) * q.scale * jax.random.exponential(key, value.shape, value.dtype)
    moved = Pair(q.loc + jnp.abs(away), q.loc - jnp.abs(away), 1 / (2 * q.scale))
    return moved, Pair(value + farther, None, 1 / q.scale)


def _exponential(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    return (Pair(value, value + jax.random.exponential(key, value.shape, value.dtype) / q.rate, 1 / q.rate),)


def _jump(key: Array, like: Array) -> tuple[Array, Array]:
    """A jump of the gamma process of rate 1, and the constant that goes with it."""
    # A normal that is 0 would be an infinite constant times no difference.
    size = jnp.maximum(jnp.abs(jax.random.normal(key, like.shape, like.dtype)), 1e-6)
    return size**2 / 2, np.sqrt(2 * np.pi) / size


def _gamma(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    one, two = jax.random.split(key)
    jump, constant = _jump(one, value)
    more = jax.random.exponential(two, value.shape, value.dtype) / q.rate
    return Pair(value + jump / q.rate, None, constant), Pair(value, value + more, q.concentration / q.rate)


def _inverse_gamma(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    pairs = _gamma(key, q, 1 / value)
    return tuple(Pair(1 / p.up, None if p.down is None else 1 / p.down, p.constant) for p in pairs)


def _beta(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    """The share of one gamma in two; their sum is independent of it."""
    total, one, two = jax.random.split(key, 3)
    both = jax.random.gamma(total, q.concentration1 + q.concentration0, value.shape, value.dtype)
    (jump, constant), (other, its_constant) = _jump(one, value), _jump(two, value)
    more = (value * both + jump) / (both + jump)
    return Pair(more, None, constant), Pair(value * both / (both + other), None, its_constant)


def _weibull(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    """z = scale w^(1 / k), w exponential: in log w a scale family, whose q+ is `_spread_log_exponential`."""
    one, two = jax.random.split(key)
    w = (value / q.scale) ** q.concentration
    more = q.scale * (w + jax.random.exponential(one, value.shape, value.dtype)) ** (1 / q.concentration)
    below, at = _spread_log_exponential()
    spread = jnp.interp(jax.random.uniform(two, value.shape, value.dtype), below.astype(value.dtype), at)
    wider = q.scale * jnp.exp(spread.astype(value.dtype) / q.concentration)
    # d/dk = -(1 / k^2) d/ds in the scale s = 1 / k, whose constant is 1 / s.
    return Pair(more, None, q.concentration / q.scale), Pair(value, wider, 1 / q.concentration)


@cache
def _spread_log_exponential() -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of the density x (e^x - 1) exp(x - e^x), on a grid: linear between, to 1e-6."""
    at = np.linspace(-40.0, 5.0, 30_001)
    density = at * np.expm1(at) * np.exp(at - np.exp(at))
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return below / below[-1], at


def _bernoulli(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    one = jnp.ones_like(value)
    return (Pair(one, jnp.zeros_like(value), jnp.ones(value.shape)),)


def _binomial(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    fewer = dist.Binomial(jnp.maximum(q.total_count - 1, 0), q.probs).expand(value.shape)(rng_key=key)
    fewer = fewer.astype(value.dtype)
    return (Pair(jnp.minimum(fewer + 1, q.total_count).astype(value.dtype), fewer, 1.0 * q.total_count),)


def _geometric_below(key: Array, log_failure: Array, like: Array) -> Array:
    """Failures before a success, of log probability `log_failure` each."""
    waiting = jax.random.exponential(key, like.shape, jnp.result_type(log_failure))
    return jnp.floor(waiting / -log_failure).astype(like.dtype)


def _geometric(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    more = _geometric_below(key, jnp.log1p(-q.probs), value)
    return (Pair(value, value + 1 + more, 1 / q.probs),)


def _negative_binomial(key: Array, q: Any, value: Array) -> tuple[Pair, ...]:
    """A Poisson number of logarithmic counts, more of them with the concentration. Kemp (1981), "Efficient Generation
    of Logarithmically Distributed Pseudo-Random Variables", for these."""
    one, two, three = jax.random.split(key, 3)
    kept = jnp.log1p(1 / q.rate)  # minus the log probability of a success
    chance = jax.random.uniform(one, value.shape, kept.dtype)
    count = 1 + _geometric_below(two, jnp.log1p(-jnp.exp(-chance * kept)), value)
    more = _geometric_below(three, -jnp.log1p(q.rate), value)
    slope = q.concentration / (q.rate * (1 + q.rate))
    return Pair(value + count, None, kept), Pair(value, value + 1 + more, slope)


def _of_gamma(q: Any) -> tuple[Array, ...]:
    return q.concentration, q.rate


_GAMMA = Weak(_of_gamma, _gamma)
_COUNTS = Weak(_of_gamma, _negative_binomial)
_CHANCE = Weak(lambda q: (q.probs,), _bernoulli)
_TRIALS = Weak(lambda q: (q.probs,), _binomial)
_FAILURES = Weak(lambda q: (q.probs,), _geometric)
_SHARE = Weak(lambda q: (q.concentration1, q.concentration0), _beta)

# | q | parameter | z+ and z- | c |
WEAK_DERIVATIVES: dict[str, Weak] = {
    # p: 1 and 0; 1
    "BernoulliLogits": _CHANCE,
    "BernoulliProbs": _CHANCE,
    # concentrations: z is x / (x + x'); x or x' with a jump more, and z
    "Beta": _SHARE,
    "BetaProportion": _SHARE,
    # p: b + 1 and b of one trial less; number of trials
    "BinomialLogits": _TRIALS,
    "BinomialProbs": _TRIALS,
    "Chi2": _GAMMA,
    # rate: z and z + z', z' another draw; 1 / rate
    "Exponential": Weak(lambda q: (q.rate,), _exponential),
    # concentration: a jump more, and z; rate: z and z + an exponential of that rate; concentration / rate
    "Gamma": _GAMMA,
    # concentration r: z and a logarithmic count more, and z; log(1 + 1 / rate).
    # rate b: z and z + 1 + a geometric count; r / (b (1 + b))
    "GammaPoisson": _COUNTS,
    # p: z and z + 1 + z', z' another draw; 1 / p
    "GeometricLogits": _FAILURES,
    "GeometricProbs": _FAILURES,
    # scale: scale times a Maxwell, and a half-normal; 1 / scale
    "HalfNormal": Weak(_half, _half_normal),
    # as of the gamma that it is the inverse of
    "InverseGamma": Weak(_of_gamma, _inverse_gamma),
    # loc: loc + |z - loc| and loc - |z - loc|; 1 / (2 scale). scale: an exponential farther out, and z; 1 / scale
    "Laplace": Weak(_located, _laplace),
    # exp of the normal's
    "LogNormal": Weak(_located, _log_normal),
    "NegativeBinomial2": _COUNTS,
    "NegativeBinomialLogits": _COUNTS,
    "NegativeBinomialProbs": _COUNTS,
    # loc: loc + scale W and loc - scale W, W Rayleigh; 1 / (scale sqrt(2 pi)).
    # scale: loc + scale M and loc + scale N, M double-sided Maxwell, N normal; 1 / scale
    "Normal": Weak(_normal_parameters, lambda key, q, value: _normal(key, q.mean, jnp.sqrt(q.variance), value)),
    # rate: z + 1 and z; 1
    "Poisson": Weak(lambda q: (q.rate,), lambda key, q, value: (Pair(value + 1, None, jnp.ones(value.shape)),)),
    # scale: w^k + an exponential more, and z; k / scale. concentration k: z, and scale exp(x / k); 1 / k
    "Weibull": Weak(lambda q: (q.scale, q.concentration), _weibull),
}
