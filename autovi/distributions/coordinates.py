"""Partly non-centred coordinates of a value whose distribution has a location and a scale.

A number t, the *node*, stands for the value x = m + (s / s0)^(1 - l) (t - l m), in a fixed unit s0 of the scale. Where
the *degree* l is 1, the node is the value itself (centred); where it is 0, the value is m + (s / s0) t (non-centred).
The prior of t has the location l m and the scale s^l s0^(1 - l). Values are unconstrained here: of a positive site, the
logarithm.

Gorinova, Moore and Hoffman (2020), "Automatic Reparameterisation of Probabilistic Programs", ICML, have s0 = 1, which
makes what a degree means depend on the unit of x: m enters with the factor 1 - l s^(1 - l). With s0 a typical value of
s it is 1 - l, the share of the prior in a normal posterior's mean, for any unit.

Numerical traps: powers of s are exp of multiples of log s, and log s is kept finite where s has underflowed to zero.
The standardized value (x - m) / s comes from t: from x it has lost all digits by which x and m agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular


class Centring(NamedTuple):
    """How centred the coordinates of a site are: `degree` in [0, 1] and `unit` > 0, of the node's shape."""

    degree: Array
    unit: Array


class Coordinates(ABC):
    """The map between nodes and unconstrained values, given the parameters of the site's distribution.

    `spread` is the scale as the distribution has it (its scale, its rate, a Cholesky factor). All arrays broadcast from
    the right with the node; event dimensions are last.
    """

    location: Any
    spread: Any
    # The degree at which, with a unit of 1, a node is the value itself.
    plain: ClassVar[float] = 1.0

    @abstractmethod
    def log_scale(self) -> Array:
        """log s, which broadcasts with the node."""

    @abstractmethod
    def value(self, node: Array, at: Centring) -> Array:
        """The unconstrained value that a node stands for: the node itself, to the last bit, where the degree is 1."""

    @abstractmethod
    def node(self, value: Array, at: Centring) -> Array:
        """The node that stands for an unconstrained value."""

    @abstractmethod
    def standardized(self, node: Array, at: Centring) -> Array:
        """The value less the location, in units of the scale."""

    def log_det(self, at: Centring) -> Array:
        """log |d value / d node|, of the node's shape: its sum over the event dimensions counts."""
        return (1 - at.degree) * (self.log_scale() - jnp.log(at.unit))

    def _factor(self, at: Centring) -> Array:
        """(s / s0)^(1 - l): 1 to the last bit where the degree is 1."""
        return jnp.exp(Coordinates.log_det(self, at))

    def _precision(self, at: Centring) -> Array:
        """1 / (s^l s0^(1 - l)), the inverse scale of the node's prior."""
        return jnp.exp(-(at.degree * self.log_scale() + (1 - at.degree) * jnp.log(at.unit)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Univariate(Coordinates):
    """x = m + (s / s0)^(1 - l) (t - l m), element by element."""

    location: Any
    spread: Any

    def log_scale(self) -> Array:
        return finite_log(self.spread)

    def value(self, node: Array, at: Centring) -> Array:
        factor = self._factor(at)
        return factor * node + (1 - at.degree * factor) * self.location

    def node(self, value: Array, at: Centring) -> Array:
        found = at.degree * self.location + (value - self.location) / self._factor(at)
        return jnp.where(at.degree == 1, value, found)

    def standardized(self, node: Array, at: Centring) -> Array:
        return self._precision(at) * (node - at.degree * self.location)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OfImage(Univariate):
    """Of a value z, standard by its own distribution, that the model uses as the image x = m + s z: the node stands for
    x as above, and for z = (x - m) / s = (t - l m) / (s^l s0^(1 - l)).

    Where the degree is 0, the node is z in the unit 1 / s0; where it is 1, the node is the image (centred).
    """

    location: Any
    spread: Any
    plain: ClassVar[float] = 0.0

    def value(self, node: Array, at: Centring) -> Array:
        return self.standardized(node, at)

    def node(self, value: Array, at: Centring) -> Array:
        return at.degree * self.location + value / self._precision(at)

    def log_det(self, at: Centring) -> Array:
        return -(at.degree * self.log_scale() + (1 - at.degree) * jnp.log(at.unit))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Positive(Coordinates):
    """log x = t + (1 - l) log(s / s0), for a scale that multiplies the positive value. `exponent` is -1 where `spread`
    is a rate."""

    spread: Any
    location: None = None
    exponent: int = field(default=1, metadata={"static": True})

    def log_scale(self) -> Array:
        return self.exponent * finite_log(self.spread)

    def value(self, node: Array, at: Centring) -> Array:
        return node + super().log_det(at)

    def node(self, value: Array, at: Centring) -> Array:
        return value - super().log_det(at)

    def standardized(self, node: Array, at: Centring) -> Array:
        """The logarithm of the value in units of the scale."""
        return node - (at.degree * self.log_scale() + (1 - at.degree) * jnp.log(at.unit))

    def log_det(self, at: Centring) -> Array:
        return jnp.zeros_like(at.degree)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Triangular(Coordinates):
    """x = m + M (t - l m) for a vector with a Cholesky factor L, M = L diag((1 - l) / (s^l s0^(1 - l))) +
    diag(l (s / s0)^(1 - l)), s the diagonal of L.

    M is lower triangular with the diagonal (s / s0)^(1 - l), so that the Jacobian is that of independent coordinates;
    it is L / s0 where l = 0 and the identity where l = 1. Columns are mixed, not rows: the standardized value
    L^-1 (x - m) then has a part that needs no solution, and one that vanishes with l.
    """

    location: Any
    spread: Any

    def log_scale(self) -> Array:
        return finite_log(jnp.diagonal(self.spread, axis1=-2, axis2=-1))

    def value(self, node: Array, at: Centring) -> Array:
        kept = at.degree * self._factor(at)
        own = kept * node + (1 - at.degree * kept) * self.location
        return jnp.einsum("...ij,...j->...i", self.spread, self._free(node, at)) + own

    def node(self, value: Array, at: Centring) -> Array:
        matrix = self.spread * ((1 - at.degree) * self._precision(at))[..., None, :]
        kept = at.degree * self._factor(at)
        matrix = matrix + kept[..., None] * jnp.eye(kept.shape[-1], dtype=matrix.dtype)
        found = at.degree * self.location + _solve(matrix, value - self.location)
        return jnp.where(jnp.all(at.degree == 1, axis=-1, keepdims=True), value, found)

    def standardized(self, node: Array, at: Centring) -> Array:
        kept = at.degree * self._factor(at) * (node - at.degree * self.location)
        return self._free(node, at) + _solve(self.spread, kept)

    def _free(self, node: Array, at: Centring) -> Array:
        return (1 - at.degree) * self._precision(at) * (node - at.degree * self.location)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk(Coordinates):
    """The same for a random walk from zero, whose L is s times a triangle of ones: sums and differences take the place
    of products with L and its inverse."""

    spread: Any
    location: None = None

    def log_scale(self) -> Array:
        return finite_log(self._scale)

    def value(self, node: Array, at: Centring) -> Array:
        free = (1 - at.degree) * self._precision(at) * node
        return self._scale * jnp.cumsum(free, axis=-1) + at.degree * self._factor(at) * node

    def node(self, value: Array, at: Centring) -> Array:
        free = (1 - at.degree) * self._precision(at)

        def step(total: Array, column: tuple[Array, ...]) -> tuple[Array, Array]:
            x, s, factor, share = column
            found = (x - s * total) / factor
            return total + share * found, found

        parts = (value, self._scale, self._factor(at), free)
        columns = tuple(jnp.moveaxis(jnp.broadcast_to(x, value.shape), -1, 0) for x in parts)
        _, found = jax.lax.scan(step, jnp.zeros(value.shape[:-1], value.dtype), columns)
        return jnp.moveaxis(found, 0, -1)

    def standardized(self, node: Array, at: Centring) -> Array:
        whole = self._precision(at) * node
        kept = at.degree * whole
        before = jnp.pad(kept[..., :-1], [(0, 0)] * (kept.ndim - 1) + [(1, 0)])
        return (1 - at.degree) * whole + kept - before

    @property
    def _scale(self) -> Array:
        return jnp.asarray(self.spread)[..., None]


def finite_log(scale: Any) -> Array:
    """log s, finite where s has underflowed to zero: times 1 - l = 0 it has to vanish."""
    scale = jnp.asarray(scale, jnp.result_type(scale, float))
    return jnp.log(jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))


def _solve(matrix: Array, vector: Array) -> Array:
    batch = jnp.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    matrix = jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:]))
    vector = jnp.broadcast_to(vector, (*batch, vector.shape[-1]))
    return solve_triangular(matrix, vector[..., None], lower=True)[..., 0]
