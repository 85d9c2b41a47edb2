"""The jobs that run in processes of their own: `python -m benchmarks.accuracy.jobs JOB ...` prints one line of JSON."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accuracy import conjugate, evidence, large, measuring, references
from benchmarks.accuracy.scoring import score


def fit_reference(folder: str, case: str, seed: str) -> dict[str, Any]:
    """A first fit of a reference posterior, its score, and a second fit of the same shapes."""
    model, load_data = references.models_of(Path(folder))[case]
    data, reference = load_data(), references.load(Path(folder), case)
    fit, draws, first = measuring.fitted(model, data, rng_key=int(seed))
    plain = measuring.drawn(fit, plain=True)
    dims = measuring.dimensions(model, data, {name: values[0] for name, values in draws.items()})
    second = measuring.fitted(model, data, rng_key=int(seed) + 1)[2]
    scored = {"score": asdict(score(draws, reference)), "plain": asdict(score(plain, reference))}
    return {"dims": dims, **scored, "first_s": first, "second_s": second, **measuring.described(fit)}


def nuts_reference(folder: str, case: str, seed: str) -> dict[str, Any]:
    """NUTS on a reference posterior, its score and its time."""
    model, load_data = references.models_of(Path(folder))[case]
    data, reference = load_data(), references.load(Path(folder), case)
    run, draws, seconds = measuring.sampled(model, data, int(seed))
    return {"seconds": seconds, "score": asdict(score(draws, reference)), **measuring.mixing(run)}


def log_evidence(case: str) -> dict[str, Any]:
    """The log evidence of a target, in double precision."""
    jax.config.update("jax_enable_x64", True)
    target = evidence.TARGETS[case]
    return target.evidence(**target.data())._asdict()


def fit_target(case: str, guide: str, seed: str) -> dict[str, Any]:
    """A fit of a target of known evidence; a guide that this version does not have is said to be absent."""
    import autovi

    target = evidence.TARGETS[case]
    try:
        autovi.plan(target.model, target.data(), guide=guide)
    except ValueError as error:
        return {"absent": str(error)}
    settings = {} if guide == "auto" else {"guide": guide}
    fit, _, seconds = measuring.fitted(target.model, target.data(), rng_key=int(seed), **settings)
    return {"first_s": seconds, **measuring.described(fit)}


def large_reference(case: str) -> dict[str, Any]:
    """NUTS's moments of the globals of a large hierarchy, in double precision."""
    jax.config.update("jax_enable_x64", True)
    draws, mixed = large.reference(large.simulate(*large.CASES[case][1]))
    moments = {name: [float(v.mean()), float(v.std(ddof=1))] for name, v in draws.items()}
    return {"moments": moments, **mixed}


def fit_large(case: str, seed: str) -> dict[str, Any]:
    """A fit of a large hierarchy, and the moments of its globals."""
    model, settings = large.CASES[case]
    fit, draws, seconds = measuring.fitted(model, large.simulate(*settings), rng_key=int(seed))
    moments = {name: [float(np.mean(draws[name])), float(np.std(draws[name], ddof=1))] for name in large.GLOBALS}
    return {"moments": moments, "first_s": seconds, **measuring.described(fit)}


def fit_conjugate(case: str) -> dict[str, Any]:
    """Fits of one model to data of twenty seeds, each with a key of its own: what those said that warned."""
    import autovi

    model, simulate = conjugate.MODELS[case]
    said = {}
    for seed in range(conjugate.SEEDS):
        data = {"y": simulate(np.random.default_rng(seed))}
        fit = autovi.fit(model, data, rng_key=seed, progress_bar=False)
        if measuring.warned(fit):
            said[seed] = f"{measuring.word_of(fit)}, k-hat {fit.khat:.2f}"
    return {"fits": conjugate.SEEDS, "warned": said}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "fit": fit_reference,
    "nuts": nuts_reference,
    "log_evidence": log_evidence,
    "fit_target": fit_target,
    "large_reference": large_reference,
    "fit_large": fit_large,
    "fit_conjugate": fit_conjugate,
}

if __name__ == "__main__":
    jax.devices()  # the backend's own start is in nobody's time
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
