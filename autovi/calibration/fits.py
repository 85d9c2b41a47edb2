"""The fits of a calibration, one for each simulated data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

from autovi.calibration.simulating import OF_FIT, Simulation
from autovi.fitting import fit
from autovi.result.fit import Fit

AT_ONCE = 32  # fits that are made together


def fits_of(
    model: Callable, simulations: Iterable[Simulation], options: Mapping[str, Any]
) -> Iterator[tuple[Simulation, Fit | Exception, float]]:
    """Each simulation with the fit of its data, or the error that the fit raised, and the seconds that it took."""
    for simulation in simulations:
        start = perf_counter()
        made: Fit | Exception
        try:
            made = fit(model, simulation.inputs, rng_key=simulation.key_of(OF_FIT), progress_bar=False, **options)
        except Exception as error:  # of whatever kind: it is what came of this data set
            made = error
        yield simulation, made, perf_counter() - start
