"""The jobs that run in processes of their own: `python -m benchmarks.accuracy.jobs JOB ...` prints one line of JSON."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from benchmarks.accuracy import measuring, references
from benchmarks.accuracy.scoring import score


def fit_reference(folder: str, case: str, seed: str) -> dict[str, Any]:
    """A first fit of a reference posterior, its score, and a second fit of the same shapes."""
    model, load_data = references.models_of(Path(folder))[case]
    data, reference = load_data(), references.load(Path(folder), case)
    import autovi

    fit, draws, first = measuring.fitted(model, data, rng_key=int(seed))
    plain = measuring.drawn(fit, plain=True)
    dims = measuring.dimensions(model, data, {name: values[0] for name, values in draws.items()})
    second = measuring.fitted(model, data, rng_key=int(seed) + 1)[2]
    scored = {"score": asdict(score(draws, reference)), "plain": asdict(score(plain, reference))}
    times = {"first_s": first, "second_s": second}
    return {"dims": dims, **scored, **times, **measuring.described(fit), "version": autovi.__version__}


def nuts_reference(folder: str, case: str, seed: str) -> dict[str, Any]:
    """NUTS on a reference posterior, its score and its time."""
    model, load_data = references.models_of(Path(folder))[case]
    data, reference = load_data(), references.load(Path(folder), case)
    run, draws, seconds = measuring.sampled(model, data, int(seed))
    return {"seconds": seconds, "score": asdict(score(draws, reference)), **measuring.mixing(run)}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"fit": fit_reference, "nuts": nuts_reference}

if __name__ == "__main__":
    jax.devices()  # the backend's own start is in nobody's time
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
