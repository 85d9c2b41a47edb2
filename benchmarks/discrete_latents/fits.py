"""A fit of one case without settings, held against its reference."""

import time
from fnmatch import fnmatch
from typing import Any

import numpy as np

from benchmarks.discrete_latents.base import Case
from benchmarks.discrete_latents.references import Moments, load

DRAWS = 4000
CLOSE, WIDE = 0.1, 0.1  # the bar: means within .1 sd, sds within a tenth


def errors(draws: dict[str, np.ndarray], reference: dict[str, Moments]) -> dict[str, Any]:
    """Largest error of a mean in reference sds, and the sd ratio that is farthest from 1, with their elements.

    Raises:
        ValueError: a site of the reference without draws, or of another shape.
    """
    means, ratios = {}, {}
    for name, moments in reference.items():
        values = np.asarray(draws[name], float) if name in draws else None
        if values is None or values.shape[1:] != moments.mean.shape:
            got = "none" if values is None else f"shape {values.shape}"
            raise ValueError(f"{name}: expected draws of shape (draws,) + {moments.mean.shape}, got {got}")
        found = (values.mean(axis=0) - moments.mean) / moments.sd, values.std(axis=0, ddof=1) / moments.sd
        for index in np.ndindex(moments.mean.shape):
            label = f"{name}[{', '.join(map(str, index))}]" if index else name
            means[label], ratios[label] = float(found[0][index]), float(found[1][index])
    mean_of = max(means, key=lambda label: abs(means[label]))
    sd_of = max(ratios, key=lambda label: abs(np.log(ratios[label])) if ratios[label] > 0 else np.inf)
    return {"mean": means[mean_of], "mean_of": mean_of, "sd_ratio": ratios[sd_of], "sd_of": sd_of}


def planned(fit: Any, case: Case) -> dict[str, str]:
    """How the discrete sites are treated, by what the plan calls it, and how many of them so."""
    rows = [row for row in fit.plan.choices if any(fnmatch(row.site, pattern) for pattern in case.discrete)]
    estimators: dict[str, int] = {}
    for row in rows:
        estimators[row.estimator] = estimators.get(row.estimator, 0) + 1
    return {name: str(count) for name, count in estimators.items()}


def fitted(name: str, seed: int = 0) -> dict[str, Any]:
    """Errors, seconds and what the fit says of itself; "failed" with the reason where it raises."""
    import autovi
    from benchmarks.discrete_latents import CASES

    case, start = CASES[name], time.perf_counter()
    try:
        fit = autovi.fit(case.model, case.data(), rng_key=seed, progress_bar=False)
        draws = fit.sample(DRAWS)
    except Exception as error:
        # What a version cannot do yet is what the benchmark reports.
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    seconds = time.perf_counter() - start
    said = {"status": str(fit.status), "verdict": str(fit.verdict.word), "elbo": float(fit.elbo)}
    said |= {"elbo_se": float(fit.elbo_se), "khat": float(fit.khat), "plan": planned(fit, case), "seconds": seconds}
    reference = load(name)
    try:
        return said | errors(draws, reference)
    except ValueError as error:
        return said | {"failed": str(error)}


def within(record: dict[str, Any]) -> bool:
    """Whether a fit is within the bar."""
    return "failed" not in record and abs(record["mean"]) <= CLOSE and abs(record["sd_ratio"] - 1.0) <= WIDE
