"""A digest of a traced program: equal digests mean the same computation on the same constants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def fingerprint(jaxpr: ClosedJaxpr, *static: Any) -> str:
    """The digest of a closed jaxpr and of the `repr` of anything else that belongs to the program.

    Constants count by value, also those of functions inside (which the printed program abbreviates).
    """
    text = str(jaxpr.jaxpr) + repr(static)
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", text).encode())  # addresses differ from trace to trace
    for constant in _constants(jaxpr):
        if isinstance(constant, jax.Array) and jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        array = np.asarray(constant)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _constants(item: Any) -> Iterator[Any]:
    if isinstance(item, ClosedJaxpr):
        yield from item.consts
        item = item.jaxpr  # from jax 0.12 on this is the closed jaxpr itself
    if isinstance(item, Jaxpr):
        for eqn in item.eqns:
            yield from (v.val for v in eqn.invars if isinstance(v, Literal) and np.ndim(v.val) > 0)
            for param in eqn.params.values():
                yield from _constants(param)
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _constants(part)
