"""A guide by structure: what a hierarchy has in common jointly, every element of a plate given it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from autovi.distributions.copula import bend, correlate, decorrelate, split_rows, unbend
from autovi.distributions.layouts import Index, Level, Structure, taken
from autovi.families.base import Layout, Levels, NoiseFamily, Params

SLOPES = ("slope", "scale_slope")
MARGINALS = ("skew", "log_tail")
INSIDE = ("lower", "scale_lower")


@dataclass(frozen=True)
class Structured(NoiseFamily):
    """u = the common coordinates, as in `sinh_arcsinh`, and those of each element e of the plates given them:

    u_e = loc_e + exp(log_scale_e) (A_e c_e + exp(B_e c_e) z_e), z_e = f(L_e eps_e + exp(K_e eps_e) eps_e),

    c_e = (h, the noise of the elements above e), h = (u - loc) / exp(log_scale) of the common coordinates; L and K
    strictly lower triangular, f the sinh-arcsinh transform with a skew and a tail for each coordinate. With A it
    follows the centred writing of a hierarchy, with B the other one, and what lies in between; with K an element that
    holds its own scale, as that of a horseshoe. `Layout.structure` says which coordinate belongs to what; without
    one all are common.

    Parameters: `loc`, `log_scale`, `skew`, `log_tail` (G,) and `lower` (G, G) of the common ones; for level k the first
    four with (elements, d), as `loc_k`; `slope_k` and `scale_slope_k` (elements, d, C), A and B times sqrt(C),
    C numbers being given; `lower_k` and `scale_lower_k` (elements, d, d), L and K times sqrt(d), for d > 1. The
    elements are independent at the start.

    Args:
        levels: the sites of each set of plates whose elements are drawn given what is common, outer plates first; of a
            site without plates, each number is an element. None: every site that is in a plate.
        together: places of those levels in `levels` that are drawn as one element, with a covariance of its own.

    Hoffman and Blei (2015), "Structured Stochastic Variational Inference"; Ranganath, Tran and Blei (2016),
    "Hierarchical Variational Models"; Jones and Pewsey (2009), "Sinh-arcsinh distributions".

    Example:
        >>> autovi.fit(model, data, families={"*": "structured"})
    """

    levels: Levels | None = None
    together: tuple[int, ...] = ()

    name: ClassVar[str] = "structured"
    rotates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(tuple(level) for level in self.levels))  # lists of a file
        object.__setattr__(self, "together", tuple(self.together))

    def takes_apart(self, by_plates: Levels) -> tuple[Levels, tuple[int, ...]]:
        return by_plates if self.levels is None else self.levels, self.together

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params | None:
        structure = structure_of(layout)
        if not structure.levels:
            locs, scales = [loc], [scale]
        elif scale.ndim == 1:
            locs, scales = structure.split(loc), structure.split(scale)
        else:  # it may tie elements to one another
            return None
        length, lower = split_rows(locs[0], scales[0])
        params = {"loc": locs[0], "log_scale": jnp.log(length), "lower": lower}
        params |= {name: jnp.zeros_like(locs[0]) for name in MARGINALS}
        for k in range(len(structure.levels)):
            shape, dtype = locs[k + 1].shape, loc.dtype
            params |= {f"loc_{k}": locs[k + 1], f"log_scale_{k}": jnp.log(scales[k + 1])}
            params |= {f"{name}_{k}": jnp.zeros(shape, dtype) for name in MARGINALS}
            params |= {f"{name}_{k}": jnp.zeros((*shape, structure.num_given(k)), dtype) for name in SLOPES}
            if shape[1] > 1:
                params |= {f"{name}_{k}": jnp.zeros((*shape, shape[1]), dtype) for name in INSIDE}
        return params

    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        structure = structure_of(layout)
        pieces = structure.cut(noise)
        y, log_det = correlate(params["lower"], pieces[0])
        h, log_slope = bend(y, params["skew"], params["log_tail"])
        values, log_det = [_placed(params, h)], log_det + jnp.sum(log_slope + params["log_scale"])
        noises: list[jax.Array] = []
        for elements in _levels(params, structure):
            eps = elements.level.unflattened(pieces[elements.place + 1])
            shift, log_scale = elements.given(h, noises)
            mixed, log_mixed = elements.mixed(eps)
            z, log_slope = bend(mixed, elements.skew, elements.log_tail)
            values.append(elements.loc + jnp.exp(elements.log_scale) * (shift + jnp.exp(log_scale) * z))
            log_det += jnp.sum(elements.log_scale + log_scale + log_slope + log_mixed)
            noises.append(eps)
        return structure.joined(values), log_det

    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        structure = structure_of(layout)
        parts = structure.split(value)
        h = (parts[0] - params["loc"]) * jnp.exp(-params["log_scale"])
        y, log_slope = unbend(h, params["skew"], params["log_tail"])
        common, log_det = decorrelate(params["lower"], y)
        log_det += jnp.sum(log_slope + params["log_scale"])
        noises: list[jax.Array] = []
        for elements in _levels(params, structure):
            shift, log_scale = elements.given(h, noises)
            whole = (parts[elements.place + 1] - elements.loc) * jnp.exp(-elements.log_scale)
            mixed, log_slope = unbend((whole - shift) * jnp.exp(-log_scale), elements.skew, elements.log_tail)
            eps, log_mixed = elements.unmixed(mixed)
            log_det += jnp.sum(elements.log_scale + log_scale + log_slope + log_mixed)
            noises.append(eps)
        flat = [level.flattened(eps) for level, eps in zip(structure.levels, noises, strict=True)]
        return jnp.concatenate([common, *flat]), log_det


def structure_of(layout: Layout) -> Structure:
    """The layout's structure: everything in common where it has none."""
    return layout.structure or Structure(Index(range(layout.event_shape[0])))


