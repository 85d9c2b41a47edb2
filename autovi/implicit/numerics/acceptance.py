"""Rejection sampling of whole arrays."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def until_accepted(rng_key: Array, propose: Callable[[Array], tuple[Array, Array]]) -> Array:
    """What `propose(key)` gives, each element the first time that it is accepted.

    `propose` returns proposals and the logarithms of the probabilities to accept them. All elements are proposed anew
    until the last is accepted. One whose probability is not a number, since a parameter is none or infinite, is taken
    at once: the draw is then wrong as the parameter is, where waiting for it would never end.
    """

    def attempt(key: Array) -> tuple[Array, Array]:
        proposal_key, uniform_key = jax.random.split(key)
        proposed, log_probability = propose(proposal_key)
        uniform = jax.random.uniform(uniform_key, proposed.shape, proposed.dtype)
        return proposed, ~(uniform >= jnp.exp(log_probability))

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, kept, accepted = state
        key, now = jax.random.split(key)
        proposed, good = attempt(now)
        return key, jnp.where(accepted, kept, proposed), accepted | good

    key, first = jax.random.split(rng_key)
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), again, (key, *attempt(first)))[1]
