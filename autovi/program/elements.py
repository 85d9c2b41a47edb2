"""Programs whose elements of a plate have nothing to do with one another: each has weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.model.sites import Plate
from autovi.program.wiring import Wiring


class Elements(NamedTuple):
    """A plate that all cost terms and all nodes are in, none of which sees another element; `terms` and `nodes` are the
    axes along which they have it."""

    plate: Plate
    terms: Mapping[str, int]
    nodes: Mapping[str, int]

    @property
    def scale(self) -> float:
        """How many elements of the plate one of a step stands for."""
        return self.plate.size / self.plate.length

    def log_weights(self, terms: Mapping[str, Any]) -> jax.Array:
        """log p - log q of every particle and element of a step `[particles, elements]`, not scaled."""
        total = jnp.zeros(())
        for name, axis in self.terms.items():
            term = jnp.moveaxis(terms[name], 1 + axis, 1)
            total = total + jnp.sum(term, tuple(range(2, term.ndim)))
        return total / self.scale

    def beside(self, signal: jax.Array, node: str, ndim: int) -> jax.Array:
        """What each element `[particles, elements]` has, where a node of `ndim` batch dimensions has its elements."""
        shape = [1] * ndim
        shape[self.nodes[node]] = signal.shape[1]
        return signal.reshape(signal.shape[0], *shape)


def elements_of(program: Wiring) -> Elements | None:
    """The outermost plate whose elements are apart; None where there is none."""
    blocks = program.plan.blocks
    if (
        not blocks
        or program.integrating
        or program.plan.groups
        or any(program.is_flat(b.name) or len(b.sites) > 1 for b in blocks)
    ):
        return None
    site = program.node_site(blocks[0].name)
    for plate in sorted(site.plates, key=lambda p: p.dim):
        if (found := _along(program, plate)) is not None:
            return found
    return None


def _along(program: Wiring, plate: Plate) -> Elements | None:
    structure, terms, nodes = program.structure, {}, {}
    for term in program.term_names:
        axis = len(structure.shapes[term]) + plate.dim
        if plate not in structure.plates.get(term, ()) or structure.shapes[term][axis] != plate.length:
            return None
        terms[term] = axis
    for block in program.plan.blocks:
        site = program.node_site(block.name)
        if plate not in site.plates:
            return None
        nodes[block.name] = len(site.batch_shape) + plate.dim
        if any(a[nodes[block.name]] != terms[t] for t, a in program.downstream(block.name).items()):
            return None
    return Elements(plate, terms, nodes)


def check_in_parts(program: Wiring, elements: Elements | None) -> None:
    """Raises ValueError where batches are taken under an objective that needs the whole, unless each element has it."""
    if program.objective.in_parts:
        return
    apart = {elements.plate.name} if elements is not None else set()
    for name in sorted(set(program.sites.subsampled) - apart):
        raise ValueError(
            f"objective {program.objective.name!r}: plate {name!r} is subsampled, and the weight of a particle is that "
            "of all elements, since the mean over batches of a logarithm of weights is no bound; take it whole "
            "(batch_size, subsample_size), or objective 'elbo'. Only where all latent sites and observations are in "
            "one plate, whose elements do not see one another, has each element a weight of its own"
        )
