"""The rows of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Choice:
    """One row of the plan."""

    site: str
    distribution: str
    support: str
    shape: tuple[int, ...]
    family: str
    estimator: str
    baseline: str | None
    why: str
    block: str

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        return {**self.__dict__, "shape": list(self.shape)}


class Rows(Protocol):
    """What of a plan is shown."""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """A row for every site."""

    @property
    def num_particles(self) -> int:
        """How many particles a step has."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said besides."""

    @property
    def rungs(self) -> tuple[str, ...]:
        """The way to the q of a fit, in words."""
