"""What a value of a distribution does as its parameters move, for any distribution."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from numpyro.distributions.transforms import AbsTransform

from autovi.distributions import registry
from autovi.implicit.generic.rules import generic_rule
from autovi.implicit.rule import is_plain_transformed, rule_of


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
