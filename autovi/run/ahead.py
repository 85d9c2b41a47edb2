"""The keys of a chunk's steps, and the noise that their draws are made from, drawn for all of them at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.program.program import Program
from autovi.run.stopping import CHUNK

MAX_BYTES = 2**21  # of a chunk's noise: more would not stay in a cache until its step


class Ahead(NamedTuple):
    """Of one step: its key, the state's key after it, and its noise; without it, the step draws its own."""

    step_key: jax.Array
    rng_key: jax.Array
    noise: Any


def drawn_ahead(program: Program, rng_key: jax.Array, lanes: int = 1) -> Ahead:
    """`Ahead` of each step of a chunk that starts at this key, stacked in front; `lanes` such chunks run side by side.

    Numbers are the same as if each step drew its own. A step has a dozen small operations less, each of which takes
    longer to start than to run, and its noise lies in memory: XLA fuses what makes noise of random bits into all
    that reads a draw, so that the few numbers of a mean were made of bits again for each of the thousands of data.
    """

    def split(key: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        rng_key, step_key = jax.random.split(key)
        return rng_key, (step_key, rng_key)

    _, (step_keys, rng_keys) = jax.lax.scan(split, rng_key, length=CHUNK)

    def noise_of(key: jax.Array) -> Any:
        return program.noise(key, program.plan.num_particles)

    fits = lanes * CHUNK * _bytes(jax.eval_shape(noise_of, rng_key)) <= MAX_BYTES
    return Ahead(step_keys, rng_keys, jax.vmap(noise_of)(step_keys) if fits else None)


def _bytes(tree: Any) -> int:
    """How much memory a tree of arrays takes, keys included."""
    leaves = jax.tree.leaves(tree)
    raw = [
        jax.eval_shape(jax.random.key_data, x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves
    ]
    return sum(x.size * x.dtype.itemsize for x in raw)
