"""What a random program is made of. `model.py` writes it as a NumPyro model, `brute.py` sums it: two readings that have
this description in common, and no line of code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Parent(NamedTuple):
    """A site that is looked up; in a scan its value `lag` steps ago, which before the first step is its first value.

    In a factor of `neighbours`, element i of which looks at elements i and i + 1 of a vector: lag 1 is the former."""

    name: str
    lag: int = 0


@dataclass(frozen=True, eq=False)
class Site:
    """One sample statement, or a factor.

    Its parameters are `base + sum_i theta_i slope_i` at the values of its `parents`, plus `offset` of its element. With
    E the shape of its parameters (a number for each value of a categorical site, else one number):

    - `base` [*values of the parents, *E], `slope` [thetas, *values of the parents, *E];
    - `shape`, that of its elements: the sizes of its plates, the innermost first, behind the length of the scan it is
      in; `offset` [*shape, *E], `mask`, `data` and `seen` [*shape];
    - a latent site has the values low, ..., low + size - 1; one with `data` alone is observed; one with `seen` too has
      data where `seen` is on, and is latent elsewhere.
    """

    name: str
    kind: str
    depth: int
    shape: tuple[int, ...]
    base: np.ndarray
    slope: np.ndarray
    parents: tuple[Parent, ...] = ()
    size: int = 0
    low: int = 0
    offset: np.ndarray | None = None
    scale: float = 1.0
    mask: np.ndarray | None = None
    data: np.ndarray | None = None
    seen: np.ndarray | None = None
    neighbours: bool = False
    # How it is written, which changes no number.
    lookup: str = "index"
    line: tuple[np.ndarray, np.ndarray] | None = None  # base = intercept + sum over parents of value * coefficient
    masked_by_handler: bool = True

    @property
    def latent(self) -> bool:
        """Is it a latent site in all of its elements?"""
        return self.data is None and self.kind != "factor"


@dataclass(frozen=True, eq=False)
class Program:
    """`sites` in order of execution, then those of a scan of `length` steps. `plates` are sizes, outermost first."""

    name: str
    plates: tuple[int, ...]
    sites: tuple[Site, ...]
    scanned: tuple[Site, ...] = ()
    length: int = 0
    thetas: int = 0
    scale: float = 1.0

    @property
    def every(self) -> tuple[Site, ...]:
        """All sites."""
        return (*self.sites, *self.scanned)

    @property
    def latents(self) -> dict[str, Site]:
        """The discrete latent sites by the names that NumPyro gives them."""
        partly = {f"{s.name}_unobserved": s for s in self.every if s.seen is not None}
        return {s.name: s for s in self.every if s.latent} | partly

    @property
    def data(self) -> dict[str, np.ndarray]:
        """The arrays that the model takes."""
        kinds = {"": "data", "_mask": "mask", "_offset": "offset", "_seen": "seen"}
        found = {f"{s.name}{end}": getattr(s, field) for s in self.every for end, field in kinds.items()}
        return {name: array for name, array in found.items() if array is not None}

    def theta(self) -> np.ndarray:
        """A value of the continuous parameters, at which programs are compared."""
        return np.array([0.4, -0.7])[: self.thetas]
