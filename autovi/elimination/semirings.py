"""What it is to sum a variable out of a table of log weights: add up, take the largest, or add up and draw.

The gradient of the result in a log weight says what became of it. Of sums it is the probability of the entry; of the
largest it is 1 at the most likely configuration; of `Sampled` it is 1 at one drawn from its probabilities. One
elimination, written once, so gives evidence, marginals, most likely configuration and joint draws (Eisner, 2016,
"Inside-outside and forward-backward algorithms are just backprop"; Rush, 2020, "Torch-Struct").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Places = tuple[int, ...]


class Semiring(ABC):
    """How an elimination sums variables out."""

    @abstractmethod
    def total(self, table: jax.Array, places: Places) -> jax.Array:
        """The table without these dimensions, summed out."""

    def seen(self, gone: Collection[str], axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """These are about to be summed out of a table with these axes."""
        return None

    def steps(self, count: int) -> Any:
        """What the steps of a loop need, each its own: arrays with that many rows, or nothing."""
        return ()

    def at_step(self, own: Any, count: int) -> Semiring:
        """The semiring at one of the `count` steps, from its row of `steps`."""
        return self


class Summed(Semiring):
    """log sum exp. Where all entries are -inf so is the sum, and its gradient zero."""

    def total(self, table: jax.Array, places: Places) -> jax.Array:
        top = jax.lax.stop_gradient(jnp.max(table, places, keepdims=True))
        top = jnp.where(jnp.isfinite(top), top, 0.0)  # -inf less -inf would be NaN
        return _log(jnp.sum(jnp.exp(table - top), places)) + jnp.squeeze(top, places)


@jax.custom_jvp
def _log(mass: jax.Array) -> jax.Array:
    """The log of a number that is 0 or at least 1, as a sum is whose largest term is 1; of 0 the derivative is 0. Told
    apart by `where`, they kept XLA from vectorizing the steps of a chain (200 of 5 states: 251 us for 95)."""
    return jnp.log(mass)


@_log.defjvp
def _log_slope(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (mass,), (moved,) = primals, tangents
    return _log(mass), moved / jnp.maximum(mass, 0.5)  # below the least there is, as a maximum's slope at a tie is half


class Largest(Semiring):
    """The maximum: the elimination is Viterbi's."""

    def total(self, table: jax.Array, places: Places) -> jax.Array:
        flat = _flat(table, places)
        return _chosen(jnp.max(flat, -1), jnp.argmax(flat, -1), flat)


@dataclass
class Sampled(Semiring):
    """log sum exp, one entry being drawn in proportion: backward sampling."""

    rng_key: jax.Array
    _uses: int = field(default=0)

    def total(self, table: jax.Array, places: Places) -> jax.Array:
        flat, key = _flat(table, places), self._next()
        drawn = jax.random.categorical(key, jax.lax.stop_gradient(flat))
        return _chosen(Summed().total(flat, (flat.ndim - 1,)), drawn, flat)

    def steps(self, count: int) -> Any:
        return jax.random.split(self._next(), count)

    def at_step(self, own: Any, count: int) -> Semiring:
        return Sampled(own)

    def _next(self) -> jax.Array:
        self._uses += 1
        return jax.random.fold_in(self.rng_key, self._uses)


@dataclass
class Counted(Semiring):
    """Computes nothing and notes every sum: under `jax.eval_shape`, what an elimination costs is known before.

    `sums` are (what is summed out, the axes and the shape of the table, how many times).
    """

    sums: list[tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], int]] = field(default_factory=list)
    repeats: int = 1

    def seen(self, gone: Collection[str], axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.sums.append((tuple(a for a in axes if a in gone), axes, shape, self.repeats))

    def total(self, table: jax.Array, places: Places) -> jax.Array:
        return jnp.max(table, places)

    def at_step(self, own: Any, count: int) -> Semiring:
        return Counted(self.sums, self.repeats * count)


def _flat(table: jax.Array, places: Places) -> jax.Array:
    """The dimensions that are summed out as one, the last."""
    kept = [i for i in range(table.ndim) if i not in places]
    moved = jnp.transpose(table, [*kept, *places])
    return moved.reshape(*moved.shape[: len(kept)], int(np.prod([table.shape[i] for i in places])))


@jax.custom_vjp
def _chosen(total: jax.Array, index: jax.Array, flat: jax.Array) -> jax.Array:
    """`total`, whose gradient goes to the chosen entry of each row of `flat`."""
    return total


def _chosen_forward(total: jax.Array, index: jax.Array, flat: jax.Array) -> tuple[jax.Array, Any]:
    return total, (index, jnp.zeros(flat.shape[-1:], flat.dtype))


def _chosen_backward(kept: Any, cotangent: jax.Array) -> tuple[Any, ...]:
    index, width = kept
    one = jax.nn.one_hot(index, width.shape[0], dtype=cotangent.dtype)
    return jnp.zeros_like(cotangent), np.zeros(index.shape, jax.dtypes.float0), one * cotangent[..., None]


_chosen.defvjp(_chosen_forward, _chosen_backward)
