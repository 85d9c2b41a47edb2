"""A digest of a traced program: equal digests mean the same computation on the same constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.transforms import Transform

from autovi.implicit.rule import RULES
from autovi.model.digest import walk_over, without_addresses
from autovi.model.own_rules import has_known_rule, is_custom


@dataclass(frozen=True)
class Fingerprint:
    """What a traced program computes. Equal ones compute the same now.

    Attributes:
        program: the digest of all operations and constants, and of the code of callbacks.
        state: the digest of what Python code that runs beside the program reads and may find changed: attributes,
            closures, globals, containers. One of a kind if a part of it cannot be read.
        roots: the callbacks, and the classes of the user's own.
        objects: the changeable objects that callbacks use.
        constant_bytes: the size of the program's constants.
    """

    program: str
    state: str
    roots: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    objects: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    constant_bytes: int = field(default=0, compare=False)

    @cached_property
    def key(self) -> Any:
        """Equal keys mean that a compiled program of the one may run for the other.

        A compiled program keeps calling the functions it was compiled with. Those of another program may stand for
        them only if they share all they could see changed, a list or the cell of a closure: equal now is not enough.
        """
        return self.program, self.state, tuple(Itself(o) for o in self.objects)

    def at_rest(self) -> bool:
        """Is the state still what it was, at the same objects? Callbacks that count or draw change it as they run."""
        return self.state == walk_over(self.roots).state()

    def still(self, now: Fingerprint, at_rest: bool) -> bool:
        """Does the program compute what it did? A state that the program itself changes (`at_rest` is False) cannot
        be held against it."""
        return self.program == now.program and (self.state == now.state or not at_rest)


class Itself:
    """Equal to itself alone. The object is kept, since the address of one that is gone may be another's."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def fingerprint(
    jaxprs: Iterable[ClosedJaxpr], static: Any = (), own: Iterable[Any] = (), opaque: bool = False
) -> Fingerprint:
    """The fingerprint of closed jaxprs and of anything else that belongs to the program.

    Constants count by value, also those of functions inside (which the printed program abbreviates).

    Args:
        jaxprs: the traced program, with its derivatives.
        static: objects that belong to it.
        own: classes of the user's own, whose code belongs to it.
        opaque: something is in it that cannot be seen: the fingerprint is then no other's.
    """
    described = walk_over([static])
    parts = [described.content()]
    constants: list[Any] = []
    callbacks: list[Any] = []
    for jaxpr in jaxprs:
        parts.append(without_addresses(str(jaxpr.jaxpr)))
        for part in _parts(jaxpr):
            (callbacks if callable(part) else constants).append(part)
    roots = (*callbacks, *own)
    walk = walk_over(roots)
    walk.opaque |= opaque or described.opaque
    for part in parts:
        walk.put("text", part)
    for constant in constants:
        walk.array(constant)
    size = sum({id(c): int(getattr(c, "nbytes", 0)) for c in constants}.values())
    return Fingerprint(walk.program(), walk.state(), roots, tuple(walk_over(callbacks).objects), size)


def own_classes(item: Any) -> list[Any]:
    """The classes of the user's own in a distribution, its transforms and constraints, with the rules they have."""
    if isinstance(item, Distribution | Transform | constraints.Constraint):
        inside = [found for part in vars(item).values() for found in own_classes(part)]
        if type(item).__module__.split(".")[0] in ("numpyro", "autovi"):
            return inside
        return [type(item), *(RULES[cls] for cls in type(item).__mro__ if cls in RULES), *inside]
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, tuple | list) else ()
    return [found for part in parts for found in own_classes(part)]


def has_custom_derivatives(jaxpr: ClosedJaxpr) -> bool:
    """Does the program hold a function of the user's with a derivative of its own, which the jaxpr does not show?"""
    return any(is_custom(eqn) and not has_known_rule(eqn) for eqn in _equations(jaxpr))


def _equations(item: Any) -> Iterator[Any]:
    """All equations of a program, those of the programs inside of them included."""
    if isinstance(item, ClosedJaxpr):
        item = item.jaxpr  # from jax 0.12 on this is the closed jaxpr itself
    if isinstance(item, Jaxpr):
        for eqn in item.eqns:
            yield eqn
            for param in eqn.params.values():
                yield from _equations(param)
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _equations(part)


def _parts(item: Any) -> Iterator[Any]:
    """Constants of a program, wherever they are, and the functions that it calls back."""
    if isinstance(item, ClosedJaxpr):
        yield from item.consts
        item = item.jaxpr
    if isinstance(item, Jaxpr):
        for eqn in item.eqns:
            yield from (v.val for v in eqn.invars if isinstance(v, Literal))
            for param in eqn.params.values():
                # The rules of custom derivatives are functions made at each trace: they are traced instead.
                if not callable(param) or not is_custom(eqn):
                    yield from _parts(param)
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _parts(part)
    elif isinstance(item, np.ndarray | jax.Array) or (callable(item) and not isinstance(item, type)):
        yield item
