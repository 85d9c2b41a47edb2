"""A guide by structure: what a hierarchy has in common jointly, every element of a plate given it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from autovi.distributions.copula import bend, correlate, decorrelate, split_rows, unbend, unmix
from autovi.distributions.layouts import Index, Level, Structure, taken
from autovi.families.base import Layout, Levels, NoiseFamily, Params


class Elements(NamedTuple):
    """The parameters of a level's elements, the level itself, and where it stands."""

    place: int
    level: Level
    loc: jax.Array  # (elements, d)
    log_scale: jax.Array  # (elements, d)
    slope: jax.Array  # (elements, d, given)
    scale_slope: jax.Array  # (elements, d, given)
    lower: jax.Array | None  # (elements, d, d), for d > 1


@dataclass(frozen=True)
class Structured(NoiseFamily):
    """u = the common coordinates, as in `sinh_arcsinh`, and the coordinates of each element e of the plates given them:

    u_e = loc_e + exp(log_scale_e) (A_e c_e + exp(B_e c_e) (I + strictly_lower(L_e)) eps_e),

    c_e = (h, the noise of the elements above e), h = (u - loc) / exp(log_scale) of the common coordinates. With A it
    follows the centred writing of a hierarchy, with B the other one, and what lies in between. `Layout.structure` says
    which coordinate belongs to what; without one all are common.

    Parameters: `loc`, `log_scale`, `skew`, `log_tail` (G,) and `lower` (G, G) of the common ones, and for level k
    `loc_k` and `log_scale_k` (elements, d), `slope_k` A and `scale_slope_k` B (elements, d, G + numbers above),
    `lower_k` L (elements, d, d) for d > 1. The slopes start at zero.

    Args:
        levels: the sites of each set of plates whose elements are drawn given what is common, outer plates first; of a
            site without plates, each number is an element. None: every site that is in a plate.

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
        params |= {name: jnp.zeros_like(locs[0]) for name in ("skew", "log_tail")}
        for k in range(len(structure.levels)):
            shape = (*locs[k + 1].shape, structure.num_given(k))
            params |= {f"{name}_{k}": jnp.zeros(shape, loc.dtype) for name in ("slope", "scale_slope")}
            params |= {f"loc_{k}": locs[k + 1], f"log_scale_{k}": jnp.log(scales[k + 1])}
            if shape[1] > 1:
                params[f"lower_{k}"] = jnp.zeros((*shape[:2], shape[1]), loc.dtype)
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
            shift, log_scale = _given(elements, h, noises)
            mixed = eps if elements.lower is None else eps + jnp.einsum("eij,ej->ei", elements.lower, eps)
            scale = jnp.exp(elements.log_scale)
            values.append(elements.loc + scale * (shift + jnp.exp(log_scale) * mixed))
            log_det += jnp.sum(elements.log_scale + log_scale)
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
            shift, log_scale = _given(elements, h, noises)
            whole = (parts[elements.place + 1] - elements.loc) * jnp.exp(-elements.log_scale)
            mixed = (whole - shift) * jnp.exp(-log_scale)
            noises.append(mixed if elements.lower is None else unmix(elements.lower, mixed))
            log_det += jnp.sum(elements.log_scale + log_scale)
        flat = [level.flattened(eps) for level, eps in zip(structure.levels, noises, strict=True)]
        return jnp.concatenate([common, *flat]), log_det


def structure_of(layout: Layout) -> Structure:
    """The layout's structure: everything in common where it has none."""
    return layout.structure or Structure(Index(range(layout.event_shape[0])))


def _levels(params: Params, structure: Structure) -> Iterator[Elements]:
    for k, level in enumerate(structure.levels):
        lower = params.get(f"lower_{k}")
        loc, log_scale, slope, scale_slope = (
            params[f"{name}_{k}"] for name in ("loc", "log_scale", "slope", "scale_slope")
        )
        lower = None if lower is None else jnp.tril(lower, -1)
        yield Elements(k, level, loc, log_scale, slope, scale_slope, lower)


def _placed(params: Params, h: jax.Array) -> jax.Array:
    return params["loc"] + jnp.exp(params["log_scale"]) * h


def _given(elements: Elements, h: jax.Array, noises: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """A c and B c of every element (elements, d)."""
    above = [taken(noises[a.level], a.element.array) for a in elements.level.above]

    def linear(slope: jax.Array) -> jax.Array:
        # What all elements are given is a matrix times a vector, which is a product of matrices over particles.
        total = slope[..., : len(h)] @ h
        if above:
            total += jnp.einsum("edc,ec->ed", slope[..., len(h) :], jnp.concatenate(above, -1))
        return total

    return linear(elements.slope), linear(elements.scale_slope)
