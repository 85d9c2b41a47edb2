"""Which values can a variable of a program take? A finite set, where whole numbers of finite sets make it.

All elements of an array are taken together, and each operand of an operation as if it had nothing to do with the
others: what is found may hold values that never come about, and lacks none that does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

Values = Any  # a sorted array of distinct numbers, of the variable's type; None: not known, or too many

MAX_VALUES = 1_024  # of one variable
MAX_PAIRS = 200_000  # combinations of operands that are looked at for one operation
MAX_WHOLE = 2**24  # up to which float32 has all whole numbers
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
# Operations on the elements of their operands. (JAX's own would be compiled for each number of values.)
ELEMENTWISE: dict[str, Any] = {
    "abs": np.abs,
    "add": np.add,
    "and": np.bitwise_and,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "convert_element_type": lambda x: x,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.bitwise_not,
    "or": np.bitwise_or,
    "rem": lambda x, y: np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y))),
    "sign": np.sign,
    "square": np.square,
    "sub": np.subtract,
    "xor": np.bitwise_xor,
}
# Operations whose results are elements of some of their operands: of all, or of the first.
OF_ALL = frozenset("concatenate stack".split())
OF_FIRST = frozenset(
    "broadcast_in_dim copy dynamic_slice expand_dims gather reduce_max reduce_min reshape rev slice squeeze "
    "stop_gradient transpose".split()
)


def values_of(atom: Any, made: Mapping[Any, Any], known: dict[Any, Values]) -> Values:
    """The values that a variable may take, from those `known` of others, which is added to; `made` has the equations
    that make variables.

    Example:
        >>> body = jax.make_jaxpr(lambda x, y: jnp.where(y > 0, jnp.minimum(x + 1, 3), 0))(1, 1.0).jaxpr
        >>> values_of(body.outvars[0], {v: e for e in body.eqns for v in e.outvars}, {body.invars[0]: np.arange(4)})
        array([0, 1, 2, 3], dtype=int32)
    """
    dtype = getattr(atom.aval, "dtype", None)
    if isinstance(atom, Literal):
        return distinct(atom.val, dtype)
    if atom not in known:
        eqn = made.get(atom)
        found = None if eqn is None else _made(eqn, atom, [values_of(v, made, known) for v in eqn.invars])
        is_bool = dtype is not None and jnp.issubdtype(dtype, jnp.bool_)
        known[atom] = np.array([False, True]) if found is None and is_bool else found
    return known[atom]


def distinct(array: Any, dtype: Any) -> Values:
    """The values of an array that is known; None of too many, and of numbers that are not whole."""
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating, jnp.bool_)):
        return None
    return _few(np.asarray(array).astype(dtype))


def joined(sets: Collection[Values]) -> Values:
    """The union of sets."""
    return None if any(s is None for s in sets) else _few(np.concatenate(list(sets)))


def _few(array: np.ndarray) -> Values:
    whole = array.dtype.kind in "biu" or (np.all(np.abs(array) < MAX_WHOLE) and np.all(array == np.round(array)))
    found = np.unique(array) if whole else np.zeros(0)
    return found if 0 < len(found) <= MAX_VALUES else None


def _made(eqn: Any, result: Any, operands: list[Values]) -> Values:
    name = eqn.primitive.name
    if name in CALLS:
        return _called(eqn, result, operands)
    if name == "iota":
        return _few(np.arange(eqn.params["shape"][eqn.params["dimension"]]).astype(result.aval.dtype))
    if name in OF_ALL:
        return joined(operands)
    if name in OF_FIRST:
        return operands[0]
    if name == "select_n":
        which, *cases = operands
        return joined(cases if which is None else [cases[int(w)] for w in which])
    if name in ELEMENTWISE and (every := _combined(operands)) is not None:
        return _few(np.asarray(ELEMENTWISE[name](*every)).astype(result.aval.dtype))
    return None


def _combined(operands: Collection[Values]) -> Any:
    """All combinations of values, if there are few."""
    if any(s is None for s in operands) or np.prod([float(len(s)) for s in operands]) > MAX_PAIRS:
        return None
    return np.meshgrid(*operands, indexing="ij", sparse=True)


def _called(eqn: Any, result: Any, operands: list[Values]) -> Values:
    inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, [])
    jaxpr = closed.jaxpr
    if len(jaxpr.invars) != len(operands) or len(jaxpr.outvars) != len(eqn.outvars):
        return None
    end = jaxpr.outvars[next(i for i, v in enumerate(eqn.outvars) if v is result)]
    if (every := _combined(operands)) is not None and (at_each := _at_each(jaxpr, end, every)) is not None:
        return _few(at_each)
    known: dict[Any, Values] = dict(zip(jaxpr.invars, operands, strict=True))
    return values_of(end, {v: e for e in jaxpr.eqns for v in e.outvars}, known)


def _at_each(jaxpr: Any, end: Any, arguments: Sequence[Any]) -> Any:
    """What a function of single elements (`jnp.remainder`) makes of each combination; None of another function."""
    made: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        operands: list[Any] = [np.asarray(v.val) if isinstance(v, Literal) else made.get(v) for v in eqn.invars]
        name, (result, *others) = eqn.primitive.name, eqn.outvars
        if others or any(x is None for x in operands):
            return None
        if name in CALLS:
            inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
            inner = getattr(inner, "jaxpr", inner)
            made[result] = _at_each(inner, inner.outvars[0], operands)
        elif name == "select_n" and len(operands) == 3:
            made[result] = np.where(operands[0], operands[2], operands[1])
        elif name in ELEMENTWISE:
            made[result] = np.asarray(ELEMENTWISE[name](*operands)).astype(result.aval.dtype)
        elif name == "broadcast_in_dim" and operands[0].ndim == 0:
            made[result] = operands[0]
        else:
            return None
    return np.asarray(end.val) if isinstance(end, Literal) else made.get(end)
