"""Whole numbers that a program computes from its constants alone, such as indices: their values, by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autovi.analysis.primitives import shape_of

MAX_ENTRIES = 100_000  # of an array that is followed


def folded(eqn: Any, args: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The result of an equation on whole numbers and truth values that are known; None where it is not known."""
    rule = RULES.get(eqn.primitive.name)
    dtype = getattr(eqn.outvars[0].aval, "dtype", None)
    if rule is None or any(a is None for a in args) or getattr(dtype, "kind", "") not in "ibu":
        return None
    if np.prod(shape_of(eqn.outvars[0])) > MAX_ENTRIES:
        return None
    return np.asarray(rule(eqn, *args), dtype)


def _iota(eqn: Any) -> np.ndarray:
    shape, along = shape_of(eqn.outvars[0]), eqn.params["dimension"]
    return np.broadcast_to(np.arange(shape[along]).reshape([-1 if d == along else 1 for d in range(len(shape))]), shape)


def _broadcast_in_dim(eqn: Any, x: np.ndarray) -> np.ndarray:
    shape, dims = shape_of(eqn.outvars[0]), eqn.params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for n, d in zip(x.shape, dims, strict=True):
        sizes[d] = n
    return np.broadcast_to(x.reshape(sizes), shape)


def _slice(eqn: Any, x: np.ndarray) -> np.ndarray:
    p = eqn.params
    strides = p["strides"] or (1,) * x.ndim
    return x[tuple(slice(*w) for w in zip(p["start_indices"], p["limit_indices"], strides, strict=True))]


def _select(eqn: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.choose(which.astype(int), cases)


def _shaped(eqn: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape(shape_of(eqn.outvars[0]))


Rule = Callable[..., Any]
_of = lambda fn: lambda eqn, *args: fn(*args)  # noqa: E731

RULES: dict[str, Rule] = {
    "add": _of(np.add),
    "abs": _of(np.abs),
    "and": _of(np.bitwise_and),
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _of(lambda low, x, high: np.clip(x, low, high)),
    "concatenate": lambda eqn, *args: np.concatenate(args, eqn.params["dimension"]),
    "convert_element_type": _of(lambda x: x),
    "copy": _of(lambda x: x),
    "eq": _of(np.equal),
    "ge": _of(np.greater_equal),
    "gt": _of(np.greater),
    "iota": _iota,
    "le": _of(np.less_equal),
    "lt": _of(np.less),
    "max": _of(np.maximum),
    "min": _of(np.minimum),
    "mul": _of(np.multiply),
    "ne": _of(np.not_equal),
    "neg": _of(np.negative),
    "not": _of(np.invert),
    "or": _of(np.bitwise_or),
    "rem": _of(np.fmod),
    "reshape": _shaped,
    "rev": lambda eqn, x: np.flip(x, eqn.params["dimensions"]),
    "select_n": _select,
    "sign": _of(np.sign),
    "slice": _slice,
    "squeeze": _shaped,
    "stop_gradient": _of(lambda x: x),
    "sub": _of(np.subtract),
    "transpose": lambda eqn, x: np.transpose(x, eqn.params["permutation"]),
    "xor": _of(np.bitwise_xor),
}
