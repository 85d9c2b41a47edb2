"""The fits of a calibration, one for each simulated data set, side by side where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from autovi.calibration.simulating import OF_FIT, Simulation
from autovi.fitting import fit, fits
from autovi.result.fit import Fit

AT_ONCE = 32  # fits that are made together
ALONE = ("num_restarts", "callback")  # options with which a fit has none beside it

Made = tuple[Simulation, Fit | BaseException, float]


def fits_of(
    model: Callable, simulations: Sequence[Simulation], options: Mapping[str, Any], is_over: Callable[[], bool]
) -> Iterator[Made]:
    """Each simulation with the fit of its data, or the error that it raised, and the seconds that it took: its share of
    those of all, where they ran side by side. Where `is_over()` says so no further fit is begun."""
    if any(name in options for name in ALONE):
        return _one_by_one(model, simulations, options, is_over)
    return _side_by_side(model, simulations, options)


def _side_by_side(model: Callable, simulations: Sequence[Simulation], options: Mapping[str, Any]) -> Iterator[Made]:
    start = perf_counter()
    keys = [simulation.key_of(OF_FIT) for simulation in simulations]
    data = [simulation.inputs for simulation in simulations]
    made = fits(model, data, keys, progress_bar=False, **options)
    seconds = (perf_counter() - start) / max(len(made), 1)
    for simulation in simulations:
        yield simulation, made.pop(0), seconds  # which then holds its draws no longer than it is looked at


def _one_by_one(
    model: Callable, simulations: Sequence[Simulation], options: Mapping[str, Any], is_over: Callable[[], bool]
) -> Iterator[Made]:
    for simulation in simulations:
        if is_over():
            return
        start = perf_counter()
        made: Fit | Exception
        try:
            made = fit(model, simulation.inputs, rng_key=simulation.key_of(OF_FIT), progress_bar=False, **options)
        except Exception as error:  # of whatever kind: it is what came of this data set
            made = error
        yield simulation, made, perf_counter() - start
