"""The curvature of each coordinate at a mode, where there are too many for a matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autovi.ladder.normal import LogDensity, Normal

NUM_PROBES = 16


def diagonal_curvature(log_density: LogDensity, point: jax.Array) -> Normal:
    r"""Independent normals at a point, with the curvature of each coordinate given all others.

    The diagonal of minus the Hessian H is the mean of v * H v over vectors v of random signs (Hutchinson, 1990; Bekas,
    Kokiopoulou and Saad, 2007): exact where H is diagonal, as for the elements of plates given what is common, else
    with an error of the size of what stands beside the diagonal. Coordinates in which the density is not curved down
    keep the unit.
    """

    def probe(key: jax.Array) -> jax.Array:
        signs = jax.random.rademacher(key, point.shape, point.dtype)
        return -signs * jax.jvp(jax.grad(log_density), (point,), (signs,))[1]

    found = jnp.mean(jax.lax.map(probe, jax.random.split(jax.random.key(0), NUM_PROBES)), axis=0)
    return Normal(point, jnp.where(jnp.isfinite(found) & (found > 0), jax.lax.rsqrt(jnp.abs(found)), 1.0))
