"""Rejection sampling of whole arrays."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def until_accepted(
    rng_key: Array, propose: Callable[[Array], tuple[Array, Array]], like: Array
) -> tuple[Array, Array]:
    """A key to go on with, and what `propose(noise)` gives, each element the first time that it is accepted, an array
    like `like`.

    `propose` maps noise that is uniform on (-1, 1) to proposals and the logarithms of the probabilities to accept them.
    All elements are proposed anew until the last is accepted. One whose probability is not a number, since a parameter
    is none or infinite, is taken at once: the draw is then wrong as the parameter is, where waiting for it would never
    end.
    """
    # -1 itself, which the generator might give, has an infinite normal score.
    lowest = jnp.nextafter(jnp.asarray(-1.0, like.dtype), jnp.zeros((), like.dtype))

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, kept, accepted = state
        key, now = jax.random.split(key)
        # One flat call for both: each call compiles a generator of its own, which grows with the number of axes.
        noise, chance = jax.random.uniform(now, (2 * like.size,), like.dtype, lowest, 1.0).reshape(2, *like.shape)
        proposed, log_probability = propose(noise)
        good = ~((1 + chance) / 2 >= jnp.exp(log_probability))
        return key, jnp.where(accepted, kept, proposed), accepted | good

    start = rng_key, jnp.zeros_like(like), jnp.zeros(like.shape, bool)
    key, kept, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), again, start)
    return key, kept
