"""Where the time of a fit goes, and the line that stands while one waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from tqdm.auto import tqdm

from autovi.compiling import num_equations
from autovi.numbers import number

# Compiling takes about this long for each equation of a program, and as long as so many equations for any program. The
# first is corrected by what was seen last, as machines differ.
SECONDS_PER_EQUATION = 1.7e-3
EQUATIONS_OF_ANY = 400


@dataclass
class Seconds:
    """Where the time of a fit went, in seconds of wall time.

    `trace`: running the model on abstract values, the plan, the step as a program. `compile`: XLA. `run`: the steps.
    `diagnostics`: what was asked for since, such as draws, ELBO and k-hat, their compilation included.
    """

    trace: float = 0.0
    compile: float = 0.0
    run: float = 0.0
    diagnostics: float = 0.0

    @property
    def fitting(self) -> float:
        """All but the diagnostics: how long the fit took."""
        return self.trace + self.compile + self.run

    @property
    def total(self) -> float:
        """The sum of all."""
        return sum(getattr(self, part.name) for part in fields(self))

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """What runs inside counts for this part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.took(part, time.perf_counter() - started)

    def took(self, part: str, seconds: float) -> None:
        """So many seconds more count for this part."""
        setattr(self, part, getattr(self, part) + seconds)

    def __str__(self) -> str:
        parts = (f"{part.name} {number(getattr(self, part.name))}" for part in fields(self))
        return f"{number(self.total)} s ({', '.join(parts)})"


class CompileTime:
    """How long compiling will take, from what it took in this process."""

    def __init__(self) -> None:
        self.per_equation = SECONDS_PER_EQUATION

    def expected(self, jaxpr: Any) -> float:
        """Seconds for a program."""
        return self.per_equation * (EQUATIONS_OF_ANY + num_equations(jaxpr))

    def seen(self, jaxpr: Any, seconds: float) -> None:
        """It took so long. What came from a cache, in no time, says nothing of the next."""
        per_equation = seconds / (EQUATIONS_OF_ANY + num_equations(jaxpr))
        if per_equation > SECONDS_PER_EQUATION / 10:
            self.per_equation = per_equation


COMPILE_TIME = CompileTime()


@contextmanager
def waiting(text: str, show: bool) -> Iterator[None]:
    """A line while something runs, gone when it has ended."""
    with tqdm(bar_format="{desc}", desc=text, disable=not show, leave=False):
        yield
