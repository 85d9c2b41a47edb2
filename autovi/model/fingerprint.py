"""A digest of a traced program: equal digests mean the same computation on the same constants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def fingerprint(jaxprs: Iterable[ClosedJaxpr], static: Any = ()) -> str:
    """The digest of closed jaxprs and of the `repr` of anything else that belongs to the program.

    Constants count by value, also those of functions inside (which the printed program abbreviates); the Python
    functions of callbacks by their code and what they close over.
    """
    digest = hashlib.sha256(_without_addresses(repr(static)))
    for jaxpr in jaxprs:
        digest.update(_without_addresses(str(jaxpr.jaxpr)))
        for constant in _constants(jaxpr):
            digest.update(_as_bytes(constant))
    return digest.hexdigest()


def has_custom_derivatives(jaxpr: ClosedJaxpr) -> bool:
    """Does the program hold a function with a derivative of its own, which the jaxpr does not show?"""
    return "custom_jvp_call" in (text := str(jaxpr.jaxpr)) or "custom_vjp_call" in text


def _without_addresses(text: str) -> bytes:
    return re.sub(r"0x[0-9a-f]+", "", text).encode()  # they differ from trace to trace


def _as_bytes(constant: Any) -> bytes:
    if callable(constant):
        return _function_as_bytes(constant)
    if isinstance(constant, jax.Array) and jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    array = np.asarray(constant)
    if array.dtype == object:
        return _without_addresses(repr(constant))
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def _function_as_bytes(function: Any) -> bytes:
    """Code and closure of a Python function, or of the functions that an object holds."""
    code = getattr(function, "__code__", None)
    if code is None:
        names = [*getattr(function, "__dict__", ()), *getattr(type(function), "__slots__", ())]
        inside = [getattr(function, name, None) for name in names if not name.startswith("__")]
        return b"".join(_function_as_bytes(v) for v in inside if callable(v)) or _without_addresses(repr(function))
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell.cell_contents is not function]
    return code.co_code + _without_addresses(repr(code.co_consts)) + b"".join(_as_bytes(c) for c in cells)


def _constants(item: Any) -> Iterator[Any]:
    if isinstance(item, ClosedJaxpr):
        yield from item.consts
        item = item.jaxpr  # from jax 0.12 on this is the closed jaxpr itself
    if isinstance(item, Jaxpr):
        for eqn in item.eqns:
            yield from (v.val for v in eqn.invars if isinstance(v, Literal) and np.ndim(v.val) > 0)
            if "callback" in eqn.primitive.name:
                yield from (param for param in eqn.params.values() if callable(param))
            for param in eqn.params.values():
                yield from _constants(param)
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _constants(part)
