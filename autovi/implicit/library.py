"""NumPyro's own samplers, differentiated as they are written."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from autovi.implicit.guard import float_type


def library_draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """NumPyro's own draws, of shape `shape + fn.event_shape`.

    As the `draw` of a rule it keeps an explicit sampler and its gradient, while the rule's velocity serves values that
    were drawn otherwise: parts of mixtures, bases of truncations.
    """
    ahead = len(shape) - len(fn.batch_shape)
    same = shape[ahead:] == fn.batch_shape
    value = fn.sample(rng_key, shape[:ahead]) if same else fn.expand(shape).sample(rng_key)
    return jnp.asarray(value, float_type(fn))  # NumPyro's noise may be wider than the parameters
