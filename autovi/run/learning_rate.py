"""Learning rates: autovi's own, the user's number or schedule."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import optax

START_RATE = 0.05
OWN_RATE = (1.0,)  # where the learning rate is the optimizer's or the schedule's: one level
Schedule = Callable[[Any], Any]


def rates_from(first: float) -> tuple[float, ...]:
    """The learning rates of a fit until it stands still: each taken when the loss stands still at the one before."""
    return tuple(first * 10 ** (-k / 2) for k in range(4))


RATES = rates_from(START_RATE)


def rates_of(
    learning_rate: float | Schedule | None, optimizer: optax.GradientTransformation | None
) -> tuple[tuple[float, ...], Schedule | None]:
    """The rates of a fit's levels, and its schedule if it has one, from what `fit` was given.

    Raises:
        ValueError, TypeError: a learning rate beside an optimizer, or none that could be one.
    """
    if learning_rate is None:
        return (RATES if optimizer is None else OWN_RATE), None
    if optimizer is not None:
        raise ValueError(
            "learning_rate: it is for autovi's own optimizer; give an Optax transformation its own, as in "
            "optimizer=optax.adam(0.01)"
        )
    if callable(learning_rate):
        evaluated(learning_rate, np.zeros(1, int))
        return OWN_RATE, learning_rate
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, int | float | np.number):
        raise TypeError(f"learning_rate: expected a number or an Optax schedule, got {type(learning_rate).__name__}")
    if not (isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate: expected a number above 0, got {learning_rate}")
    return rates_from(float(learning_rate)), None


def evaluated(learning_rate: Schedule, steps: np.ndarray) -> np.ndarray:
    """A schedule at some steps.

    Raises:
        ValueError: it gives something that is no learning rate.
    """
    try:
        rates = np.broadcast_to(np.asarray(learning_rate(steps), np.float64), steps.shape)
    except (ValueError, TypeError):  # it is written for one step at a time
        rates = np.array([float(learning_rate(int(step))) for step in steps])
    if (bad := ~(np.isfinite(rates) & (rates >= 0))).any():
        at = int(np.argmax(bad))
        raise ValueError(f"learning_rate: the schedule gives {rates[at]} at step {steps[at]}; expected 0 or more")
    # No step has the rate 0: that is how a chunk is told where the fit ends.
    return np.maximum(rates, np.finfo(np.float32).tiny)


def forgotten(step: Any) -> Any:
    """Stands for the schedule of a fit that was loaded, as a file holds none."""
    raise ValueError("learning_rate: the fit had a schedule, which a file does not hold; give learning_rate= again")
