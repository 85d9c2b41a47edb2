"""Does a model compute the same whenever it is run on the same data?"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from autovi.model.traced import Traced


class GlobalDraws:
    """Whether random numbers of Python's or NumPy's own generators have been drawn since this was made."""

    def __init__(self) -> None:
        self._before = _states()

    @property
    def any(self) -> bool:
        """Have some been drawn?"""
        return _states() != self._before


def _states() -> tuple[Any, ...]:
    # `legacy=False` gives the position too, which moves with every draw.
    state: Any = np.random.get_state(legacy=False)
    return random.getstate(), state["state"]["key"].tobytes(), state["state"]["pos"]


def check_same_again(traced: Traced, again: Callable[[], Traced]) -> None:
    """Raises unless another trace gives the same program.

    A model that draws random numbers of its own, or reads the clock, has them as constants in the program: what is
    computed after the fit would be computed with others.

    Raises:
        ValueError: the two differ.
    """
    # Only the operations and constants: state that the program itself changes, as a counter, may differ.
    if traced.fingerprint.program != again().fingerprint.program:
        raise ValueError(
            "model: two runs of it on the same data give different programs; it (or the guide) draws random numbers "
            "with NumPy or Python, or reads the clock or something else that changes; draw with numpyro.sample, or "
            "make the numbers before the fit and pass them as data"
        )
