"""A fit from its start to its end: by the ladder where it can be climbed, else by stochastic steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from autovi.climbing import Ladder
from autovi.initial import initial
from autovi.ladder.rungs import why_not
from autovi.model.inputs import Inputs
from autovi.preparation import Options, conjugate_sites
from autovi.process import computing
from autovi.result.fit import Fit
from autovi.run.engine import Engine
from autovi.run.loop import MAX_STEPS
from autovi.run.running import Run, Watch, before_the_first_step, ran, started
from autovi.run.stopping import Progress


@dataclass(frozen=True)
class Asked:
    """What a user asked of the way to q."""

    init: Any = None
    steps: str | None = None  # why stochastic steps are made whatever the ladder finds: None where it decides


def why_steps(options: Options, num_steps: int | None, max_steps: int, learning_rate: Any, callback: Any) -> str | None:
    """What asks for stochastic steps, as a sentence's beginning; None where nothing does."""
    asked = {
        "num_steps": num_steps,
        "max_steps": None if max_steps == MAX_STEPS else max_steps,
        "optimizer": options.optimizer,
        "learning_rate": learning_rate,
        "callback": callback,
        "families": options.families,
        "estimators": options.estimators,
        "num_particles": options.num_particles,
        "guide": None if options.guide == "auto" else options.guide,
    }
    return next((f"{name}=" for name, value in asked.items() if value is not None), None)


@computing()
def first_fit(
    model: Callable,
    engine: Engine,
    inputs: Inputs,
    asked: Asked,
    rng_key: int | jax.Array,
    progress: Progress,
    watch: Watch,
    as_fit: Callable[[Engine, Run], Fit],
) -> Fit:
    """A whole fit, from its start to its end.

    Raises:
        ValueError: no starting point has a finite ELBO.
    """
    program = engine.program
    exact = _exact(engine, model, inputs)
    off = "init= says where to start" if asked.init is not None else ""
    off = off or why_not(program.traced, program.plan, program.objective, exact) or ""
    # A family or an estimator that `infer` asks for at a site is asked for as well as one that `fit` is told.
    has_steps = asked.steps is not None or any(site.infer for site in program.sites.latents.values())
    with before_the_first_step():
        arrays = jax.device_put(inputs.traced())
        start = initial(asked.init, model, engine, inputs, arrays, rng_key)
        steps = progress.expected_steps if off else 0
        state, tried, key = started(engine, inputs, arrays, rng_key, start.origin, watch, steps)
        state = start.applied(engine, state)
        if not off:
            ladder = Ladder(engine, inputs, arrays, state, tried, key, progress, watch, as_fit, exact)
            if not has_steps and ladder.is_affordable:
                return ladder.climb()
            engine, state = ladder.warm()
            progress.rungs, off = tuple(ladder.rungs), "" if ladder.rungs else "a search for modes would take minutes"
    progress.off_ladder = off
    return as_fit(engine, Run(ran(engine, inputs, arrays, state, progress, watch), progress, key))


def _exact(engine: Engine, model: Callable, inputs: Inputs) -> dict[str, Any]:
    """The parameters of the blocks whose posterior is known in closed form, on these data."""
    own = [b.name for b in engine.program.plan.blocks if b.family is not None and not b.family.unconstrained]
    if not own:
        return {}
    found = conjugate_sites(model, inputs, engine.program.traced, engine.structure)
    return {n: params for n, params in found.items() if n in own}
