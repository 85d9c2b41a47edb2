"""What stands for a value that is not known where something is tried."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.keys import is_key


def stand_in(value: Any) -> Any:
    """Something of the shape and type of an array; inside of most supports."""
    if is_key(value):
        return jax.random.split(jax.random.key(0), value.shape)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return np.zeros(value.shape, value.dtype)
    return np.random.default_rng(value.size).uniform(0.2, 0.8, value.shape).astype(value.dtype)
