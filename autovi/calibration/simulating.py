"""True values from the prior and data made from them, a key for each simulation, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from autovi.calibration.generating import Generating
from autovi.calibration.observations import filled, with_type_of
from autovi.model.inputs import Inputs
from autovi.process import computing

BLOCK = 64  # simulations made by one call
OF_DATA, OF_FIT, OF_RANKS = 0, 1, 2  # what the keys of a simulation are for


class Simulation(NamedTuple):
    """One draw from the prior and the data it led to.

    Attributes:
        number: which simulation it is, from 0.
        rng_key: its key.
        truth: latent and deterministic sites, by name.
        inputs: the data, in the form of those that were given.
        arguments: the arguments that hold what was drawn.
    """

    number: int
    rng_key: jax.Array
    truth: dict[str, np.ndarray]
    inputs: Inputs
    arguments: tuple[str, ...]

    def key_of(self, purpose: int) -> jax.Array:
        """The key for one purpose."""
        return jax.random.fold_in(self.rng_key, purpose)

    @property
    def not_finite(self) -> list[str]:
        """What has a NaN or an infinity: sites and arguments."""
        arrays = {**self.truth, **{name: self.inputs.arrays[name] for name in self.arguments}}
        return [name for name, array in arrays.items() if _is_numeric(array) and not np.all(np.isfinite(array))]


class Simulator:
    """The simulations of a model that makes data. `varying` are deterministic sites that do not follow from the draws
    alone but from observations as they are passed: of such no truth is known."""

    @computing()
    def __init__(self, made: Generating, rng_key: jax.Array):
        self.made, self.rng_key = made, rng_key
        self.varying: set[str] = set()
        arrays = made.inputs.arrays
        draws = jax.eval_shape(lambda arrays, key: made.draws(arrays, key)[0], arrays, rng_key)
        self.given = {found.argument: arrays[found.argument] for found in made.observed}
        for argument, site, *_ in made.observed:
            self.given[argument] = with_type_of(self.given[argument], draws[site])
        self.others = {name: array for name, array in arrays.items() if name not in self.given}

    def key(self, number: int) -> jax.Array:
        """The key of a simulation, the same however many there are."""
        return jax.random.fold_in(self.rng_key, number)

    @computing()
    def each(self, numbers: Iterable[int]) -> Iterator[Simulation]:
        """These simulations, made as they are needed.

        Raises:
            ValueError: observations have a part in the model besides `obs=`; the message names a site.
        """
        waiting = list(numbers)
        for start in range(0, len(waiting), BLOCK):
            yield from self._block(waiting[start : start + BLOCK])

    def _block(self, numbers: list[int]) -> list[Simulation]:
        padded = [*numbers, *[numbers[-1]] * (BLOCK - len(numbers))]
        keys = jax.numpy.stack([jax.random.fold_in(self.key(number), OF_DATA) for number in padded])
        draws, _ = self._drawn({n: np.broadcast_to(a, (BLOCK, *np.shape(a))) for n, a in self.given.items()}, keys)
        at = lambda tree, i: jax.tree.map(lambda array: array[i], tree)  # noqa: E731
        new = [filled(self.given, at(draws, i), self.made.observed) for i in range(BLOCK)]
        # With these data the model has to draw the same again, and to observe what it drew. By the same program, so
        # that what does not depend on them is the same bit for bit.
        again, seen = self._drawn({n: np.stack([arrays[n] for arrays in new]) for n in self.given}, keys)
        return [
            self._simulation(number, new[i], *(at(tree, i) for tree in (draws, again, seen)))
            for i, number in enumerate(numbers)
        ]

    def _drawn(self, given: Mapping[str, np.ndarray], keys: jax.Array) -> Any:
        """Draws of all sites and the observed values, of each key with its own observed arguments."""
        return jax.tree.map(np.asarray, self._run(self.others, given, keys))

    @cached_property
    def _run(self) -> Any:
        def one(others: Any, given: Any, key: jax.Array) -> Any:
            return self.made.draws({**others, **given}, key)

        return jax.jit(lambda others, given, keys: jax.lax.map(lambda pair: one(others, *pair), (given, keys)))

    def _simulation(self, number: int, new: Any, draws: Any, again: Any, seen: Any) -> Simulation:
        sites = self.made.sites
        observed = {*sites.observed, *(name.removesuffix("_unobserved") for name in sites.missing)}
        for name, value in draws.items():
            if _same(value, again[name]):
                continue
            if name in sites.deterministics:
                self.varying.add(name)
                continue
            raise ValueError(
                f"site {name!r}: it is drawn from observations (of {self._listed()}) as they are passed, and not as "
                "they are drawn, so that the model does not say how such data come about; where later values depend on "
                "earlier ones, read them from what numpyro.sample returns (in a loop or a scan), or pass a copy of "
                "those that are given, under a name of its own"
            )
        for name in sites.observed:
            if np.all(np.isfinite(draws[name])) and not _same(draws[name], seen[name]):
                raise ValueError(
                    f"site {name!r}: with its own draws as data it observes other values, so that the arguments "
                    f"({self._listed()}) are changed before obs=; expected them as they are passed"
                )
        kept = {n: v for n, v in draws.items() if n not in observed and n not in self.varying}
        inputs = self.made.inputs
        inputs = replace(inputs, arrays={**inputs.arrays, **new})
        return Simulation(number, self.key(number), kept, inputs, tuple(self.made.arguments))

    def _listed(self) -> str:
        return ", ".join(map(repr, self.made.arguments))


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.array_equal(np.asarray(first, float), np.asarray(second, float), equal_nan=True))


def _is_numeric(array: Any) -> bool:
    return getattr(array, "dtype", None) is not None and np.asarray(array).dtype.kind in "fc"
