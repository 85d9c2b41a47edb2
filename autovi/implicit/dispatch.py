"""From a distribution, through its wrappers and transforms, to the rule that draws and differentiates it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions.transforms import AbsTransform

from autovi.distributions import registry
from autovi.implicit.attach import attach
from autovi.implicit.generic.rules import generic_rule
from autovi.implicit.rule import is_plain_transformed, require_distribution, rule_of
from autovi.implicit.validation import float_type, validated


def draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of shape `shape + fn.event_shape` with their gradient; the batch shape of `fn` broadcasts to `shape`.

    For distributions that are `validated`.
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


def velocity(fn: Any, value: Array, moving: Any) -> Array:
    """d value as the parameters of `fn` move by `moving`, at a value that need not be a draw of `fn` alone.

    A function of the value too: where that depends on something, so does the velocity. Mixtures and truncations, whose
    draws move otherwise than those of their parts, have right second derivatives because of it.
    """
    if isinstance(fn, registry.WRAPPERS):
        return velocity(fn.base_dist, value, moving.base_dist)
    rule = rule_of(fn)
    if rule is not None:
        return rule.velocity(fn, value, moving)
    if is_plain_transformed(fn):
        return _through_transforms(fn, value, moving)
    return generic_rule(fn).velocity(fn, value, moving)


def _through_transforms(fn: Any, value: Array, moving: Any) -> Array:
    for transform in reversed(fn.transforms):
        if isinstance(transform, AbsTransform):
            raise TypeError("TransformedDistribution: AbsTransform has no inverse, use FoldedDistribution")
        value = transform.inv(value)
    leaves, treedef = jax.tree.flatten(fn.transforms)

    def forward(leaves: list[Array], value: Array) -> Array:
        for transform in jax.tree.unflatten(treedef, leaves):
            value = transform(value)
        return value

    base_moving = velocity(fn.base_dist, value, moving.base_dist)
    return jax.jvp(forward, (leaves, value), (jax.tree.leaves(moving.transforms), base_moving))[1]


def library_draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """NumPyro's own draws, of shape `shape + fn.event_shape`.

    As the `draw` of a rule it keeps an explicit sampler and its gradient, while the rule's velocity serves values that
    were drawn otherwise: parts of mixtures, bases of truncations.
    """
    ahead = len(shape) - len(fn.batch_shape)
    same = shape[ahead:] == fn.batch_shape
    value = fn.sample(rng_key, shape[:ahead]) if same else fn.expand(shape).sample(rng_key)
    return jnp.asarray(value, float_type(fn))  # NumPyro's noise may be wider than the parameters


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
    fn = validated(fn, dtype)
    if not _continuous_row(fn).observation_only:  # whose values are of another shape than draws
        _require_broadcast(fn, jnp.shape(value))
    return attach(jnp.asarray(value, dtype), fn, velocity)


def _continuous_row(fn: Any) -> registry.Known:
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
