"""Where a fit may start: the points that are tried before the first step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.program.program import Program

NUM_STARTS = 10
START_RADIUS = 2.0


class Origin(NamedTuple):
    """Starting points on the unconstrained scale: `points + spread * noise`, of which the best is taken.

    Shapes:
        points: `[1, size]`, tried with growing noise, or `[NUM_STARTS, size]`.
        spread: `[size]`, 0 where a number is to stay what it is.
    """

    points: np.ndarray
    spread: np.ndarray

    @classmethod
    def around_zero(cls, program: Program) -> Origin:
        """Every number free."""
        number = jnp.result_type(float)
        return cls(np.zeros((1, program.start_size), number), np.ones(program.start_size, number))

    def tried(self, rng_key: jax.Array) -> jax.Array:
        """The points themselves, `[NUM_STARTS, size]`. The noise is uniform; its radius grows from 0 to 2."""
        shape = (NUM_STARTS, self.points.shape[1])
        radii = START_RADIUS * jnp.linspace(0.0, 1.0, NUM_STARTS)[:, None]
        return self.points + self.spread * radii * jax.random.uniform(rng_key, shape, minval=-1.0, maxval=1.0)
