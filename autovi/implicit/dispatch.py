"""From a distribution, through its wrappers and transforms, to the rule that draws and differentiates it."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from autovi import registry
from autovi.implicit.attach import attach
from autovi.implicit.generic.rules import generic_rule
from autovi.implicit.library import library_draw
from autovi.implicit.rule import TRANSPARENT, is_plain_transformed, rule_of
from autovi.implicit.velocity import velocity

__all__ = ["draw", "reparameterize", "velocity"]


def draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of shape `shape + fn.event_shape` with their gradient; the batch shape of `fn` broadcasts to `shape`."""
    if isinstance(fn, TRANSPARENT):
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
    row = registry.lookup(fn)
    if row.discrete:
        raise ValueError(
            f"{type(fn).__name__}: its values are discrete, so a draw has no derivative; use 'enumerate' or the score "
            "function"
        )
    if rule is None and row.pathwise == "explicit" and not row.not_pathwise:
        return library_draw(rng_key, fn, shape)
    rule = rule or generic_rule(fn)
    return attach(library_draw(rng_key, jax.lax.stop_gradient(fn), shape), fn, rule.velocity)


def reparameterize(fn: Any, value: Array) -> Array:
    """`value`, drawn from `fn` by whatever means, with the derivative in the parameters of `fn` that a draw has.

    Args:
        fn: the distribution, whose batch shape broadcasts with that of the value.
        value: of shape `(..., *fn.event_shape)`, inside the support; its own derivative, if any, is dropped.

    Raises:
        TypeError: a distribution without such a derivative; says why, and what to do.

    Example:
        >>> z = jax.random.gamma(key, 2.0)  # by any sampler
        >>> jax.grad(lambda a: autovi.implicit.reparameterize(dist.Gamma(a), z))(2.0)
    """
    return attach(value, fn, lambda fn, value, moving: velocity(fn, value, moving))
