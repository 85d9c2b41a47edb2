"""What the library knows of a distribution class, and the table of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpyro.distributions as dist
from jax import Array

from autovi.implicit.attach import Velocity

# draw(rng_key, fn, shape): draws of shape `shape + fn.event_shape`, gradients attached; `fn`'s batch shape broadcasts
# to `shape`, every element of which is drawn independently.
Drawer = Callable[[Array, Any, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Rule:
    """How the draws of one class are differentiated, and drawn.

    Attributes:
        velocity: d value for a value drawn from a distribution of the class; the first argument of `Velocity` is the
            distribution itself, the third the same distribution with tangents for parameters.
        draw: the class's draws with their gradient; None: NumPyro's sampler, with the velocity attached.
        guard: guard(fn) -> fn, run before anything else: refuses a distribution whose draws have no derivative, and
            forbids the parameters in which they have none. What is a constant to the caller still is one there.
    """

    velocity: Velocity
    draw: Drawer | None = None
    guard: Callable[[Any], Any] | None = None


RULES: dict[type, Rule] = {}  # filled by `table` and by users


def rule_of(fn: Any) -> Rule | None:
    """The rule of the class of `fn`, or of an ancestor that draws and weighs values alike."""
    for cls in type(fn).__mro__:
        if cls in RULES:
            return RULES[cls] if acts_as(fn, cls) else None
    return None


def is_plain_transformed(fn: Any) -> bool:
    """Is `fn` no more than its base distribution and its transforms?"""
    return acts_as(fn, dist.TransformedDistribution)


def acts_as(fn: Any, cls: type) -> bool:
    """Is `fn` of that class, or of a subclass that draws and weighs values alike?"""
    same = all(getattr(type(fn), method, None) is getattr(cls, method) for method in ("sample", "log_prob"))
    return isinstance(fn, cls) and same