class Elements(NamedTuple):
    """A level's elements: where the level stands, and their parameters, without the level's number."""

    place: int
    level: Level
    params: Params

    @property
    def loc(self) -> jax.Array:
        return self.params["loc"]

    @property
    def log_scale(self) -> jax.Array:
        return self.params["log_scale"]

    @property
    def skew(self) -> jax.Array:
        return self.params["skew"]

    @property
    def log_tail(self) -> jax.Array:
        return self.params["log_tail"]

    def given(self, h: jax.Array, noises: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """A c and B c of every element (elements, d)."""
        above = [taken(noises[a.level], a.element.array) for a in self.level.above]

        def linear(slope: jax.Array) -> jax.Array:
            # A step of Adam moves all slopes of an element at once: over the square root of their number, it moves what
            # they make by as much as a step of its location does, however many there are.
            slope = slope / math.sqrt(max(1, slope.shape[-1]))
            # What all elements are given is a matrix times a vector, which is a product of matrices over particles.
            total = slope[..., : len(h)] @ h
            if above:
                total += jnp.einsum("edc,ec->ed", slope[..., len(h) :], jnp.concatenate(above, -1))
            return total

        return linear(self.params["slope"]), linear(self.params["scale_slope"])

    def _inside(self, name: str) -> jax.Array:
        """L or K. Their entries are over a square root for the same reason as slopes are."""
        matrix = jnp.tril(self.params[name], -1)
        return matrix / math.sqrt(matrix.shape[-1])

    def mixed(self, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """L eps + exp(K eps) eps of every element, and K eps, the logarithm of its derivative."""
        if eps.shape[1] == 1:
            return eps, jnp.zeros_like(eps)
        shift, log_scale = (jnp.einsum("eij,ej->ei", self._inside(name), eps) for name in INSIDE)
        return shift + jnp.exp(log_scale) * eps, log_scale

    def unmixed(self, mixed: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The noise of `mixed`, and the same logarithm: one coordinate after the other, all elements together."""
        if mixed.shape[1] == 1:
            return mixed, jnp.zeros_like(mixed)

        def one(eps: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            place, shift, log_scale, at = row
            log_scale = jnp.sum(log_scale * eps, -1)
            return eps.at[:, place].set((at - jnp.sum(shift * eps, -1)) * jnp.exp(-log_scale)), log_scale

        lower, scale_lower = (jnp.moveaxis(self._inside(name), 1, 0) for name in INSIDE)
        rows = (jnp.arange(mixed.shape[1]), lower, scale_lower, mixed.T)
        eps, log_scale = jax.lax.scan(one, jnp.zeros_like(mixed), rows)
        return eps, log_scale.T


def _levels(params: Params, structure: Structure) -> Iterator[Elements]:
    for k, level in enumerate(structure.levels):
        names = ("loc", "log_scale", *MARGINALS, *SLOPES, *(INSIDE if level.shape[1] > 1 else ()))
        yield Elements(k, level, {name: params[f"{name}_{k}"] for name in names})


def _placed(params: Params, h: jax.Array) -> jax.Array:
    return params["loc"] + jnp.exp(params["log_scale"]) * h
