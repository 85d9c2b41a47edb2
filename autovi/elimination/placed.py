"""Where cost terms stand: the variables that each depends on, and its dimensions that are axes of elements."""

from __future__ import annotations

from dataclasses import dataclass

Dim = tuple[str, int]  # of a site or a term


class Mixed(ValueError):
    """A site's elements cannot be told apart in a term; `site` is whose."""

    def __init__(self, site: str, message: str):
        super().__init__(message)
        self.site = site


@dataclass(frozen=True)
class Placed:
    """A cost term: the variables that it depends on, and the axis of elements of each of its dimensions (None: it is
    summed over this one)."""

    variables: tuple[str, ...]
    dims: tuple[str | None, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of its table."""
        return (*self.variables, *(d for d in self.dims if d is not None))


class Axes:
    """Dimensions of sites and terms, joined where they are the same elements."""

    def __init__(self) -> None:
        self._above: dict[Dim, Dim] = {}
        self._length: dict[Dim, int] = {}

    def join(self, one: Dim, other: Dim, length: int) -> None:
        """Says that two dimensions are the same."""
        top = self.top(one)
        self._above[self.top(other)] = top
        self._length[top] = length

    def top(self, dim: Dim) -> Dim:
        """One dimension that stands for all that are joined with this one."""
        while self._above.setdefault(dim, dim) != dim:
            dim = self._above[dim]
        return dim

    def known(self, dim: Dim) -> str | None:
        """The name of a dimension; None of one that is no site's."""
        return self.name(dim) if dim in self._above else None

    def name(self, dim: Dim) -> str:
        """What a dimension and all that are joined with it are called."""
        where, place = self.top(dim)
        return f"%{where}.{place}"

    @property
    def lengths(self) -> dict[str, int]:
        """How many elements each has."""
        return {self.name(d): self._length[self.top(d)] for d in self._above if self.top(d) in self._length}
