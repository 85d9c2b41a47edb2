"""A normal distribution as the map of standard normal noise: what every rung of the ladder hands to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LogDensity = Callable[[jax.Array], jax.Array]
"""From one vector, shape `(D,)`, to the logarithm of a density that need not integrate to one; NaN and infinities are
allowed."""

LOG_2_PI = 1.8378770664093453


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product in the full precision of its factors, which a GPU gives to float32 only when asked."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class Normal(NamedTuple):
    """The normal distribution of `loc + scale v` with standard normal `v`.

    Args:
        loc: shape `(D,)`.
        scale: a lower triangle with a positive diagonal, shape `(D, D)`, or the standard deviations of independent
            coordinates, shape `(D,)`.

    Example:
        >>> normal = Normal(jnp.array([1.0, 2.0]), jnp.array([[3.0, 0.0], [4.0, 5.0]]))
        >>> normal.at(jnp.array([1.0, 1.0])).tolist()
        [4.0, 11.0]
    """

    loc: jax.Array
    scale: jax.Array

    @property
    def log_det(self) -> jax.Array:
        """The logarithm of the determinant of `scale`."""
        diagonal = self.scale if self.scale.ndim == 1 else jnp.diagonal(self.scale)
        return jnp.log(diagonal).sum()

    @property
    def covariance(self) -> jax.Array:
        """Shape `(D, D)`."""
        return jnp.diag(self.scale**2) if self.scale.ndim == 1 else product(self.scale, self.scale.T)

    def stretched(self, noise: jax.Array) -> jax.Array:
        """`scale v` for each `v` of `noise`, shape `(..., D)`: what `at` adds to `loc`."""
        return noise * self.scale if self.scale.ndim == 1 else product(noise, self.scale.T)

    def at(self, noise: jax.Array) -> jax.Array:
        """`loc + scale v` for each `v` of `noise`, shape `(..., D)`."""
        return self.loc + self.stretched(noise)

    def log_density_at_noise(self, noise: jax.Array) -> jax.Array:
        """The log density of `at(noise)`, shape `(...)`, from the noise and the map.

        To find the noise of a draw again by a triangular solve loses in float32 what the condition of `scale` takes.
        """
        return -0.5 * (noise**2).sum(-1) - 0.5 * self.loc.shape[0] * LOG_2_PI - self.log_det

    def after(self, inner: Normal) -> Normal:
        """The distribution of `loc + scale w` where `w` has the distribution `inner`."""
        loc = self.at(inner.loc)
        if self.scale.ndim == 1:
            return Normal(loc, self.scale * inner.scale if inner.scale.ndim == 1 else self.scale[:, None] * inner.scale)
        return Normal(loc, self.scale * inner.scale if inner.scale.ndim == 1 else product(self.scale, inner.scale))


def standard(dimension: int, dtype: jax.typing.DTypeLike) -> Normal:
    """The standard normal distribution with its scale as a matrix."""
    return Normal(jnp.zeros(dimension, dtype), jnp.eye(dimension, dtype=dtype))


def behind(log_density: LogDensity, normal: Normal) -> LogDensity:
    """The function `v -> log_density(loc + scale v)`: where `normal` fits the density, a standard normal but for a
    constant. The determinant of the map is not added.

    Example:
        >>> normal = Normal(jnp.array([3.0]), jnp.array([2.0]))
        >>> float(behind(lambda u: -0.5 * ((u[0] - 3.0) / 2.0) ** 2, normal)(jnp.array([1.0])))
        -0.5
    """
    return lambda noise: log_density(normal.at(noise))
