"""Refuses, before anything is drawn, what the draws of a distribution and of those inside it cannot follow."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, MaskedDistribution
from numpyro.distributions.util import lazy_property

from autovi.implicit.attach import as_inexact, forbid
from autovi.implicit.rule import require_distribution, rule_of


def validated(fn: Any, dtype: Any = None) -> Any:
    """`fn` as its rule and the rules of all distributions inside it validate it.

    Without masks, of which draws do not know, and with parameters of one floating type.

    Args:
        fn: the distribution.
        dtype: the floating type; None: the widest among the parameters.

    Raises:
        TypeError: not a distribution, or one whose draws have no derivative.
        ValueError: a parameter that makes no sense.
    """
    require_distribution(fn)
    return _validated(_of_one_type(fn, float_type(fn) if dtype is None else dtype))


def float_type(fn: Any, *others: Any) -> Any:
    """The floating type that the parameters of `fn`, integers among them, and the others have in common."""
    return jnp.result_type(*others, *jax.tree.leaves(jax.tree.map(as_inexact, fn)), float)


def forbidden(fn: Any, names: tuple[str, ...], message: str) -> Any:
    """`fn`, which raises a TypeError with `message` where someone differentiates in the attributes `names`."""
    return replaced(fn, {name: forbid(vars(fn)[name], message) for name in names})


def replaced(fn: Any, attributes: dict[str, Any]) -> Any:
    """A copy of `fn` with other attributes, and without what it has computed and remembered."""
    if not attributes:
        return fn
    new = copy.copy(fn)
    for name in [name for name in vars(new) if isinstance(getattr(type(new), name, None), lazy_property)]:
        del vars(new)[name]
    vars(new).update(attributes)
    return new


def parts_of(fn: Any) -> list[Any]:
    """The distributions that `fn` holds, directly or in a list."""
    held = [x for value in vars(fn).values() for x in (value if isinstance(value, (list, tuple)) else [value])]
    return [x for x in held if isinstance(x, Distribution)]


def _validated(fn: Any) -> Any:
    if isinstance(fn, MaskedDistribution):
        return _validated(fn.base_dist)
    fn = replaced(fn, {name: new for name, held in vars(fn).items() if (new := _validated_inside(held)) is not None})
    rule = rule_of(fn)
    return fn if rule is None or rule.validate is None else rule.validate(fn)


def _validated_inside(held: Any) -> Any:
    """What takes the place of an attribute; None where it may stay."""
    if isinstance(held, Distribution):
        new = _validated(held)
        return None if new is held else new
    if not isinstance(held, (list, tuple)) or not any(isinstance(x, Distribution) for x in held):
        return None
    each = [_validated(x) if isinstance(x, Distribution) else x for x in held]
    if all(x is y for x, y in zip(each, held, strict=True)):
        return None
    return each if isinstance(held, list) else tuple(each)


def _of_one_type(fn: Any, dtype: Any) -> Any:
    """`fn`, or a copy whose arrays of floating numbers are all of that type; constants stay constants."""
    other = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != dtype  # noqa: E731

    def convert(x: Any) -> Any:
        if not other(x):
            return x
        with nullcontext() if isinstance(x, jax.core.Tracer) else jax.ensure_compile_time_eval():
            return jnp.asarray(x, dtype)

    return jax.tree.map(convert, fn) if any(map(other, jax.tree.leaves(fn))) else fn
