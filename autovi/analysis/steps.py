"""Where the body of a scan reads a stacked array at its own step: what a site inside of a scan is to its node."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import Literal

from autovi.model.graph import scan_counts


def read_at_the_step(eqn: Any) -> frozenset[int]:
    """The equations of a scan's body that take in step t the slice number t, along the first dimension, of an array
    that all steps share. t is a counter that is carried from 0 and grows by 1."""
    body = eqn.params["jaxpr"].jaxpr
    num_consts, num_carry = scan_counts(eqn)
    made = {v: e for e in body.eqns for v in e.outvars}
    carried = zip(eqn.invars[num_consts:], body.invars[num_consts:], body.outvars[:num_carry], strict=False)
    counters = {before for start, before, after in carried if _counts(start, before, made.get(after))}
    found = set()
    for position, one in enumerate(body.eqns):
        if one.primitive.name in ("convert_element_type", "select_n") and _is_counter(one, counters, made):
            counters.add(one.outvars[0])
        elif one.primitive.name == "dynamic_slice" and _is_step(one, counters, body.invars[:num_consts], eqn):
            found.add(position)
    return frozenset(found)


def _counts(start: Any, before: Any, after: Any) -> bool:
    if not _is(start, 0) or after is None or after.primitive.name != "add":
        return False
    one, other = after.invars
    return (one is before and _is(other, 1)) or (other is before and _is(one, 1))


def _is(atom: Any, number: int) -> bool:
    value = np.asarray(atom.val) if isinstance(atom, Literal) else np.asarray(np.nan)
    return value.ndim == 0 and np.issubdtype(value.dtype, np.integer) and bool(value == number)


def _is_counter(eqn: Any, counters: set[Any], made: dict[Any, Any]) -> bool:
    """Is it a counter in another type, or counted from the end where it is negative, which it is not?"""
    if eqn.primitive.name == "convert_element_type":
        operand = eqn.invars[0]
        return _is_among(operand, counters) and np.issubdtype(eqn.outvars[0].aval.dtype, np.integer)
    negative, as_it_is = eqn.invars[0], eqn.invars[1]
    test = None if isinstance(negative, Literal) else made.get(negative)
    if test is None or test.primitive.name != "lt" or not _is(test.invars[1], 0):
        return False
    return _is_among(test.invars[0], counters) and _is_among(as_it_is, counters)


def _is_among(atom: Any, variables: set[Any]) -> bool:
    return not isinstance(atom, Literal) and atom in variables


def _is_step(one: Any, counters: set[Any], shared: list[Any], eqn: Any) -> bool:
    array, first, *_ = one.invars  # along the others it is whole, wherever it is said to begin
    whole = array in shared if not isinstance(array, Literal) else False
    sizes = one.params["slice_sizes"]
    return (
        whole
        and _is_among(first, counters)
        and array.aval.shape[0] >= eqn.params["length"]
        and sizes == (1, *array.aval.shape[1:])
    )
