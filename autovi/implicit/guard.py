"""Refuses, before anything is drawn, what the draws of a distribution and of those inside it cannot follow."""

from __future__ import annotations

import copy
from typing import Any

from numpyro.distributions import Distribution
from numpyro.distributions.util import lazy_property

from autovi.implicit.attach import forbid
from autovi.implicit.rule import rule_of


def guarded(fn: Any) -> Any:
    """`fn` with the guards of its rule, and of the rules of all distributions inside it, applied.

    Raises:
        TypeError: not a distribution, or one whose draws have no derivative.
        ValueError: a parameter that makes no sense.
    """
    require_distribution(fn)
    fn = replaced(fn, {name: new for name, held in vars(fn).items() if (new := _guarded_inside(held)) is not None})
    rule = rule_of(fn)
    return fn if rule is None or rule.guard is None else rule.guard(fn)


def require_distribution(fn: Any) -> None:
    """Raises a TypeError for anything else."""
    if not isinstance(fn, Distribution):
        raise TypeError(f"distribution: expected a NumPyro distribution, got {type(fn).__name__}")


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


def _guarded_inside(held: Any) -> Any:
    """What takes the place of an attribute; None where it may stay."""
    if isinstance(held, Distribution):
        new = guarded(held)
        return None if new is held else new
    if not isinstance(held, (list, tuple)) or not any(isinstance(x, Distribution) for x in held):
        return None
    each = [guarded(x) if isinstance(x, Distribution) else x for x in held]
    if all(x is y for x, y in zip(each, held, strict=True)):
        return None
    return each if isinstance(held, list) else tuple(each)
