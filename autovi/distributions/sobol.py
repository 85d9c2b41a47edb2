"""Sobol points in random order, randomized so that each of them is uniform: what randomized quasi-Monte Carlo draws."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from scipy.stats import qmc

BITS = 32
MAX_DIMENSIONS = qmc.Sobol.MAXDIM


def sobol_normals(rng_key: jax.Array, num_points: int, num_dimensions: int) -> jax.Array:
    """Points (num_points, num_dimensions), each standard normal, that fill the space more evenly than independent ones.

    The bits of each coordinate of the Sobol points are multiplied by a random lower triangular matrix and shifted by
    random bits, modulo 2: every point is uniform on the cube, and all of them stay a net, whose means of smooth
    functions have a variance that falls nearly with the cube of the number of points (at powers of two). In random
    order, so that two sets of points may be paired. Matousek (1998), "On the L2-discrepancy for anchored boxes", with
    the direction numbers of Joe and Kuo (2008), by SciPy.

    Raises:
        ValueError: more dimensions than there are direction numbers for.
    """
    if num_dimensions > MAX_DIMENSIONS:
        raise ValueError(f"sobol: expected at most {MAX_DIMENSIONS} numbers in a draw, got {num_dimensions}")
    matrix_key, shift_key, order_key = jax.random.split(rng_key, 3)
    points = jnp.asarray(_points(num_points, num_dimensions))
    shift = jax.random.bits(shift_key, (num_dimensions,), jnp.uint32)
    points = _scrambled(matrix_key, points) ^ shift
    points = jax.random.permutation(order_key, points)
    # As many bits as the number type holds, and the middle of the cell, so that 0 and 1 are never met.
    kept = BITS if jnp.zeros(()).dtype == jnp.float64 else 23
    return ndtri(((points >> (BITS - kept)).astype(float) + 0.5) * 2.0**-kept)


@lru_cache(maxsize=32)
def _points(num_points: int, num_dimensions: int) -> np.ndarray:
    """The first Sobol points as fractions of 2^32."""
    exponent = max(num_points - 1, 0).bit_length()
    points = qmc.Sobol(num_dimensions, scramble=False, bits=BITS).random_base2(exponent)[:num_points]
    return (points * 2.0**BITS).astype(np.uint32)


def _scrambled(rng_key: jax.Array, points: jax.Array) -> jax.Array:
    """Bit i of each coordinate becomes the parity of it and a random set of the bits above it."""
    place = jnp.arange(BITS, dtype=jnp.uint32)
    own = jnp.uint32(1) << place
    above = jnp.uint32(2**BITS - 1) << (place + 1)  # a shift by 32 gives 0
    rows = (jax.random.bits(rng_key, (points.shape[1], BITS), jnp.uint32) & above) | own
    parity = jax.lax.population_count(points[:, :, None] & rows) & 1
    return jnp.sum(parity << place, axis=-1, dtype=jnp.uint32)
