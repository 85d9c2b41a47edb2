"""What came of a simulation: ranks of the truth among the draws of a fit, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import numpy as np

from autovi.calibration.quantities import Quantities
from autovi.calibration.ranks import fractional_ranks, num_ranked
from autovi.calibration.simulating import OF_RANKS, Simulation
from autovi.result.fit import Fit
from autovi.run.weights import effective_size

# What can come of a simulation, and what it means.
STATUSES = {
    "fitted": "it has ranks",
    "not_finite": "what was drawn from the prior, or the data, had NaN or an infinity, and was not fitted",
    "raised": "the fit, or what is computed after it, raised an error",
    "no_draws": "draws of the fit were NaN or infinite",
}
ARRAYS = ("ranks", "means", "sds")


class Scores(NamedTuple):
    """Fractional ranks of the truth, and mean and standard deviation of the draws, each `(num_quantities,)`."""

    ranks: np.ndarray
    means: np.ndarray
    sds: np.ndarray


@dataclass(frozen=True, eq=False)
class Outcome:
    """One simulation.

    Attributes:
        number: which one, from 0.
        status: one of `STATUSES`; `message` says more where it is not "fitted".
        fit_status, verdict, warns: of the fit: `Fit.status`, the word of `Fit.verdict`, and whether that speaks against
            using the posterior.
        resampled: were the draws of the fit corrected by importance weights?
        seconds: of the fit with its draws.
        truths: the true values, `(num_quantities,)`.
        drawn: of the draws as a user gets them.
        plain: of the draws of q as it is.
    """

    number: int
    status: str
    message: str = ""
    fit_status: str = ""
    verdict: str = ""
    warns: bool = False
    resampled: bool = False
    seconds: float = 0.0
    truths: np.ndarray | None = None
    drawn: Scores | None = None
    plain: Scores | None = None


def outcome_of(simulation: Simulation, fit: Fit | BaseException, quantities: Quantities, seconds: float) -> Outcome:
    """What came of a simulation that was fitted."""
    if isinstance(fit, BaseException):
        return Outcome(simulation.number, "raised", f"{type(fit).__name__}: {fit}", seconds=seconds)
    try:
        verdict, draws = fit.verdict, fit.values
        plain_draws = fit.sample(fit.num_draws, resample=False) if fit.resampled else None
    except Exception as error:  # of what is computed after the fit: it is what came of this data set
        return Outcome(simulation.number, "raised", f"{type(error).__name__}: {error}", fit.status, seconds=seconds)
    known: dict[str, Any] = {"fit_status": fit.status, "verdict": verdict.word, "warns": verdict.warns}
    known |= {"resampled": fit.resampled, "seconds": seconds}
    if lost := [name for name, value in draws.items() if not np.all(np.isfinite(np.asarray(value, np.float64)))]:
        return Outcome(simulation.number, "no_draws", f"draws of {lost[0]!r} are not finite", **known)
    effective = None if fit.chosen is None else effective_size(fit.chosen.weights.log)
    key = simulation.key_of(OF_RANKS)
    truths, drawn = _scores(simulation, quantities, draws, effective, key)
    plain = drawn if plain_draws is None else _scores(simulation, quantities, plain_draws, None, key)[1]
    return Outcome(simulation.number, "fitted", truths=truths, drawn=drawn, plain=plain, **known)


def _scores(
    simulation: Simulation, quantities: Quantities, values: Mapping[str, Any], effective: float | None, key: jax.Array
) -> tuple[np.ndarray, Scores]:
    truths, draws = quantities(simulation, values)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    ranked = draws[: num_ranked(len(draws), effective)]
    with np.errstate(invalid="ignore"):  # a log likelihood may be minus infinity, and its spread is then NaN
        return truths, Scores(fractional_ranks(truths, ranked, rng), draws.mean(axis=0), draws.std(axis=0, ddof=1))


def stored(outcomes: list[Outcome], num_quantities: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Outcomes as arrays and JSON-ready values; what an outcome lacks is NaN."""
    none = np.full(num_quantities, np.nan)
    arrays = {"truths": np.stack([none if o.truths is None else o.truths for o in outcomes])}
    for kind in ("drawn", "plain"):
        for name in ARRAYS:
            found = [none if (s := getattr(o, kind)) is None else getattr(s, name) for o in outcomes]
            arrays[f"{kind}/{name}"] = np.stack(found)
    plain = [f.name for f in fields(Outcome) if f.name not in ("truths", "drawn", "plain")]
    return arrays, {"outcomes": [{name: getattr(o, name) for name in plain} for o in outcomes]}


def restored(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> list[Outcome]:
    """The inverse of `stored`."""
    found = []
    for i, plain in enumerate(meta["outcomes"]):
        known: dict[str, Any] = dict(plain)
        if plain["status"] == "fitted":
            known["truths"] = arrays["truths"][i]
            for kind in ("drawn", "plain"):
                known[kind] = Scores(*(arrays[f"{kind}/{name}"][i] for name in ARRAYS))
        found.append(Outcome(**known))
    return found
