"""The distribution that a map makes of standard normal noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.distributions.noise import held_at, standard_normal

stop = jax.lax.stop_gradient


class NoiseMap(Protocol):
    """A smooth bijection u = T(eps; params) of vectors of length D; hashable. `layout` says what the vector is."""

    def forward(self, params: Any, noise: jax.Array, layout: Any) -> tuple[jax.Array, jax.Array]:
        """u and log |det dT/deps|."""

    def inverse(self, params: Any, value: jax.Array, layout: Any) -> tuple[jax.Array, jax.Array]:
        """eps and log |det dT/deps| there."""

    def slope(self, params: Any, noise: jax.Array, value: jax.Array, layout: Any) -> jax.Array:
        """The gradient of log q in u = T(eps)."""


def slope_by_inverse(noise_map: NoiseMap, params: Any, value: jax.Array, layout: Any) -> jax.Array:
    """The gradient of log q at a value, by differentiating the inverse map."""

    def log_q(value: jax.Array) -> jax.Array:
        noise, log_det = noise_map.inverse(params, value, layout)
        return standard_normal(noise) - log_det

    return jax.grad(log_q)(value)


class Pushforward(dist.Distribution):
    """q(u) = N(eps; 0, I) / |det dT/deps|, u = T(eps; params).

    Of a draw the log density comes from the noise and the map alone; of any other value through the exact inverse.

    Args:
        noise_map: T, written for one vector.
        params: a tree of arrays, each with the batch shape in front.
        layout: of T: `event_shape` is (D,), and `batch_shape` says how many batch axes there are.
    """

    arg_constraints: dict[str, Any] = {}
    support = dist.constraints.real_vector
    pytree_data_fields = ("params",)
    pytree_aux_fields = ("noise_map", "layout")

    def __init__(self, noise_map: NoiseMap, params: Any, layout: Any):
        self.noise_map, self.params, self.layout = noise_map, params, layout
        # Of a subsampled plate these are the rows of some elements only: the layout knows how many axes, not how long.
        batch_shape = jnp.shape(jax.tree.leaves(params)[0])[: len(layout.batch_shape)]
        super().__init__(batch_shape, layout.event_shape, validate_args=False)

    def from_noise(self, noise: jax.Array, held: bool = False) -> tuple[jax.Array, jax.Array]:
        """The draw made of this noise, and log q of it: see `noise.OfNoise`."""
        return self._each(self._held if held else self._one, noise)

    def _one(self, params: Any, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, log_det = self.noise_map.forward(params, noise, self.layout)
        return value, standard_normal(noise) - log_det

    def _held(self, params: Any, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, log_q = self._one(params, noise)
        slope = self.noise_map.slope(jax.tree.map(stop, params), noise, stop(value), self.layout)
        return value, stop(log_q) + jnp.sum(held_at(value, jnp.zeros((), value.dtype), slope), -1)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, list]:
        value, log_q = self.from_noise(jax.random.normal(key, self.shape(sample_shape)))
        return value, [log_q]

    def log_prob(self, value: Any, intermediates: list | None = None) -> jax.Array:
        if intermediates:
            return intermediates[0]
        value = jnp.asarray(value)
        shape = jnp.broadcast_shapes(value.shape, self.shape())

        def one(params: Any, value: jax.Array) -> jax.Array:
            noise, log_det = self.noise_map.inverse(params, value, self.layout)
            return standard_normal(noise) - log_det

        return self._each(one, jnp.broadcast_to(value, shape))

    def _each(self, fn: Callable, vectors: jax.Array) -> Any:
        """`fn(params, vector)` for every vector, batch and sample axes in front."""
        for _ in self.batch_shape:
            fn = jax.vmap(fn)
        for _ in range(vectors.ndim - len(self.batch_shape) - 1):
            fn = jax.vmap(fn, in_axes=(None, 0))
        return fn(self.params, vectors)
