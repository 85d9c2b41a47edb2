"""Large data: 1e5 points of ten normals, 1e4 persons of latent classes with 30 items. Steps per second, memory."""

import resource
import time
from collections.abc import Callable
from typing import Any

from benchmarks.discrete_latents import mixtures
from benchmarks.discrete_latents.base import Data

LARGE: dict[str, tuple[Callable[..., None], Callable[[], Data]]] = {
    "normals_1e5": (mixtures.normals, lambda: mixtures.normals_data(100_000, 10) | {"components": 10}),
    "latent_class_1e4": (
        mixtures.latent_class,
        lambda: mixtures.latent_class_data(10_000, 30, 4) | {"classes": 4},
    ),
}
STEPS = 100, 400


def _peak() -> float:
    """Peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured(name: str, steps: tuple[int, int] = STEPS) -> dict[str, Any]:
    """What a mean-field fit of so many steps takes, in this process, which should be a fresh one.

    `step_gb` is what the fit adds to the peak memory of the process before it, its compilation included.
    """
    import optax

    from autovi import fit

    model, data = LARGE[name][0], LARGE[name][1]()
    options = {"guide": "mean_field", "num_particles": 1, "optimizer": optax.adam(0.02), "progress_bar": False}
    seconds = []
    before = _peak()
    found: dict[str, Any] = {}
    for count in (steps[0], *steps):  # the first one compiles
        start = time.perf_counter()
        try:
            answer = fit(model, data, num_steps=count, **options)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        seconds.append(time.perf_counter() - start)
    found["steps_per_second"] = (steps[1] - steps[0]) / max(seconds[2] - seconds[1], 1e-9)
    found |= {"plan": answer.plan["c"].estimator, "status": str(answer.status), "loss": float(answer.losses[-1])}
    return found | {"step_gb": _peak() - before, "peak_gb": _peak(), "notes": list(answer.plan.notes)}
