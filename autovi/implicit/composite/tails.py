"""The mass on either side of a value, each with its own digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betainc, erfc, expit, gammainc, gammaincc

from autovi.distributions import registry
from autovi.implicit.composite.supports import moved_inside
from autovi.implicit.dispatch import velocity
from autovi.implicit.generic.by_log_prob import tails_by_log_prob
from autovi.implicit.generic.rules import cdf_velocity, generic_rule
from autovi.implicit.rule import is_plain_transformed

_SQRT_2 = 2.0**0.5


def tails(fn: Any, value: Array) -> tuple[Array, Array]:
    """F(z) and 1 - F(z) of a univariate distribution, whose derivatives are `p (dz - velocity)` and its negative.

    So every distribution whose draws can be differentiated has tails that can be, whatever its `cdf` can do.
    """
    leaves, treedef = jax.tree.flatten(fn)
    return _attached(partial(jax.tree.unflatten, treedef), leaves, value)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attached(build: Callable, leaves: list[Array], value: Array) -> tuple[Array, Array]:
    return _tails(build(leaves), value)


@_attached.defjvp
def _move(build: Callable, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (leaves, value), (leaves_moving, value_moving) = primals, tangents
    fn = build(leaves)
    rate = jnp.exp(fn.log_prob(value)) * (value_moving - velocity(fn, value, build(leaves_moving)))
    return _attached(build, leaves, value), (rate, -rate)


def _tails(fn: Any, value: Array) -> tuple[Array, Array]:
    for cls, sides in _SIDES.items():
        if isinstance(fn, cls) and type(fn).log_prob is cls.log_prob:
            return sides(fn, value)
    if isinstance(fn, (dist.MixtureSameFamily, dist.MixtureGeneral)):
        return _mixed(fn, value)
    if is_plain_transformed(fn):
        return _through_transforms(fn, value)
    if registry.is_listed(fn):
        usable = type(fn).cdf not in (dist.Distribution.cdf, dist.TransformedDistribution.cdf)
    else:
        usable = generic_rule(fn).velocity is cdf_velocity
    if not usable:
        return tails_by_log_prob(fn, value)
    below = fn.cdf(value)
    return below, 1 - below


def _through_transforms(fn: Any, value: Array) -> tuple[Array, Array]:
    sign = 1
    for transform in reversed(fn.transforms):
        value, sign = transform.inv(value), sign * transform.sign
    below, above = tails(fn.base_dist, value)
    return jnp.where(sign < 0, above, below), jnp.where(sign < 0, below, above)


def _mixed(fn: Any, value: Array) -> tuple[Array, Array]:
    def sides_of(component: Any, value: Array) -> tuple[Array, Array]:
        component = registry.strip(component)
        return tails(component, moved_inside(component, value))

    if isinstance(fn, dist.MixtureSameFamily):
        each = jnp.broadcast_to(value[..., None], (*jnp.shape(value), fn.mixture_size))
        sides: tuple[Array, ...] = sides_of(fn.component_distribution, each)
    else:
        found = [sides_of(component, value) for component in fn.component_distributions]
        sides = tuple(jnp.stack(side, -1) for side in zip(*found, strict=True))
    below, above = (jnp.sum(jnp.exp(log_weights_of(fn.mixing_distribution)) * side, -1) for side in sides)
    return below, above


def log_weights_of(mixing: Any) -> Array:
    """log w, `[..., K]`. A probability of 0 counts as one that is too small to matter, so that it still has a move."""
    if isinstance(mixing, dist.CategoricalLogits):
        return jax.nn.log_softmax(mixing.logits)
    floor = jnp.sqrt(jnp.finfo(jnp.result_type(mixing.probs, float)).tiny)
    probs = mixing.probs + jax.lax.stop_gradient(jnp.maximum(floor - mixing.probs, 0.0))
    return jnp.log(probs / jnp.sum(probs, axis=-1, keepdims=True))


def _symmetric(beyond: Callable[[Array], Array]) -> Callable[[Any, Array], tuple[Array, Array]]:
    """The sides of `loc + scale * noise`, given the mass beyond x > 0 of a noise that is symmetric about 0."""

    def sides(fn: Any, value: Array) -> tuple[Array, Array]:
        standard = (value - fn.loc) / fn.scale
        return _both(standard < 0, beyond(jnp.abs(standard)))

    return sides


def _both(lower: Array, smaller: Array) -> tuple[Array, Array]:
    """F and 1 - F, given the smaller of the two and whether that is F."""
    return jnp.where(lower, smaller, 1 - smaller), jnp.where(lower, 1 - smaller, smaller)


def _student(fn: dist.StudentT, value: Array) -> tuple[Array, Array]:
    standard = (value - fn.loc) / fn.scale
    outer = betainc(fn.df / 2, 0.5, fn.df / (fn.df + standard * standard)) / 2
    return _both(standard < 0, outer)


def _half_normal(fn: dist.HalfNormal, value: Array) -> tuple[Array, Array]:
    above = erfc(value / (fn.scale * _SQRT_2))
    return 1 - above, above


def _exponential(fn: dist.Exponential, value: Array) -> tuple[Array, Array]:
    return -jnp.expm1(-fn.rate * value), jnp.exp(-fn.rate * value)


def _weibull(fn: dist.Weibull, value: Array) -> tuple[Array, Array]:
    hazard = (value / fn.scale) ** fn.concentration
    return -jnp.expm1(-hazard), jnp.exp(-hazard)


def _gumbel(fn: dist.Gumbel, value: Array) -> tuple[Array, Array]:
    hazard = jnp.exp((fn.loc - value) / fn.scale)
    return jnp.exp(-hazard), -jnp.expm1(-hazard)


def _gamma(fn: dist.Gamma, value: Array) -> tuple[Array, Array]:
    concentration, scaled = jnp.broadcast_arrays(fn.concentration, value * fn.rate)
    return gammainc(concentration, scaled), gammaincc(concentration, scaled)


def _beta(fn: dist.Beta, value: Array) -> tuple[Array, Array]:
    a, b = fn.concentration1, fn.concentration0
    return betainc(a, b, value), betainc(b, a, 1 - value)


_SIDES: dict[Any, Callable[[Any, Array], tuple[Array, Array]]] = {
    dist.Beta: _beta,
    dist.Cauchy: _symmetric(lambda x: jnp.arctan2(1.0, x) / jnp.pi),
    dist.Exponential: _exponential,
    dist.Gamma: _gamma,
    dist.Gumbel: _gumbel,
    dist.HalfNormal: _half_normal,
    dist.Laplace: _symmetric(lambda x: jnp.exp(-x) / 2),
    dist.Logistic: _symmetric(lambda x: expit(-x)),
    dist.Normal: _symmetric(lambda x: erfc(x / _SQRT_2) / 2),
    dist.StudentT: _student,
    dist.Weibull: _weibull,
}
