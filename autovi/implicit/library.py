"""NumPyro's own samplers, differentiated as they are written."""

from __future__ import annotations

from typing import Any

from jax import Array


def library_draw(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """NumPyro's own draws, of shape `shape + fn.event_shape`.

    As the `draw` of a rule it keeps an explicit sampler and its gradient, while the rule's velocity serves values that
    were drawn otherwise: parts of mixtures, bases of truncations.
    """
    ahead = len(shape) - len(fn.batch_shape)
    if shape[ahead:] == fn.batch_shape:
        return fn.sample(rng_key, shape[:ahead])
    return fn.expand(shape).sample(rng_key)
