"""A fit from its start to its end: by the ladder where it can be climbed, else by stochastic steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax

from autovi.climbing import Ladder
from autovi.initial import initial
from autovi.ladder.rungs import why_not
from autovi.model.inputs import Inputs
from autovi.objectives import Objective
from autovi.plan.requests import as_objective
from autovi.preparation import Options, conjugate_sites, prepare
from autovi.result.axes import Axes, as_dicts
from autovi.result.fit import Fit
from autovi.run.checks import check_count
from autovi.run.clock import Seconds
from autovi.run.engine import Engine
from autovi.run.keeping import Journal
from autovi.run.learning_rate import rates_of
from autovi.run.loop import MAX_STEPS
from autovi.run.reporting import Report, check_callback
from autovi.run.running import Run, Steps, Watch, before_the_first_step, started
from autovi.run.state import State
from autovi.run.stopping import Progress


@dataclass(frozen=True)
class Asked:
    """What a user asked of the way to q and of the fit: all but data and random key.

    Attributes:
        why_steps: why stochastic steps are made whatever the ladder finds: None where it decides.
        rates, schedule: of the learning rate, as in `Progress`.
    """

    model: Callable
    options: Options
    init: Any
    why_steps: str | None
    num_steps: int | None
    max_steps: int
    rates: tuple[float, ...]
    schedule: Callable[[Any], Any] | None
    callback: Callable[[Report], Any] | None
    num_draws: int
    coords: Mapping[str, Any]
    dims: Mapping[str, Sequence[str | None]]
    progress_bar: bool

    def prepared(self, data: Any, clock: Seconds) -> tuple[Engine, Inputs]:
        """Everything before the first step.

        Raises:
            ValueError, TypeError: as `autovi.fit`.
        """
        with before_the_first_step(), clock.spent("trace"):
            engine, inputs = prepare(self.model, data, self.options)
            if self.coords or self.dims:
                Axes(engine.full.traced, inputs, self.coords, self.dims).check()
        return engine, inputs

    def begun(
        self,
        engine: Engine,
        inputs: Inputs,
        rng_key: int | jax.Array,
        clock: Seconds,
        journal: Journal | None = None,
        alone: bool = True,
        restart: int = 0,
    ) -> Generator[Steps, State, Fit]:
        """A fit from its start to its end, which asks for its stochastic steps (see `run/together.py`)."""
        watch = Watch(self.callback, self.progress_bar, clock, journal, alone)
        progress = Progress(self.num_steps, self.max_steps, self.rates, self.schedule)

        def as_fit(engine: Engine, run: Run) -> Fit:
            return Fit(
                model=self.model,
                guide=engine.guide,
                engine=engine,
                inputs=inputs,
                state=run.state,
                progress=run.progress,
                rng_key=run.rng_key,
                num_draws=self.num_draws,
                seconds=clock,
                options=self.options,
                progress_bar=self.progress_bar,
                coords=self.coords,
                dims=self.dims,
            )

        return first_fit(self, engine, inputs, rng_key, progress, watch, as_fit, restart)


def asked_for(
    model: Callable,
    *,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    objective: str | Objective = "elbo",
    allow_bias: bool = False,
    num_particles: int | None = None,
    num_steps: int | None = None,
    max_steps: int = MAX_STEPS,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule | None = None,
    init: Any = None,
    num_draws: int = 1000,
    batch_size: int | Mapping[str, int] | None = None,
    callback: Callable[[Report], Any] | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    allow_nan: Collection[str] = (),
    progress_bar: bool = True,
) -> Asked:
    """The arguments of `autovi.fit`, checked as far as they can be without data."""
    check_count("num_steps", num_steps, optional=True)
    check_count("max_steps", max_steps)
    check_count("num_draws", num_draws)
    check_callback(callback)
    rates, schedule = rates_of(learning_rate, optimizer)
    options = Options(
        guide,
        families,
        estimators,
        num_particles,
        batch_size,
        optimizer,
        as_objective(objective),
        allow_bias,
        allow_nan,
    )
    own_coords, own_dims = as_dicts(coords, dims)
    why = _why_steps(options, num_steps, max_steps, learning_rate, callback)
    return Asked(
        model,
        options,
        init,
        why,
        num_steps,
        max_steps,
        rates,
        schedule,
        callback,
        num_draws,
        own_coords,
        own_dims,
        progress_bar,
    )


def _why_steps(
    options: Options, num_steps: int | None, max_steps: int, learning_rate: Any, callback: Any
) -> str | None:
    """What asks for stochastic steps; None where nothing does."""
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


def first_fit(
    asked: Asked,
    engine: Engine,
    inputs: Inputs,
    rng_key: int | jax.Array,
    progress: Progress,
    watch: Watch,
    as_fit: Callable[[Engine, Run], Fit],
    restart: int = 0,
) -> Generator[Steps, State, Fit]:
    """A whole fit, from its start to its end, which asks for its stochastic steps (see `run/together.py`).

    Raises:
        ValueError: no starting point has a finite ELBO.
    """
    program = engine.program
    exact = _exact(engine, asked.model, inputs)
    off = "init= says where to start" if asked.init is not None else ""
    off = off or why_not(program.traced, program.plan, program.objective, exact) or ""
    # A family or an estimator that `infer` asks for at a site is asked for as well as one that `fit` is told.
    has_steps = asked.why_steps is not None or any(site.infer for site in program.sites.latents.values())
    with before_the_first_step():
        arrays = jax.device_put(inputs.traced())
        start = initial(asked.init, asked.model, engine, inputs, arrays, rng_key)
        steps = progress.expected_steps if off and watch.alone else 0
        state, tried, key = started(engine, inputs, arrays, rng_key, start.origin, watch, steps)
        state = start.applied(engine, state)
        if not off:
            ladder = Ladder(engine, inputs, arrays, state, tried, key, progress, watch, as_fit, exact, restart)
            if not has_steps and ladder.is_affordable:
                return (yield from ladder.climb())
            engine, state = ladder.warm()
            progress.rungs, off = tuple(ladder.rungs), "" if ladder.rungs else "a search for modes would take minutes"
    progress.off_ladder = off
    state = yield Steps(engine, inputs, arrays, state, progress, watch)
    return as_fit(engine, Run(state, progress, key))


def _exact(engine: Engine, model: Callable, inputs: Inputs) -> dict[str, Any]:
    """The parameters of the blocks whose posterior is known in closed form, on these data."""
    own = [b.name for b in engine.program.plan.blocks if b.family is not None and not b.family.unconstrained]
    if not own:
        return {}
    found = conjugate_sites(model, inputs, engine.program.traced, engine.structure)
    return {n: params for n, params in found.items() if n in own}
