"""Distributions that are maps of standard normal noise: a draw and its log density, both from the noise.

log q of a draw needs neither the value nor a solve for the noise, so that it stays exact where a map is stiff: in
single precision a triangular system solved at the value loses what the value's rounding lost.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from autovi.distributions import registry
from autovi.distributions.densities import log_density

stop = jax.lax.stop_gradient
LOG_2PI = math.log(2 * math.pi)


@runtime_checkable
class OfNoise(Protocol):
    """A distribution z = T(eps), eps standard normal of z's shape."""

    def from_noise(self, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
        """The draw made of this noise, and log q of it `[*batch]`.

        With `held` the gradient of log q is that of a density whose parameters are held fixed, at the draw: it flows
        through the draw alone, d log q = (dz/dphi)' grad_z log q. Without, it is the whole derivative.
        """


def from_noise(q: dist.Distribution, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
    """The draw of `q` made of standard normal noise of one draw's shape, and log q of it: see `OfNoise`.

    Raises:
        TypeError: a distribution that is no map of noise.
    """
    if isinstance(q, dist.Independent):
        value, log_q = from_noise(q.base_dist, noise, held)
        return value, jnp.sum(log_q, tuple(range(-q.reinterpreted_batch_ndims, 0)))
    if isinstance(q, OfNoise):
        return q.from_noise(noise, held)
    raise TypeError(f"{type(q).__name__}: expected a distribution that is a map of standard normal noise")


def is_of_noise(q: Any) -> bool:
    """Does `from_noise` know the distribution?"""
    while isinstance(q, dist.Independent | Mapped):
        q = q.base if isinstance(q, Mapped) else q.base_dist
    return isinstance(q, OfNoise)


def normal_of(q: dist.Distribution, noise: jax.Array) -> jax.Array:
    """The draw of a normal, univariate or of any covariance, made of standard normal noise of a draw's shape."""
    if is_of_noise(q):
        return from_noise(q, noise)[0]
    q = registry.strip(q)
    if isinstance(q, dist.Normal):
        return q.loc + q.scale * noise
    return q.loc + jnp.einsum("...de,...e->...d", q.scale_tril, noise)


def standard_normal(noise: jax.Array) -> jax.Array:
    """log N(noise; 0, I) over the last axis."""
    return -0.5 * (jnp.sum(jnp.square(noise), -1) + noise.shape[-1] * LOG_2PI)


def held_at(value: jax.Array, log_q: jax.Array, slope: jax.Array) -> jax.Array:
    """log q whose gradient flows through the draw alone, `slope` being grad log q there; elementwise."""
    return stop(log_q) + stop(slope) * (value - stop(value))


class _Drawn:
    """Sampling, for distributions of this file: the noise's log density goes along as the intermediate."""

    def sample_with_intermediates(self: Any, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, list]:
        value, log_q = self.from_noise(_noise(self, key, sample_shape))
        return value, [log_q]


def _noise(q: Any, key: jax.Array, sample_shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(key, q.shape(sample_shape))


class NormalOfNoise(_Drawn, dist.Normal):
    """NumPyro's normal, with log q from the noise."""

    def from_noise(self, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
        value = self.loc + self.scale * noise
        log_q = -0.5 * (jnp.square(noise) + LOG_2PI) - jnp.log(self.scale)
        return value, held_at(value, log_q, -noise / self.scale) if held else log_q

    def log_prob(self, value: Any, intermediates: list | None = None) -> jax.Array:
        return intermediates[0] if intermediates else super().log_prob(value)


class MultivariateNormalOfNoise(_Drawn, dist.MultivariateNormal):
    """NumPyro's multivariate normal, with log q from the noise."""

    def from_noise(self, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
        value = self.loc + jnp.einsum("...de,...e->...d", self.scale_tril, noise)
        diagonal = jnp.diagonal(self.scale_tril, axis1=-2, axis2=-1)
        log_q = standard_normal(noise) - jnp.sum(jnp.log(diagonal), -1)
        if not held:
            return value, log_q
        slope = -solve_triangular(stop(self.scale_tril), noise[..., None], lower=True, trans=1)[..., 0]
        return value, stop(log_q) + jnp.sum(held_at(value, jnp.zeros(()), slope), -1)

    def log_prob(self, value: Any, intermediates: list | None = None) -> jax.Array:
        return intermediates[0] if intermediates else super().log_prob(value)


class LowRankNormalOfNoise(dist.LowRankMultivariateNormal):
    """NumPyro's normal of low rank, with log q of a draw from its deviation, not from the value less the mean: far from
    zero that difference has lost its digits."""

    def sample_with_intermediates(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, list]:
        around = dist.LowRankMultivariateNormal(jnp.zeros_like(self.loc), self.cov_factor, self.cov_diag)
        deviation = around.sample(key, sample_shape)
        return self.loc + deviation, [around.log_prob(deviation)]

    def log_prob(self, value: Any, intermediates: list | None = None) -> jax.Array:
        return intermediates[0] if intermediates else super().log_prob(value)


class Mapped(dist.Distribution):
    """u = loc + scale v for v of another distribution over vectors; scale a lower triangle, or its diagonal alone.

    log q(u) = log q(v) - sum log diag(scale): of a draw from v itself, never from a solve at u. With `vectors` V and
    `lengths` l it is scale (v + V (l - 1) V' v), and log q(v) less the sum of log l too.

    Args:
        base: the distribution of v, event shape (D,).
        loc: the shift (D,).
        scale_tril: (D, D), lower triangular, or (D,).
        vectors: None, or (D, k), orthonormal.
        lengths: None, or (k,), positive.
    """

    arg_constraints: dict[str, Any] = {}
    support = dist.constraints.real_vector
    pytree_data_fields = ("base", "loc", "scale_tril", "vectors", "lengths")

    def __init__(
        self,
        base: dist.Distribution,
        loc: jax.Array,
        scale_tril: jax.Array,
        vectors: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ):
        self.base, self.loc, self.scale_tril = base, loc, scale_tril
        self.vectors, self.lengths = vectors, lengths
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def _log_det(self) -> jax.Array:
        diagonal = self.scale_tril if self.scale_tril.ndim == 1 else jnp.diagonal(self.scale_tril)
        along = 0.0 if self.lengths is None else jnp.sum(jnp.log(self.lengths))
        return jnp.sum(jnp.log(diagonal)) + along

    def _mapped(self, v: jax.Array) -> jax.Array:
        factor, v = self.scale_tril, stretched(self.vectors, self.lengths, v)
        return self.loc + (factor * v if factor.ndim == 1 else jnp.einsum("de,...e->...d", factor, v))

    @property
    def mean(self) -> jax.Array:
        return self._mapped(self.base.mean)

    @property
    def variance(self) -> jax.Array:
        if self.scale_tril.ndim > 1 or self.vectors is not None:
            raise TypeError("Mapped: variance is known where the map scales each coordinate alone")
        return jnp.square(self.scale_tril) * self.base.variance

    def from_noise(self, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
        v, log_q = from_noise(self.base, noise, held)
        return self._mapped(v), log_q - self._log_det

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self._mapped(self.base.sample(key, sample_shape))

    def sample_with_intermediates(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, list]:
        v, intermediates = self.base.sample_with_intermediates(key, sample_shape)
        log_q = self.base.log_prob(v, intermediates) if intermediates else log_density(self.base, v)
        return self._mapped(v), [log_q - self._log_det]

    def log_prob(self, value: Any, intermediates: list | None = None) -> jax.Array:
        if intermediates:
            return intermediates[0]
        far = jnp.asarray(value) - self.loc
        if self.scale_tril.ndim == 1:
            lengths = None if self.lengths is None else 1 / self.lengths
            return log_density(self.base, stretched(self.vectors, lengths, far / self.scale_tril)) - self._log_det
        columns = far.reshape(-1, far.shape[-1]).T
        v = solve_triangular(self.scale_tril, columns, lower=True).T.reshape(far.shape)
        return log_density(self.base, v) - self._log_det


def stretched(vectors: jax.Array | None, lengths: jax.Array | None, v: jax.Array) -> jax.Array:
    """Vectors v (..., D), `lengths` (k,) times as long along orthonormal `vectors` (D, k)."""
    if vectors is None or lengths is None:
        return v
    return v + ((v @ vectors) * (lengths - 1)) @ vectors.T
