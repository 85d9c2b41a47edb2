"""Partly non-centred coordinates of a value whose distribution has a location and a scale.

A number t, the *node*, stands for the value x = m + s^(1 - l) (t - l m). Where the *centring* l is 1, the node is the
value itself; where it is 0, the value is m + s t (non-centred). Values are unconstrained here: of a positive site, the
logarithm.

Gorinova, Moore and Hoffman (2020), "Automatic Reparameterisation of Probabilistic Programs", ICML.

Numerical traps: powers of s are exp of multiples of log s, and log s is kept finite where s has underflowed to zero.
The standardized value (x - m) / s comes from t: from x it has lost all digits by which x and m agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular


class Coordinates(ABC):
    """The map between nodes and unconstrained values, given the parameters of the site's distribution.

    `spread` is the scale as the distribution has it (its scale, its rate, a Cholesky factor). All arrays broadcast from
    the right with the node, and with the centring l, which has the node's shape; both have the event dimensions last.
    """

    location: Any
    spread: Any

    @abstractmethod
    def value(self, node: Array, centring: Array) -> Array:
        """The unconstrained value that a node stands for: the node itself, to the last bit, where the centring is 1."""

    @abstractmethod
    def node(self, value: Array, centring: Array) -> Array:
        """The node that stands for an unconstrained value."""

    @abstractmethod
    def log_det(self, centring: Array) -> Array:
        """log |d value / d node|, of the node's shape: its sum over the event dimensions counts."""

    @abstractmethod
    def standardized(self, node: Array, centring: Array) -> Array:
        """The value less the location, in units of the scale."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Univariate(Coordinates):
    """x = m + s^(1 - l) (t - l m), element by element."""

    location: Any
    spread: Any

    def value(self, node: Array, centring: Array) -> Array:
        factor = power(self.spread, 1 - centring)
        return factor * node + (1 - centring * factor) * self.location

    def node(self, value: Array, centring: Array) -> Array:
        found = centring * self.location + power(self.spread, centring - 1) * (value - self.location)
        return jnp.where(centring == 1, value, found)

    def log_det(self, centring: Array) -> Array:
        return (1 - centring) * log_scale(self.spread)

    def standardized(self, node: Array, centring: Array) -> Array:
        return power(self.spread, -centring) * (node - centring * self.location)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Positive(Coordinates):
    """log x = t + (1 - l) log s, for a scale that multiplies the positive value. `exponent` is -1 where `spread` is a
    rate."""

    spread: Any
    location: None = None
    exponent: int = field(default=1, metadata={"static": True})

    def value(self, node: Array, centring: Array) -> Array:
        return node + (1 - centring) * self._log_scale

    def node(self, value: Array, centring: Array) -> Array:
        return value - (1 - centring) * self._log_scale

    def log_det(self, centring: Array) -> Array:
        return jnp.zeros_like(centring)

    def standardized(self, node: Array, centring: Array) -> Array:
        return node - centring * self._log_scale

    @property
    def _log_scale(self) -> Array:
        return self.exponent * log_scale(self.spread)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Triangular(Coordinates):
    """x = m + M (t - l m) for a vector with a Cholesky factor L: M = L diag((1 - l) s^(-l)) + diag(l s^(1 - l)), s the
    diagonal of L.

    M is lower triangular with the diagonal s^(1 - l), so that the Jacobian is that of independent coordinates; it is L
    where l = 0 and the identity where l = 1. Columns are mixed, not rows: the standardized value L^-1 (x - m) is then
    (1 - l) s^(-l) (t - l m) and the solution of a system whose right side vanishes with l.
    """

    location: Any
    spread: Any

    def value(self, node: Array, centring: Array) -> Array:
        free, factor = self._free(node, centring), power(self._diagonal, 1 - centring)
        own = centring * factor * node + (1 - centring**2 * factor) * self.location
        return jnp.einsum("...ij,...j->...i", self.spread, free) + own

    def node(self, value: Array, centring: Array) -> Array:
        matrix = self.spread * ((1 - centring) * power(self._diagonal, -centring))[..., None, :]
        kept = centring * power(self._diagonal, 1 - centring)
        matrix = matrix + kept[..., None] * jnp.eye(kept.shape[-1], dtype=matrix.dtype)
        found = centring * self.location + _solve(matrix, value - self.location)
        return jnp.where(jnp.all(centring == 1, axis=-1, keepdims=True), value, found)

    def log_det(self, centring: Array) -> Array:
        return (1 - centring) * log_scale(self._diagonal)

    def standardized(self, node: Array, centring: Array) -> Array:
        kept = centring * power(self._diagonal, 1 - centring) * (node - centring * self.location)
        return self._free(node, centring) + _solve(self.spread, kept)

    @property
    def _diagonal(self) -> Array:
        return jnp.diagonal(self.spread, axis1=-2, axis2=-1)

    def _free(self, node: Array, centring: Array) -> Array:
        return (1 - centring) * power(self._diagonal, -centring) * (node - centring * self.location)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk(Coordinates):
    """The same for a random walk from zero, whose L is s times a triangle of ones: sums and differences take the place
    of products with L and its inverse."""

    spread: Any
    location: None = None

    def value(self, node: Array, centring: Array) -> Array:
        scale = self._scale
        free = (1 - centring) * power(scale, -centring) * node
        return scale * jnp.cumsum(free, axis=-1) + centring * power(scale, 1 - centring) * node

    def node(self, value: Array, centring: Array) -> Array:
        scale = jnp.broadcast_to(self._scale, value.shape)

        def step(total: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
            x, s, c = at
            found = (x - s * total) * power(s, c - 1)
            return total + (1 - c) * power(s, -c) * found, found

        columns = tuple(jnp.moveaxis(x, -1, 0) for x in (value, scale, jnp.broadcast_to(centring, value.shape)))
        _, found = jax.lax.scan(step, jnp.zeros(value.shape[:-1], value.dtype), columns)
        return jnp.moveaxis(found, 0, -1)

    def log_det(self, centring: Array) -> Array:
        return (1 - centring) * log_scale(self._scale)

    def standardized(self, node: Array, centring: Array) -> Array:
        unit = power(self._scale, -centring) * node
        kept = centring * unit
        before = jnp.pad(kept[..., :-1], [(0, 0)] * (kept.ndim - 1) + [(1, 0)])
        return (1 - centring) * unit + kept - before

    @property
    def _scale(self) -> Array:
        return jnp.asarray(self.spread)[..., None]


def log_scale(scale: Any) -> Array:
    """log s, finite where s has underflowed to zero: times 1 - l = 0 it has to vanish."""
    scale = jnp.asarray(scale, jnp.result_type(scale, float))
    return jnp.log(jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))


def power(scale: Any, exponent: Array) -> Array:
    """s^exponent, which is 1 to the last bit where the exponent is 0."""
    return jnp.exp(exponent * log_scale(scale))


def _solve(matrix: Array, vector: Array) -> Array:
    batch = jnp.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    matrix = jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:]))
    vector = jnp.broadcast_to(vector, (*batch, vector.shape[-1]))
    return solve_triangular(matrix, vector[..., None], lower=True)[..., 0]
