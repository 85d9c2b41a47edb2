"""Constants that cancel: what is held fixed by `stop_gradient` and makes no difference.

A log-sum-exp subtracts the maximum, held fixed, and adds it again; a softmax divides it out. Their derivative is right,
since they do not depend on what is held fixed at all. That is proved here, operation by operation. With s for what is
held fixed, a variable is known to be

    free of s,    v + k s  ("a sum"),    or    v exp(k s)  ("a product"),

v free of s and k a whole number that is not zero. Anything else is `LOST`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.primitives import INNER_PROGRAM, position_maps, shape_of


class Shifted(NamedTuple):
    """A variable that is a sum or a product. `places[d]` is the dimension of the variable along which it has the
    elements of dimension d of s; None for a dimension of size 1."""

    is_sum: bool
    k: int
    places: tuple[int | None, ...]


FREE, LOST = None, "lost"
Kind = Shifted | str | None
_MOVING = frozenset("broadcast_in_dim copy reshape squeeze transpose convert_element_type stop_gradient slice".split())


def harmless_stops(jaxpr: Any) -> set[int]:
    """Positions of the equations `stop_gradient` of a jaxpr on whose results none of its outputs depends."""
    stops: dict[Any, list[int]] = {}  # what is held fixed -> where; held fixed twice, it is the same number
    for i, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name == "stop_gradient" and not isinstance(eqn.invars[0], Literal):
            stops.setdefault(eqn.invars[0], []).append(i)
    return {i for positions in stops.values() if _cancel(jaxpr, positions) for i in positions}


def _cancel(jaxpr: Any, positions: list[int]) -> bool:
    held = [jaxpr.eqns[i].outvars[0] for i in positions]
    if not jnp.issubdtype(held[0].aval.dtype, jnp.floating):
        return True  # it has no derivative to lose
    whole = Shifted(True, 1, tuple(d if n > 1 else None for d, n in enumerate(shape_of(held[0]))))
    known: dict[Any, Kind] = dict.fromkeys(held, whole)
    _follow(jaxpr.eqns[positions[0] + 1 :], known)
    return all(known.get(v, FREE) is FREE for v in jaxpr.outvars if not isinstance(v, Literal))


def _follow(eqns: Sequence[Any], known: dict[Any, Kind]) -> None:
    """Adds what is made of variables that are not free."""
    for eqn in eqns:
        kinds = [FREE if isinstance(v, Literal) else known.get(v, FREE) for v in eqn.invars]
        if any(kind is not FREE for kind in kinds):
            known |= zip(eqn.outvars, _through(eqn, kinds), strict=True)


def _through(eqn: Any, kinds: list[Kind]) -> list[Kind]:
    name = eqn.primitive.name
    if name in INNER_PROGRAM and name not in ("custom_jvp_call", "custom_vjp_call"):
        inner = eqn.params[INNER_PROGRAM[name]]
        inner = getattr(inner, "jaxpr", inner)
        known = dict(zip(inner.invars, kinds, strict=True))
        _follow(inner.eqns, known)
        return [FREE if isinstance(v, Literal) else known.get(v, FREE) for v in inner.outvars]
    if LOST in kinds or name not in RULES:
        return [LOST] * len(eqn.outvars)
    found = RULES[name](eqn, _moved(eqn, kinds))
    return [found] * len(eqn.outvars)


def _moved(eqn: Any, kinds: list[Kind]) -> list[Kind]:
    """The kinds of the operands, their dimensions those of the output."""
    maps = position_maps(eqn)[0]

    def onto(kind: Kind, dims: Any) -> Kind:
        if not isinstance(kind, Shifted):
            return kind
        places = tuple(None if p is None else dims[p] for p in kind.places)
        lost = any(p is not None and q is None for p, q in zip(kind.places, places, strict=True))
        return LOST if lost else kind._replace(places=places)

    return [onto(kind, dims) for kind, dims in zip(kinds, maps, strict=True)]


# --- rules: the kind of the output, from those of the operands ------------------------------------------------------

Rule = Callable[[Any, list[Kind]], Kind]


def _same(sums: bool, products: bool) -> Rule:
    """An operation on one operand that keeps sums, products, or both."""

    def rule(eqn: Any, kinds: list[Kind]) -> Kind:
        kind = kinds[0]
        keeps = isinstance(kind, Shifted) and (sums if kind.is_sum else products)
        return kind if keeps and all(k is FREE for k in kinds[1:]) else LOST

    return rule


def _is_shifted(*kinds: Kind) -> bool:
    return all(isinstance(kind, Shifted) for kind in kinds)


def _combined(a: Kind, b: Kind, sign: int, sums: bool) -> Kind:
    """`k + sign * k'` of two sums or two products; one of them may be free."""
    a_k, b_k = (kind.k if isinstance(kind, Shifted) else 0 for kind in (a, b))
    known = [kind for kind in (a, b) if isinstance(kind, Shifted)]
    if LOST in (a, b) or any(kind.is_sum != sums for kind in known) or len({kind.places for kind in known}) > 1:
        return LOST
    k = a_k + sign * b_k
    return known[0]._replace(k=k) if k else FREE


def _add(sign: int) -> Rule:
    def rule(eqn: Any, kinds: list[Kind]) -> Kind:
        a, b = kinds
        if isinstance(a, Shifted) and not a.is_sum:
            return a if a == b else LOST  # v exp(k s) + w exp(k s)
        return _combined(a, b, sign, sums=True)

    return rule


def _neg(eqn: Any, kinds: list[Kind]) -> Kind:
    kind = kinds[0]
    return kind._replace(k=-kind.k) if isinstance(kind, Shifted) and kind.is_sum else kind


def _exp(eqn: Any, kinds: list[Kind]) -> Kind:
    kind = kinds[0]
    return kind._replace(is_sum=False) if isinstance(kind, Shifted) and kind.is_sum else LOST


def _log(eqn: Any, kinds: list[Kind]) -> Kind:
    kind = kinds[0]
    return kind._replace(is_sum=True) if isinstance(kind, Shifted) and not kind.is_sum else LOST


def _sign(eqn: Any, kinds: list[Kind]) -> Kind:
    kind = kinds[0]
    return FREE if isinstance(kind, Shifted) and not kind.is_sum else LOST


def _bound(eqn: Any, kinds: list[Kind]) -> Kind:
    """`max` and `min`: of two that shift alike, or with an infinite constant."""
    a, b = kinds
    if _is_shifted(a, b):
        return a if a == b else LOST
    other = eqn.invars[1 if _is_shifted(a) else 0]
    return (a if _is_shifted(a) else b) if _constant(other) in (-np.inf, np.inf) else LOST


def _select(eqn: Any, kinds: list[Kind]) -> Kind:
    predicate, *cases = kinds
    shifted = [kind for kind in cases if isinstance(kind, Shifted)]
    if predicate is not FREE or LOST in cases or len(set(shifted)) != 1:
        return LOST
    # The constants that a sum or a product does not change.
    neutral = (-np.inf, np.inf) if shifted[0].is_sum else (0.0,)
    others = [v for v, kind in zip(eqn.invars[1:], cases, strict=True) if kind is FREE]
    return shifted[0] if all(_constant(v) in neutral for v in others) else LOST


def _compare(eqn: Any, kinds: list[Kind]) -> Kind:
    a, b = kinds
    if _is_shifted(a, b):
        return FREE if a == b else LOST
    one, other = (a, eqn.invars[1]) if _is_shifted(a) else (b, eqn.invars[0])
    return FREE if isinstance(one, Shifted) and not one.is_sum and _constant(other) == 0 else LOST


def _dot(eqn: Any, kinds: list[Kind]) -> Kind:
    one = [kind for kind in kinds if kind is not FREE]
    return one[0] if len(one) == 1 and isinstance(one[0], Shifted) and not one[0].is_sum else LOST


def _constant(atom: Any) -> float:
    """The value of a literal number; NaN for anything else."""
    value = np.asarray(atom.val) if isinstance(atom, Literal) else np.asarray(np.nan)
    return float(value) if value.size == 1 and np.issubdtype(value.dtype, np.number) else np.nan


RULES: dict[str, Rule] = {
    **dict.fromkeys([*_MOVING, "reduce_max", "reduce_min", "cummax", "cummin"], _same(sums=True, products=True)),
    **dict.fromkeys(["reduce_sum", "cumsum", "abs"], _same(sums=False, products=True)),
    **dict.fromkeys(["add", "add_any"], _add(1)),
    "sub": _add(-1),
    "neg": _neg,
    "mul": lambda eqn, kinds: _combined(kinds[0], kinds[1], 1, sums=False),
    "div": lambda eqn, kinds: _combined(kinds[0], kinds[1], -1, sums=False),
    "exp": _exp,
    "log": _log,
    "sign": _sign,
    "is_finite": lambda eqn, kinds: FREE,  # s is finite, and so is exp(k s) where anything is
    **dict.fromkeys(["max", "min"], _bound),
    "select_n": _select,
    **dict.fromkeys(["eq", "ne", "lt", "le", "gt", "ge"], _compare),
    "dot_general": _dot,
}
