"""Gaussian factors whose variables have names, their products and integrals.

A factor is exp(-x'Ax / 2 + b'x + c), of the concatenated values x of its variables: A is its precision, b its shift.
Multiplying adds, and to integrate variables g out is a Schur complement:

    A_kk - A_kg A_gg^-1 A_gk,   b_k - A_kg A_gg^-1 b_g,   c + (b_g' A_gg^-1 b_g - log det(A_gg / 2 pi)) / 2.

The gradient of the result in the shift of a variable is the variable's mean, and where noise is given, its value in a
joint draw: what remains of the variables k is drawn first, and then g given k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from autovi.elimination.network import Network

SMALL = 4  # numbers up to which they are integrated out one after the other


@dataclass(frozen=True)
class Quadratic:
    """`precision` is `[*elements, n, n]`, `shift` `[*elements, n]` and `constant` `[*elements]`; n is the sum of the
    `widths` of the variables. `elements` are the names of the axes in front."""

    precision: jax.Array
    shift: jax.Array
    constant: jax.Array
    elements: tuple[str, ...]
    variables: tuple[str, ...]
    widths: tuple[int, ...]
    sources: frozenset[str] = frozenset()

    @property
    def axes(self) -> tuple[str, ...]:
        """Its variables and axes of elements."""
        return (*self.variables, *self.elements)

    @property
    def parts(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Its numbers."""
        return self.precision, self.shift, self.constant

    def places(self, names: Collection[str]) -> np.ndarray:
        """Where some variables stand in x."""
        starts = np.cumsum([0, *self.widths])
        parts = [
            np.arange(s, s + w) for v, s, w in zip(self.variables, starts, self.widths, strict=False) if v in names
        ]
        return np.concatenate(parts) if parts else np.arange(0)

    def renamed(self, names: Mapping[str, str]) -> Quadratic:
        """The same with other names of variables."""
        return replace(self, variables=tuple(names.get(v, v) for v in self.variables))

    def added_up(self, axes: Collection[str]) -> Quadratic:
        """The product over elements."""
        at = tuple(i for i, e in enumerate(self.elements) if e in axes)
        if not at:
            return self
        parts = [jnp.sum(a, at) for a in self.parts]
        return self.of(*parts, elements=tuple(e for e in self.elements if e not in axes))

    def of(self, precision: jax.Array, shift: jax.Array, constant: jax.Array, **others: Any) -> Quadratic:
        """The same with other numbers."""
        return replace(self, precision=precision, shift=shift, constant=constant, **others)

    def along(self, elements: Sequence[str], variables: Sequence[str], widths: Mapping[str, int]) -> Quadratic:
        """The same as a factor of more variables, in this order, with axes of size 1 for elements that it lacks."""
        total = sum(widths[v] for v in variables)
        starts = dict(zip(variables, np.cumsum([0, *(widths[v] for v in variables)]), strict=False))
        into = np.concatenate([np.arange(starts[v], starts[v] + widths[v]) for v in self.variables])
        precision, shift, constant = (self._moved(a, elements) for a in self.parts)
        shift = _placed(shift, into, total, -1)
        precision = _placed(_placed(precision, into, total, -1), into, total, -2)
        own = tuple(widths[v] for v in variables)
        return Quadratic(precision, shift, constant, tuple(elements), tuple(variables), own, self.sources)

    def _moved(self, array: jax.Array, elements: Sequence[str]) -> jax.Array:
        front = len(self.elements)
        order = [self.elements.index(e) for e in elements if e in self.elements]
        array = jnp.transpose(array, [*order, *range(front, array.ndim)])
        return jnp.expand_dims(array, [i for i, e in enumerate(elements) if e not in self.elements])


def product(factors: Sequence[Quadratic]) -> Quadratic:
    """The factors multiplied."""
    elements = tuple(dict.fromkeys(e for f in factors for e in f.elements))
    variables = tuple(dict.fromkeys(v for f in factors for v in f.variables))
    widths = {v: w for f in factors for v, w in zip(f.variables, f.widths, strict=True)}
    parts = [f.along(elements, variables, widths) for f in factors]
    whole = parts[0]
    for part in parts[1:]:
        sums = (whole.precision + part.precision, whole.shift + part.shift, whole.constant + part.constant)
        whole = whole.of(*sums)
    return replace(whole, sources=frozenset().union(*(f.sources for f in factors)))


