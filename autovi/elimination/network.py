"""Which variables there are, how they depend on one another, and which axes of elements each has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autovi.model.lags import lagged


@dataclass(frozen=True)
class Network:
    """Discrete variables. `sizes` are their numbers of values, and the lengths of the axes of elements.

    `elements` are the axes along which a variable has an element each, `lags` how many steps back its values are felt
    in the steps along its axis `time`. Of those `backward` the first step is the last along that axis.
    """

    sizes: Mapping[str, int]
    elements: Mapping[str, frozenset[str]]
    lags: Mapping[str, int] = field(default_factory=dict)
    time: Mapping[str, str] = field(default_factory=dict)
    backward: frozenset[str] = frozenset()

    @cached_property
    def variables(self) -> dict[str, str]:
        """Every variable and its lagged values -> the variable."""
        return {lagged(v, lag): v for v in self.elements for lag in range(self.lags.get(v, 0) + 1)}

    def of(self, axes: tuple[str, ...]) -> dict[str, None]:
        """The variables among some axes, in order, lagged ones by what they are values of."""
        return dict.fromkeys(self.variables[a] for a in axes if a in self.variables)

    def level(self, axes: tuple[str, ...]) -> frozenset[str]:
        """The axes of elements among some axes."""
        return frozenset(a for a in axes if a not in self.variables)

    def lag_of(self, name: str) -> int:
        """How many steps before the value is that a name stands for."""
        variable = self.variables[name]
        return next(k for k in range(self.lags.get(variable, 0) + 1) if lagged(variable, k) == name)

    def time_of(self, names: Iterable[str]) -> str:
        """The axis of steps of the variables among some names that are values of steps before."""
        return next(self.time[self.variables[n]] for n in names if self.lag_of(n))
