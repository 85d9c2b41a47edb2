"""Partly non-centred coordinates of a value whose distribution has a location and a scale.

Where a site's location m and scale s are unknown, what is known of its value x moves with them. Let what the data say
of x be a normal observation of it, d with the precision w (*pseudo-data*). If m and s were known, x would be normal,
with the mean m + k (d - m) and the standard deviation s / sqrt(1 + s^2 w), k = s^2 w / (1 + s^2 w). A number t, the
*node*, stands for

    x = m + k (d - m) + s / sqrt(1 + s^2 w) t,

so that t is standard normal given m and s, *whatever they are*. Where w = 0 the data say nothing, and x = m + s t
(non-centred); where s^2 w is large they say all, and x = d + t / sqrt(w) (centred, in the data's own unit). Where w is
infinite the node is taken as it is, x = d + t, which with d = 0 is the value itself. Values are unconstrained here: of
a positive site, the logarithm.

The partly non-centred coordinates of Gorinova, Moore and Hoffman (2020), "Automatic Reparameterisation of Probabilistic
Programs", ICML, have powers s^(1 - l) in the place of these functions of s, which fit one value of s. Pseudo-data are
the site parameters of expectation propagation and of conjugate-computation variational inference (Khan and Lin, 2017).

Numerical traps: functions of s are made of g = log s + log(w) / 2 and softplus(2 g) = log(1 + s^2 w), which overflow
nowhere, and log s is kept finite where s has underflowed to zero. The standardized value (x - m) / s comes from t: from
x it has lost all digits by which x and m agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

NEVER = -1e4  # in the place of log 0


class PseudoData(NamedTuple):
    """What the data say of each element of a site, as a normal observation of it: `precision` w in [0, inf] and `value`
    d, of the node's shape."""

    precision: Array
    value: Array


class Coordinates(ABC):
    """The map between nodes and unconstrained values, given the parameters of the site's distribution.

    `spread` is the scale as the distribution has it (its scale, its rate, a Cholesky factor). All arrays broadcast from
    the right with the node; event dimensions are last.
    """

    location: Any
    spread: Any
    # The precision at which, with pseudo-data of 0, a node is the unconstrained value itself.
    plain: ClassVar[float] = np.inf

    @abstractmethod
    def log_scale(self) -> Array:
        """log s, which broadcasts with the node."""

    @abstractmethod
    def value(self, node: Array, at: PseudoData) -> Array:
        """The unconstrained value that a node stands for: the node itself, to the last bit, at the `plain` ones."""

    @abstractmethod
    def node(self, value: Array, at: PseudoData) -> Array:
        """The node that stands for an unconstrained value."""

    @abstractmethod
    def standardized(self, node: Array, at: PseudoData) -> Array:
        """The value less the location, in units of the scale."""

    @abstractmethod
    def log_det(self, at: PseudoData) -> Array:
        """log |d value / d node|, of the node's shape: its sum over the event dimensions counts."""

    def image(self, value: Array) -> Array:
        """What the location and scale are of, at an unconstrained value: the value."""
        return value

    def prior(self) -> tuple[Any, Array]:
        """Location and log scale of the image's own distribution."""
        return 0.0 if self.location is None else self.location, self.log_scale()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Univariate(Coordinates):
    """The formula above, element by element."""

    location: Any
    spread: Any

    def log_scale(self) -> Array:
        return finite_log(self.spread)

    def value(self, node: Array, at: PseudoData) -> Array:
        told = _Told.of(self.log_scale(), at)
        mixed = (1 - told.share) * self.location + told.share * at.value + jnp.exp(told.log_sd) * node
        return jnp.where(told.free, at.value + node, mixed)

    def node(self, value: Array, at: PseudoData) -> Array:
        told = _Told.of(self.log_scale(), at)
        mean = (1 - told.share) * self.location + told.share * at.value
        return jnp.where(told.free, value - at.value, (value - mean) * jnp.exp(-told.log_sd))

    def standardized(self, node: Array, at: PseudoData) -> Array:
        log_scale = self.log_scale()
        told = _Told.of(log_scale, at)
        found = told.slope * (at.value - self.location) + jnp.exp(told.log_sd - log_scale) * node
        return jnp.where(told.free, (at.value + node - self.location) * jnp.exp(-log_scale), found)

    def log_det(self, at: PseudoData) -> Array:
        told = _Told.of(self.log_scale(), at)
        return jnp.where(told.free, 0.0, told.log_sd)


