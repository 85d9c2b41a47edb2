"""From a distribution, through its wrappers and transforms, to the rule that draws and differentiates it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from autovi.distributions import registry
from autovi.implicit.attach import attach
from autovi.implicit.generic.rules import generic_rule
from autovi.implicit.guard import float_type, guarded, require_distribution
from autovi.implicit.library import library_draw
from autovi.implicit.rule import is_plain_transformed, rule_of
from autovi.implicit.velocity import velocity


def draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of shape `shape + fn.event_shape` with their gradient; the batch shape of `fn` broadcasts to `shape`.

    For distributions that are `guarded`.
    """
    if isinstance(fn, registry.WRAPPERS):
        return draw(rng_key, fn.base_dist, shape + fn.event_shape[: fn.event_dim - fn.base_dist.event_dim])
    rule = rule_of(fn)
    if rule is not None and rule.draw is not None:
        return rule.draw(rng_key, fn, shape)
    if is_plain_transformed(fn):
        extra = fn.base_dist.batch_shape[len(fn.batch_shape) :]
        value = draw(rng_key, fn.base_dist, shape + extra)
        for transform in fn.transforms:
            value = transform(value)
        return value
    row = _continuous_row(fn)
    if row.observation_only:
        raise TypeError(f"{type(fn).__name__}: {row.note}")
    if rule is None and row.pathwise == "explicit" and not row.not_pathwise:
        return library_draw(rng_key, fn, shape)
    rule = rule or generic_rule(fn)
    return attach(library_draw(rng_key, jax.lax.stop_gradient(fn), shape), fn, rule.velocity)


def reparameterize(fn: Any, value: Array) -> Array:
    """`value`, drawn from `fn` by whatever means, with the derivative in the parameters of `fn` that a draw has.

    Args:
        fn: the distribution, whose batch shape broadcasts to that of the value.
        value: of shape `(..., *fn.event_shape)`, inside the support; its own derivative, if any, is dropped.

    Returns:
        `value`, of the number type that it and the parameters have in common. dz/dtheta = -(dS/dz)^-1 dS/dtheta at
        fixed S(z; theta): Figurnov, Mohamed and Mnih (2018), "Implicit Reparameterization Gradients", equation 5.

    Raises:
        TypeError: not a distribution, or one without such a derivative; or someone differentiates in a parameter in
            which there is none, such as the gate of a hurdle distribution. Says why, and what to do.
        ValueError: discrete values, a value of another shape, or a distribution of one's own that fails a check.

    Example:
        >>> z = jax.random.gamma(key, 2.0)  # by any sampler
        >>> jax.grad(lambda a: autovi.implicit.reparameterize(dist.Gamma(a), z))(2.0)
    """
    require_distribution(fn)
    dtype = float_type(fn, value)
    fn = guarded(fn, dtype)
    if not _continuous_row(fn).observation_only:  # whose values are of another shape than draws
        _require_broadcast(fn, jnp.shape(value))
    return attach(jnp.asarray(value, dtype), fn, velocity)


def _continuous_row(fn: Any) -> registry.Gradients:
    row = registry.lookup(fn)
    if row.discrete:
        raise ValueError(
            f"{type(fn).__name__}: its values are discrete, so a draw has no derivative; use 'enumerate' or the score "
            "function"
        )
    return row


def _require_broadcast(fn: Any, shape: tuple[int, ...]) -> None:
    try:
        fits = jnp.broadcast_shapes(fn.shape(), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"value: expected a shape that {type(fn).__name__}'s, {fn.shape()}, broadcasts to, got {shape}"
        )
