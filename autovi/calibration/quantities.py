"""What is ranked: sites, the log likelihood, and functions of draws and data of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.calibration.simulating import Simulation
from autovi.model.inputs import Inputs
from autovi.model.target import Target
from autovi.process import computing

LOG_LIKELIHOOD = "log_likelihood"
MAX_ELEMENTS = 50  # of one quantity, that are ranked
AT_ONCE = 256  # draws at which functions are evaluated at once

Values = Mapping[str, np.ndarray]


def chosen_sites(truth: Values, fitted: Mapping[str, tuple[int, ...]], asked: Sequence[str] | str | None) -> list[str]:
    """The sites that are ranked: those of the fit that simulations have in the same shape, of those asked for.

    Args:
        truth: a simulation's.
        fitted: latent and deterministic sites of the fit -> shape.
        asked: names or globs; None: all.

    Raises:
        ValueError: a name that is no such site.
    """
    known = [name for name, shape in fitted.items() if name in truth and truth[name].shape == shape]
    if asked is None:
        return known
    patterns = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [p for p in patterns if not any(fnmatchcase(name, p) for name in known)]:
        raise ValueError(f"sites: expected names or globs of {known}, got {unknown}")
    return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]


@dataclass(eq=False)
class Quantities:
    """The quantities of a calibration, as rows of numbers.

    Attributes:
        target: the model that is fitted, whose log likelihood is a quantity.
        lengths: the sizes of its plates.
        sites: the sites that are ranked.
        functions: name -> function of one draw (site -> value) and the data, which returns a number or an array.
        rebuild: inputs and arrays -> the data as the user gave them.
        likelihood: is the log likelihood one?
    """

    target: Target
    lengths: Mapping[str, int]
    sites: Sequence[str]
    functions: Mapping[str, Callable]
    rebuild: Callable[[Inputs, Mapping[str, Any]], Any]
    likelihood: bool = True
    names: tuple[str, ...] = ()
    _run: Any = None

    @computing()
    def __call__(self, simulation: Simulation, draws: Values) -> tuple[np.ndarray, np.ndarray]:
        """The quantities at the truth, `(num_quantities,)`, and at draws, `(num_draws, num_quantities)`."""
        truth = {n: np.asarray(value)[None] for n, value in simulation.truth.items()}
        computed = self._computed(simulation.inputs, truth, draws)
        names: list[str] = []
        rows: list[np.ndarray] = []
        for name in [*self.sites, *computed]:
            value = computed[name] if name in computed else _joined(truth.get(name), draws[name])
            labels, at = _elements(name, value.shape[1:])
            names += labels
            rows.append(value.astype(np.float64).reshape(len(value), -1)[:, at])
        self.names = self.names or tuple(names)
        every = np.concatenate(rows, axis=1)
        return every[0], every[1:]

    def _computed(self, inputs: Inputs, truth: Values, draws: Values) -> dict[str, np.ndarray]:
        """The functions and the log likelihood, at the truth and at the draws."""
        if not self.functions and not self.likelihood:
            return {}
        values = {n: _joined(truth[n], draws[n]) for n in draws if n in truth}
        if self._run is None:
            self._run = jax.jit(lambda values, arrays: self._at(inputs, values, arrays))
        found = self._run(values, inputs.arrays)
        return {n: np.asarray(found[n]) for n in (*self.functions, LOG_LIKELIHOOD) if n in found}

    def _at(self, inputs: Inputs, values: Mapping[str, jax.Array], arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
        shapes, data = inputs.without_data(), self.rebuild(inputs, arrays)

        def one(draw: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            made = {n: jnp.asarray(f(draw, data)) for n, f in self.functions.items()}
            if self.likelihood:
                key = jax.random.key(0)  # of sites without a value, of which there is none
                found = self.target.log_likelihood(shapes, self.lengths, arrays, draw, key)
                made |= {} if found is None else {LOG_LIKELIHOOD: found}
            return made

        return jax.lax.map(one, dict(values), batch_size=AT_ONCE)


def _joined(truth: np.ndarray | None, draws: np.ndarray) -> np.ndarray:
    """The truth before the draws; NaN where it is not known."""
    draws = np.asarray(draws)
    known = np.full((1, *draws.shape[1:]), np.nan) if truth is None else truth
    return np.concatenate([known, draws])


def _elements(name: str, shape: tuple[int, ...]) -> tuple[list[str], np.ndarray]:
    """The names of the elements of a quantity that are ranked, and their places."""
    size = int(np.prod(shape, dtype=int))
    at = np.arange(size) if size <= MAX_ELEMENTS else np.unique(np.linspace(0, size - 1, MAX_ELEMENTS).astype(int))
    if not shape:
        return [name], at
    indices = zip(*np.unravel_index(at, shape), strict=True)
    return [f"{name}[{', '.join(map(str, index))}]" for index in indices], at


def check_functions(quantities: Any, taken: Collection[str]) -> dict[str, Callable]:
    """The functions in the argument `quantities`.

    Raises:
        TypeError, ValueError: not a mapping from names to functions, or a name that is taken.
    """
    if quantities is None:
        return {}
    if not isinstance(quantities, Mapping):
        raise TypeError(
            "quantities: expected a mapping from names to functions of a draw and the data, got "
            f"{type(quantities).__name__}; which sites are ranked is said by sites="
        )
    for name, function in quantities.items():
        if not callable(function):
            raise TypeError(f"quantities[{name!r}]: expected a function of a draw and the data, got {function!r}")
        if name in taken:
            raise ValueError(f"quantities[{name!r}]: a site or another quantity has this name; give it another one")
    return dict(quantities)