class _Told(NamedTuple):
    """What pseudo-data and a scale make of each element: `free`, is the node taken as it is; `share` k; `slope` k / s;
    `log_sd`, the logarithm of s / sqrt(1 + s^2 w)."""

    free: Array
    share: Array
    slope: Array
    log_sd: Array

    @classmethod
    def of(cls, log_scale: Array, at: PseudoData) -> _Told:
        free = jnp.isinf(at.precision)
        known = (at.precision > 0) & ~free
        half = jnp.where(known, 0.5 * jnp.log(jnp.where(known, at.precision, 1.0)), NEVER)
        log_odds = 2 * (log_scale + half)
        total = jax.nn.softplus(log_odds)
        slope = jnp.exp(half + 0.5 * log_odds - total)
        return cls(free, jax.nn.sigmoid(log_odds), slope, log_scale - 0.5 * total)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OfImage(Univariate):
    """Of a value z, standard by its own distribution, that the model uses as the image x = m + s z: the node stands for
    x as above, and so for z = (x - m) / s. The pseudo-data are of the image; without any the node is z."""

    location: Any
    spread: Any
    plain: ClassVar[float] = 0.0

    def value(self, node: Array, at: PseudoData) -> Array:
        return self.standardized(node, at)

    def node(self, value: Array, at: PseudoData) -> Array:
        log_scale = self.log_scale()
        told = _Told.of(log_scale, at)
        found = (value - told.slope * (at.value - self.location)) * jnp.exp(log_scale - told.log_sd)
        return jnp.where(told.free, self.image(value) - at.value, found)

    def log_det(self, at: PseudoData) -> Array:
        return super().log_det(at) - self.log_scale()

    def image(self, value: Array) -> Array:
        return self.location + jnp.exp(self.log_scale()) * value


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Positive(Coordinates):
    """log x = t + (1 - k) log s + k d, k = w / (1 + w), for a scale that multiplies the positive value: the logarithm
    has the location log s and a scale of about 1. `exponent` is -1 where `spread` is a rate."""

    spread: Any
    location: None = None
    exponent: int = field(default=1, metadata={"static": True})

    def log_scale(self) -> Array:
        return self.exponent * finite_log(self.spread)

    def _share(self, at: PseudoData) -> Array:
        return 1 - 1 / (1 + at.precision)

    def value(self, node: Array, at: PseudoData) -> Array:
        share = self._share(at)
        return node + ((1 - share) * self.log_scale() + share * at.value)

    def node(self, value: Array, at: PseudoData) -> Array:
        share = self._share(at)
        return value - ((1 - share) * self.log_scale() + share * at.value)

    def standardized(self, node: Array, at: PseudoData) -> Array:
        """The logarithm of the value in units of the scale."""
        return node + self._share(at) * (at.value - self.log_scale())

    def log_det(self, at: PseudoData) -> Array:
        return jnp.zeros_like(at.precision)

    def prior(self) -> tuple[Any, Array]:
        return self.log_scale(), jnp.zeros_like(self.log_scale())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Triangular(Coordinates):
    """x = m + L u for a vector with a Cholesky factor L: u is normal with the precision A = 1 + L' W L, W = diag(w),
    and the mean A^-1 L' W (d - m). With A = R R', R upper triangular, R' u = t + R^-1 L' W (d - m): x is a lower
    triangular map of t. If any precision of a vector is infinite, all are taken to be."""

    location: Any
    spread: Any

    def log_scale(self) -> Array:
        return finite_log(jnp.diagonal(self.spread, axis1=-2, axis2=-1))

    def value(self, node: Array, at: PseudoData) -> Array:
        x = self.location + jnp.einsum("...ij,...j->...i", self.spread, self._free(node, at))
        return jnp.where(_any_free(at), at.value + node, x)

    def node(self, value: Array, at: PseudoData) -> Array:
        factor, shift = self._told(at)
        u = _solve(self.spread, value - self.location)
        return jnp.where(_any_free(at), value - at.value, jnp.einsum("...ji,...j->...i", factor, u) - shift)

    def standardized(self, node: Array, at: PseudoData) -> Array:
        given = _solve(self.spread, at.value + node - self.location)
        return jnp.where(_any_free(at), given, self._free(node, at))

    def log_det(self, at: PseudoData) -> Array:
        factor, _ = self._told(at)
        found = self.log_scale() - jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
        return jnp.where(_any_free(at), 0.0, found)

    def _free(self, node: Array, at: PseudoData) -> Array:
        factor, shift = self._told(at)
        return _solve(jnp.swapaxes(factor, -1, -2), node + shift)

    def _told(self, at: PseudoData) -> tuple[Array, Array]:
        """R, and R^-1 L' W (d - m)."""
        precision = jnp.where(_any_free(at), 0.0, at.precision)
        size = self.spread.shape[-1]
        a = jnp.eye(size, dtype=self.spread.dtype) + jnp.einsum(
            "...ki,...k,...kj->...ij", self.spread, precision, self.spread
        )
        factor = jnp.flip(jnp.linalg.cholesky(jnp.flip(a, (-2, -1))), (-2, -1))
        linear = jnp.einsum("...ki,...k->...i", self.spread, precision * (at.value - self.location))
        return factor, _solve(factor, linear, lower=False)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk(Coordinates):
    """The same for a random walk from zero, whose L is s times a triangle of ones. The precision of x / s, D' D + s^2 W
    with D the matrix of differences, has three diagonals and its upper factor two, so that recursions over the steps
    take the place of matrices."""

    spread: Any
    location: None = None

    def log_scale(self) -> Array:
        return finite_log(self._scale)

    def value(self, node: Array, at: PseudoData) -> Array:
        return jnp.where(_any_free(at), at.value + node, self._scale * self._path(node, at))

    def node(self, value: Array, at: PseudoData) -> Array:
        diagonal, beside, shift = self._told(at)
        path = value / self._scale
        return jnp.where(_any_free(at), value - at.value, diagonal * path + _before(beside * path) - shift)

    def standardized(self, node: Array, at: PseudoData) -> Array:
        path = jnp.where(_any_free(at), (at.value + node) / self._scale, self._path(node, at))
        return path - _before(path)

    def log_det(self, at: PseudoData) -> Array:
        return jnp.where(_any_free(at), 0.0, self.log_scale() - jnp.log(self._told(at)[0]))

    def _path(self, node: Array, at: PseudoData) -> Array:
        """x / s."""
        diagonal, beside, shift = self._told(at)

        def step(last: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
            given, own, slope = row
            path = (given - last) / own
            return slope * path, path

        return _along(step, jnp.zeros_like(node[..., 0]), (node + shift, diagonal, beside))

    def _told(self, at: PseudoData) -> tuple[Array, Array, Array]:
        """The diagonal of the upper factor U, what stands beside it in each row, and U^-1 s W d."""
        precision = jnp.where(_any_free(at), 0.0, at.precision)
        own = self._scale**2 * precision + 2.0
        own = own.at[..., -1].add(-1.0)
        linear = self._scale * precision * at.value
        zero = jnp.zeros_like(linear[..., 0])

        def step(later: tuple[Array, ...], row: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            q, right = row
            diagonal, shift, has_later = later
            beside = -has_later / diagonal
            found = jnp.sqrt(q - beside**2)
            own_shift = (right - beside * shift) / found
            return (found, own_shift, jnp.ones_like(q)), (found, beside, own_shift)

        return _along(step, (jnp.ones_like(zero), zero, zero), (own, linear), reverse=True)

    @property
    def _scale(self) -> Array:
        return jnp.asarray(self.spread)[..., None]


def _any_free(at: PseudoData) -> Array:
    return jnp.any(jnp.isinf(at.precision), axis=-1, keepdims=True)


def _before(x: Array) -> Array:
    """The element before, of the first one 0."""
    return jnp.pad(x[..., :-1], [(0, 0)] * (x.ndim - 1) + [(1, 0)])


def _along(step: Any, carry: Any, columns: Any, reverse: bool = False) -> Any:
    """A scan along the last axis."""
    shape = jnp.broadcast_shapes(*(x.shape for x in columns))
    moved = tuple(jnp.moveaxis(jnp.broadcast_to(x, shape), -1, 0) for x in columns)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, shape[:-1]), carry)
    _, found = jax.lax.scan(step, carry, moved, reverse=reverse)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), found)


def finite_log(scale: Any) -> Array:
    """log s, finite where s has underflowed to zero: there what is multiplied with it has to vanish."""
    scale = jnp.asarray(scale, jnp.result_type(scale, float))
    return jnp.log(jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))


def _solve(matrix: Array, vector: Array, lower: bool = True) -> Array:
    batch = jnp.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    matrix = jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:]))
    vector = jnp.broadcast_to(vector, (*batch, vector.shape[-1]))
    return solve_triangular(matrix, vector[..., None], lower=lower)[..., 0]
