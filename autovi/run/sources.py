"""Where a step's data come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from autovi.model.execution import site_key
from autovi.model.sites import Plate


class Source(ABC):
    """Data, step by step. `next` is part of the compiled step."""

    @abstractmethod
    def next(self, data: Any, step: jax.Array, rng_key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        """The arrays of the model's arguments in this step, and the elements of each subsampled plate that they are of.

        `data` are the arrays that the chunk was given.
        """


@dataclass(frozen=True)
class Resident(Source):
    """Data that lie on the device as a whole: the model picks a step's elements by the indices of its plates."""

    plates: Mapping[str, Plate]

    def next(self, data: Any, step: jax.Array, rng_key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        return data, draw_indices(rng_key, self.plates)


def draw_indices(rng_key: jax.Array, plates: Mapping[str, Plate]) -> dict[str, jax.Array]:
    """Elements of every subsampled plate for one step, shared by model, guide and particles.

    One element from each of `length` equal stretches of the plate, which start at a random element: no two are the
    same, every element is as likely as any other, and the work does not grow with the plate.
    """
    rng_key, drawn = site_key(rng_key, "autovi:plates"), {}
    for name, plate in plates.items():
        turn_key, within_key = jax.random.split(site_key(rng_key, name))
        edges = [b * plate.size // plate.length for b in range(plate.length + 1)]
        low, high = jnp.asarray(edges[:-1]), jnp.asarray(edges[1:])
        turn = jax.random.randint(turn_key, (), 0, plate.size)
        drawn[name] = (jax.random.randint(within_key, (plate.length,), low, high) + turn) % plate.size
    return drawn
