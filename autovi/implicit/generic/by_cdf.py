"""The implicit gradient of a univariate draw from a distribution function that JAX can differentiate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def cdf_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """`dz = -dF(z; theta) / p(z; theta)`, from the `cdf` and the `log_prob` of `fn`.

    Figurnov, Mohamed and Mnih (2018), equation 6. Where the density underflows, so does the derivative of F, and the
    result is 0: no draw falls there.
    """
    leaves, treedef = jax.tree.flatten(fn)
    tangents = jax.tree.leaves(moving)
    _, along = jax.jvp(lambda leaves: jax.tree.unflatten(treedef, leaves).cdf(value), (leaves,), (tangents,))
    density = jnp.exp(fn.log_prob(value))
    seen = density > jnp.finfo(density.dtype).tiny
    return jnp.where(seen, -along, 0.0) / jnp.where(seen, density, 1.0)
