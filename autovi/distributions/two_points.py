"""Expectations at two points: E_q log p = (log p(x) + log p(y)) / 2, exactly, for every p of q's kind.

The log density of such a p is c + h . T(x) with the sufficient statistics T that q has, so that it is enough that x and
y have the mean of T that q has. Nothing is asked of p but its values, whatever its parameters, and where p is narrow
nothing large cancels. For a normal x and y are the mean plus and minus a standard deviation; the others are like it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import i0e, i1e, logsumexp
from numpyro.distributions import Distribution

from autovi.distributions.registry import strip
from autovi.distributions.special import digamma_gap

Pair = tuple[Array, Array]


def normal(q: Distribution) -> Pair:
    """x and x^2, whatever the correlations: of a prior that is a product, two points for each number are enough."""
    deviation = jnp.sqrt(q.variance)
    return q.mean + deviation, q.mean - deviation


def log_normal(q: dist.LogNormal) -> Pair:
    """log x and its square."""
    return jnp.exp(q.loc + q.scale), jnp.exp(q.loc - q.scale)


def gamma(q: dist.Gamma | dist.Exponential) -> Pair:
    """x and log x: m (1 + u) and m (1 - u) with the mean m, and log (1 - u^2) = 2 (E log x - log m)."""
    shape = q.concentration if isinstance(q, dist.Gamma) else jnp.ones_like(q.rate)
    product = -jnp.expm1(-2 * digamma_gap(shape))  # u^2
    u, mean = jnp.sqrt(product), shape / q.rate
    return mean * (1 + u), mean * (1 - product) / (1 + u)


def inverse_gamma(q: dist.InverseGamma) -> Pair:
    """1 / x and log x."""
    x, y = gamma(q.base_dist)
    return 1 / x, 1 / y


def beta(q: dist.Beta) -> Pair:
    """log x and log (1 - x)."""
    low, high = dirichlet(dist.Dirichlet(jnp.stack(jnp.broadcast_arrays(q.concentration1, q.concentration0), -1)))
    # As of draws, the complement has a logarithm: in float32 that counts for second concentrations under 0.12.
    most = 1 - jnp.finfo(low.dtype).epsneg
    return jnp.minimum(low[..., 0], most), jnp.minimum(high[..., 0], most)


def dirichlet(q: dist.Dirichlet) -> Pair:
    """log x_k: the product of both points is g^2, g = exp E log x. The likeliest element stands against all others,
    which keep their proportions: with the sums A and B of g in the two, the first has (1 + A^2 - B^2 + sqrt D) / 2 of
    the one point, D = (1 - (A + B)^2) (1 - (A - B)^2), and the others have that with A for B of the other point."""
    a = jnp.asarray(q.concentration, jnp.result_type(q.concentration, float))
    total = jnp.sum(a, -1, keepdims=True)
    below = digamma_gap(total) - digamma_gap(a)  # E log x - log E x
    log_g = jnp.log(a / total) + below
    first = jnp.arange(a.shape[-1]) == jnp.argmax(a, -1, keepdims=True)
    log_one, log_rest = (logsumexp(jnp.where(own, log_g, -jnp.inf), -1, keepdims=True) for own in (first, ~first))
    one, rest = jnp.exp(log_one), jnp.exp(log_rest)
    missing = -jnp.sum(a / total * jnp.expm1(below), -1, keepdims=True)  # 1 - A - B, which is small
    root = jnp.sqrt(missing * (2 - missing) * (1 - (one - rest) ** 2))
    larger = lambda own, other: jnp.log((1 + own**2 - other**2 + root) / 2)  # noqa: E731
    up = jnp.where(first, larger(one, rest) - log_one, log_rest - larger(rest, one))
    least = jnp.log(jnp.finfo(a.dtype).tiny / jnp.finfo(a.dtype).eps)  # its reciprocal is a number too
    return jnp.exp(jnp.maximum(log_g + up, least)), jnp.exp(jnp.maximum(log_g - up, least))


def von_mises(q: dist.VonMises) -> Pair:
    """cos x and sin x: the mean direction plus and minus the angle whose cosine is E cos (x - loc) = I1 / I0."""
    length = i1e(q.concentration) / i0e(q.concentration)
    angle = jnp.arctan2(jnp.sqrt((1 - length) * (1 + length)), length)
    return q.loc + angle, q.loc - angle


NORMALS = ("Normal", "MultivariateNormal", "LowRankMultivariateNormal")
GAMMAS = ("Gamma", "Exponential", "Chi2")
BETAS = ("Beta", "BetaProportion")

# Of q's class: its two points, and the classes of the p that have its sufficient statistics.
POINTS: dict[str, tuple[Callable[..., Pair], tuple[str, ...]]] = {
    **dict.fromkeys(NORMALS, (normal, ("Normal",))),
    "LogNormal": (log_normal, ("LogNormal",)),
    **dict.fromkeys(GAMMAS, (gamma, GAMMAS)),
    "InverseGamma": (inverse_gamma, ("InverseGamma",)),
    **dict.fromkeys(BETAS, (beta, BETAS)),
    "Dirichlet": (dirichlet, ("Dirichlet",)),
    "VonMises": (von_mises, ("VonMises",)),
}


def serves(q: str, p: str) -> bool:
    """Are two points of a q of this class enough for a p of that?"""
    return q in POINTS and p in POINTS[q][1]


def two_points(q: Distribution) -> Pair | None:
    """Two values of the shape of a draw; None where they are not known."""
    inside = strip(q)
    is_normal = isinstance(inside, dist.Normal | dist.MultivariateNormal | dist.LowRankMultivariateNormal)
    kind = "Normal" if is_normal else type(inside).__name__  # the engine's own normals are subclasses
    if kind not in POINTS:
        return None
    x, y = POINTS[kind][0](inside)
    return jnp.broadcast_to(x, q.shape()), jnp.broadcast_to(y, q.shape())