@dataclass
class Integrating:
    """How variables are integrated out: exactly, and with a key so that gradients are joint draws."""

    rng_key: jax.Array | None = None
    sizes: list[int] = field(default_factory=list)  # how many numbers each precision had that something went out of
    _uses: int = 0

    def without(self, factor: Quadratic, gone: Collection[str]) -> Quadratic:
        """A factor without these variables."""
        self.sizes.append(factor.precision.size)
        kept = [(v, w) for v, w in zip(factor.variables, factor.widths, strict=True) if v not in gone]
        out = factor.places(gone)
        if not len(out):
            return factor
        parts, names = factor.parts, np.arange(factor.shift.shape[-1])
        # Few numbers one after the other: a decomposition of tiny matrices takes longer.
        for going in out[:, None] if len(out) <= SMALL else [out]:
            here, rest = np.flatnonzero(np.isin(names, going)), np.flatnonzero(~np.isin(names, going))
            noise = None
            if self.rng_key is not None:
                noise = jax.random.normal(self._next(), (*parts[2].shape, len(here)), parts[1].dtype)
            parts, names = _integrated(*parts, noise, rest, here), names[rest]
        return factor.of(*parts, variables=tuple(v for v, _ in kept), widths=tuple(w for _, w in kept))

    def steps(self, count: int) -> Any:
        """What the steps of a loop need, each its own."""
        return () if self.rng_key is None else jax.random.split(self._next(), count)

    def at_step(self, own: Any) -> Integrating:
        """The same at one step, from its row of `steps`."""
        return Integrating(None if self.rng_key is None else own, self.sizes)

    def _next(self) -> jax.Array:
        assert self.rng_key is not None
        self._uses += 1
        return jax.random.fold_in(self.rng_key, self._uses)


def standard(network: Network, variables: Sequence[str], dtype: Any) -> Quadratic:
    """Independent standard normal variables."""
    widths = tuple(network.sizes[v] for v in variables)
    n = sum(widths)
    constant = jnp.asarray(-0.5 * n * log(2 * pi), dtype)
    return Quadratic(jnp.eye(n, dtype=dtype), jnp.zeros(n, dtype), constant, (), tuple(variables), widths)


class _Parts(NamedTuple):
    """The Cholesky factor L of A_gg, L^-1 b_g and L^-1 A_gk."""

    factor: jax.Array
    shift: jax.Array
    across: jax.Array


def _integrated(
    precision: jax.Array, shift: jax.Array, constant: jax.Array, noise: Any, rest: np.ndarray, out: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows = _taken(precision, out, -2)
    within, beside = _taken(rows, out, -1), _taken(rows, rest, -1)
    factor = jnp.sqrt(within) if len(out) == 1 else jnp.linalg.cholesky(within)
    moved = _solved(factor, _taken(shift, out, -1)[..., None])
    parts = _Parts(factor, moved[..., 0], _solved(factor, beside))
    across = jnp.swapaxes(parts.across, -1, -2)
    diagonal = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
    found = (
        _taken(_taken(precision, rest, -2), rest, -1) - _times(across, parts.across),
        _taken(shift, rest, -1) - _times(across, moved)[..., 0],
        constant + jnp.sum(0.5 * jnp.square(parts.shift) - diagonal + 0.5 * log(2 * pi), -1),
    )
    return found if noise is None else _drawing(found, parts, noise, shift, rest, out)


def _solved(factor: jax.Array, right: jax.Array, transposed: bool = False) -> jax.Array:
    if factor.shape[-1] == 1:
        return right / factor
    return solve_triangular(factor, right, lower=True, trans=int(transposed))


def _times(left: jax.Array, right: jax.Array) -> jax.Array:
    return left * right if left.shape[-1] == 1 else left @ right


def _taken(array: jax.Array, places: np.ndarray, axis: int) -> jax.Array:
    """Some places along an axis; by a slice where they are next to each other, which costs less than a gather."""
    if len(places) and places[-1] - places[0] == len(places) - 1:
        return jax.lax.slice_in_dim(array, int(places[0]), int(places[-1]) + 1, axis=array.ndim + axis)
    return jnp.take(array, places, axis)


def _placed(array: jax.Array, places: np.ndarray, size: int, axis: int) -> jax.Array:
    """The same turned round: zeros along an axis of that size, apart from these places."""
    at = array.ndim + axis
    if not len(places):
        return jnp.zeros((*array.shape[:at], size, *array.shape[at + 1 :]), array.dtype)
    if np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        padding = [(0, 0)] * array.ndim
        padding[at] = (int(places[0]), size - int(places[-1]) - 1)
        return jnp.pad(array, padding)
    back = np.full(size, -1)
    back[places] = np.arange(len(places))
    shape = [1] * array.ndim
    shape[at] = size
    return jnp.where((back >= 0).reshape(shape), jnp.take(array, np.maximum(back, 0), axis), 0)


def _drawing(
    found: Any, parts: _Parts, noise: jax.Array, shift: jax.Array, rest: np.ndarray, out: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What was found, whose gradient in the shift is a draw: that of the rest, and of g given the rest."""

    @jax.custom_vjp
    def drawn(found: Any, kept: Any, shift: jax.Array) -> Any:
        return found

    def forward(found: Any, kept: Any, shift: jax.Array) -> Any:
        return found, kept

    def backward(kept: Any, cotangent: Any) -> Any:
        parts, noise = kept
        mean = parts.shift - (parts.across @ cotangent[1][..., None])[..., 0]
        value = _solved(parts.factor, (mean + noise)[..., None], transposed=True)[..., 0]
        size = len(rest) + len(out)
        whole = _placed(value, out, size, -1) + _placed(cotangent[1], rest, size, -1)
        return jax.tree.map(jnp.zeros_like, cotangent), jax.tree.map(jnp.zeros_like, kept), whole

    drawn.defvjp(forward, backward)
    return drawn(*jax.lax.stop_gradient((found, (parts, noise))), shift)
