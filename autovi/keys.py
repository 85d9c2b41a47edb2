"""What users may pass as a random key."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_key(rng_key: Any) -> jax.Array:
    """A typed JAX key from an integer, which may be traced, a typed key, or an old-style key array.

    Raises:
        ValueError: none of these.
    """
    if isinstance(rng_key, jax.Array) and rng_key.shape == () and jnp.issubdtype(rng_key.dtype, jnp.integer):
        return jax.random.key(rng_key)
    rng_key = seed_or_key(rng_key)
    return jax.random.key(rng_key) if isinstance(rng_key, int) else rng_key


def seed_or_key(rng_key: Any) -> int | jax.Array:
    """As `as_key`, but an integer stays what it is."""
    if isinstance(rng_key, int | np.integer) and not isinstance(rng_key, bool):
        if not -(2**31) <= rng_key < 2**31:
            raise ValueError(f"rng_key: expected an integer of 32 bits or a jax key, got {rng_key}")
        return int(rng_key)
    if is_key(rng_key) and np.shape(rng_key) == ():
        return rng_key
    if isinstance(rng_key, jax.Array | np.ndarray) and (rng_key.shape, rng_key.dtype) == ((2,), np.uint32):
        return jax.random.wrap_key_data(jnp.asarray(rng_key))
    shape = f" of shape {rng_key.shape}" if hasattr(rng_key, "shape") else ""
    raise ValueError(f"rng_key: expected an integer or a jax key, got {type(rng_key).__name__}{shape}")


def is_key(value: Any) -> bool:
    """Is it an array of typed keys?"""
    return isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
