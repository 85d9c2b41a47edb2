"""What a run asks of the one who keeps it, so that a process that dies loses nothing."""

from __future__ import annotations

from typing import Protocol

from autovi.program.program import Program
from autovi.run.state import State
from autovi.run.stopping import Progress


class Leg(Protocol):
    """One run of stochastic steps from its start to its end."""

    def found(self, like: State, program: Program, progress: Progress) -> tuple[State, bool] | None:
        """The state that was kept, of the structure of `like`, and whether the leg had ended with it; `progress` is
        then what it was. None where nothing was kept."""

    def is_due(self, step: int) -> bool:
        """Is it time to keep the state after so many steps?"""

    def keep(self, state: State, progress: Progress, ended: bool = False) -> None:
        """Keeps a state; what goes wrong is a warning, and never the end of the run."""


class Journal(Protocol):
    """The legs of one fit, in the order in which it makes them: the same in each process that runs it."""

    def next_leg(self) -> Leg:
        """The leg that is about to start."""
