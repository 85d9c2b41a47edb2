"""Which scalars of the posterior are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain, islice, product, zip_longest
from typing import Any, NamedTuple

import numpy as np

from autovi.result import export
from autovi.result.constants import constant_elements
from autovi.result.groups import posterior_alone
from autovi.result.posterior import Posterior


class Element(NamedTuple):
    """One scalar of the posterior: the name of its variable, "theta[A]" to show, its draws `(num_draws,)`."""

    variable: str
    label: str
    draws: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """The draws that are finite, in double precision where they are not integers."""
        return self.draws[np.isfinite(self.draws)] if self.draws.dtype.kind not in "iu" else self.draws


@dataclass(frozen=True)
class Selection:
    """The variables that were asked for, looked up when they are needed."""

    fit: Posterior
    var_names: str | Sequence[str] | None = None
    coords: Mapping[str, Any] | None = None

    @cached_property
    def dataset(self) -> Any:
        """Their draws with dims `(chain, draw, ...)`.

        Raises:
            ValueError: a variable, dim or label that is not there.
        """
        return self._chosen(self._posterior)

    @cached_property
    def _posterior(self) -> Any:
        # `to_arviz` would compute log densities for its attributes.
        return export.posterior(vars(self.fit).get("idata") or posterior_alone(self.fit))

    def _chosen(self, variables: Any) -> Any:
        return _at(variables[_matching(list(variables.data_vars), self.var_names)], self.coords or {})

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """Variable -> which of its elements are shown: those that could vary, as in the summary; all, if none could."""
        constant = {export.variable_name(n): at for n, at in constant_elements(self.fit, self.fit.values).items()}

        def varies(array: Any) -> Any:
            fixed = constant.get(array.name, np.zeros(_shape(array), bool))
            return array.isel(chain=0, draw=0, drop=True).copy(data=~fixed)

        found = {n: marked.values for n, marked in self._chosen(self._posterior.map(varies)).data_vars.items()}
        none = not any(at.any() for at in found.values())
        return {n: at | none for n, at in found.items()}

    @property
    def total(self) -> int:
        """How many scalars there are."""
        return sum(int(at.sum()) for at in self._places.values())

    def elements(self, limit: int) -> list[Element]:
        """Up to so many of them, from each variable in turn, those of a variable together."""
        arrays = self.dataset.data_vars
        turns = zip_longest(*(product([n], map(tuple, np.argwhere(at))) for n, at in self._places.items()))
        taken = list(islice((place for place in chain.from_iterable(turns) if place is not None), limit))
        order = list(arrays)
        taken.sort(key=lambda place: (order.index(place[0]), place[1]))
        return [_element(name, arrays[name], index) for name, index in taken]


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape[2:])


def _element(name: str, array: Any, index: tuple[int, ...]) -> Element:
    labels = [str(array[dim].values[i]) for dim, i in zip(array.dims[2:], index, strict=True)]
    draws = array.values[(..., *index)].ravel()
    kept = draws if draws.dtype.kind in "iu" else draws.astype(np.float64)
    return Element(name, f"{name}[{', '.join(labels)}]" if labels else name, kept)


def _matching(names: list[str], asked: str | Sequence[str] | None) -> list[str]:
    if asked is None:
        return names
    patterns = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [p for p in patterns if not any(fnmatchcase(n, p) for n in names)]:
        raise ValueError(f"var_names: expected names or globs of {names}, got {unknown}")
    return list(_unique(n for p in patterns for n in names if fnmatchcase(n, p)))


def _unique(names: Iterator[str]) -> dict[str, None]:
    return dict.fromkeys(names)


def _at(dataset: Any, coords: Mapping[str, Any]) -> Any:
    known = [dim for dim in dataset.dims if dim not in export.SAMPLE_DIMS]
    for dim, labels in coords.items():
        if dim not in known:
            raise ValueError(f"coords: expected dims of the variables shown, {known}, got {dim!r}")
        # An array keeps the dim, and with it the label of the element.
        wanted = np.atleast_1d(np.asarray(labels))
        if missing := [x for x in wanted.tolist() if x not in dataset[dim].values]:
            raise ValueError(f"coords[{dim!r}]: expected labels of {_some(dataset[dim].values)}, got {missing}")
        dataset = dataset.sel({dim: wanted})
    return dataset


def _some(labels: np.ndarray) -> str:
    return f"{labels[:12].tolist()}{' and so on' * (len(labels) > 12)}"
