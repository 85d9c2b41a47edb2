"""The curvature of each coordinate at a mode, where there are too many for a matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autovi.ladder.normal import LogDensity, Normal

NUM_PROBES = 16


def diagonal_of_hessian(log_density: LogDensity, point: jax.Array, exact: bool, lanes: int = 1) -> jax.Array:
    """The diagonal of the Hessian H of a log density: `exact`, so many `lanes` of it side by side, or as the mean of
    v * H v over vectors v of random signs (Hutchinson, 1990; Bekas, Kokiopoulou and Saad, 2007). That is exact too
    where H is diagonal, as for the elements of plates given what is common; else its error has the size of what stands
    beside the diagonal."""
    _, along = jax.linearize(jax.grad(log_density), point)
    products = jax.vmap(lambda v: v * along(v))
    size = point.shape[0]
    if exact:
        lanes = min(lanes, size)
        parts = -(-size // lanes)
        # Padded with zeros to whole parts: a remainder would be compiled for itself.
        basis = jnp.eye(parts * lanes, size, dtype=point.dtype).reshape(parts, lanes, size)
        return jnp.sum(jax.lax.map(lambda part: jnp.sum(products(part), 0), basis), 0)
    keys = jax.random.split(jax.random.key(0), NUM_PROBES)
    probes = jax.vmap(lambda key: jax.random.rademacher(key, point.shape, point.dtype))(keys)
    return jnp.mean(jax.lax.map(lambda v: v * along(v), probes), axis=0)


def diagonal_curvature(log_density: LogDensity, point: jax.Array, exact: bool, lanes: int = 1) -> Normal:
    """Independent normals at a point, with the curvature of each coordinate given all others. Coordinates in which the
    density is not curved down keep the unit."""
    found = -diagonal_of_hessian(log_density, point, exact, lanes)
    return Normal(point, jnp.where(jnp.isfinite(found) & (found > 0), jax.lax.rsqrt(jnp.abs(found)), 1.0))
