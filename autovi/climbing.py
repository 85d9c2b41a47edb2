"""The ladder: from a plan to a fit, by the first rung that is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.estimators import ESTIMATORS
from autovi.initial import initial
from autovi.ladder.curvature import Curvature
from autovi.ladder.mode import Status
from autovi.ladder.normal import Normal
from autovi.ladder.programs import Held, Programs
from autovi.ladder.richer import richer_family
from autovi.ladder.rungs import STOP, Rung, why_not
from autovi.ladder.start import state_at
from autovi.model.inputs import Inputs
from autovi.model.traced import centring_inputs
from autovi.numbers import how_many, number, with_error
from autovi.plan.mapped import mappable, with_family, with_maps
from autovi.preparation import Options
from autovi.process import computing
from autovi.program.program import Program
from autovi.result.fit import Fit
from autovi.run.engine import Engine, Start
from autovi.run.optimizer import Optimizer
from autovi.run.running import Run, Watch, before_the_first_step, ran, started
from autovi.run.starts import Mode, Modes
from autovi.run.state import State
from autovi.run.stopping import Progress

SPREAD = (
    0.3  # of q at the start of stochastic steps, in units of the curvature: they widen it faster than they narrow it
)
MAX_MODES = 4  # whose mass is measured, the highest


@dataclass(frozen=True)
class Asked:
    """What a user asked of the way to q."""

    init: Any = None
    steps: str | None = None  # why stochastic steps are made whatever the ladder finds: None where it decides


def why_steps(options: Options, num_steps: int | None, learning_rate: Any, callback: Any) -> str | None:
    """What asks for stochastic steps, as a sentence's beginning; None where nothing does."""
    asked = {
        "num_steps": num_steps,
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
    reason = (
        "init= says where to start"
        if asked.init is not None
        else why_not(program.traced, program.plan, program.objective)
    )
    with before_the_first_step():
        arrays = jax.device_put(inputs.traced())
        steps = 0 if reason is None else progress.expected_steps
        start = initial(asked.init, model, engine, inputs, arrays, rng_key)
        state, tried, key = started(engine, inputs, arrays, rng_key, start.origin, watch, steps)
        state = start.applied(engine, state)
        if reason is None:
            ladder = Ladder(engine, inputs, arrays, state, tried, key, progress, watch, as_fit)
            if asked.steps is None:
                return ladder.climb()
            engine, state = ladder.warm()
    progress.rungs = () if reason is not None else tuple(ladder.rungs)
    return as_fit(engine, Run(ran(engine, inputs, arrays, state, progress, watch), progress, key))


class Candidate(NamedTuple):
    """A q that a rung left, as a fit, and what its draws say."""

    fit: Fit
    elbo: float
    elbo_se: float
    khat: float
    efficiency: float


@dataclass
class Ladder:
    """One climb. `as_fit` makes a fit of what a rung left."""

    engine: Engine
    inputs: Inputs
    arrays: Any
    state: State
    tried: Start
    rng_key: jax.Array
    progress: Progress
    watch: Watch
    as_fit: Callable[[Engine, Run], Fit]
    rungs: list[Rung] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.programs = Programs(self.engine, self.arrays, self.watch)
        self.mapped = self.engine.under(with_maps(self.engine.program.plan))
        self.constants: Mapping[str, Any] = {}

    # --- rungs --------------------------------------------------------------------------------------------------------

    def curvature(self) -> Normal | None:
        """The normal at the mode with the most mass around it; None where no mode was found that has a curvature."""
        starts = jnp.asarray(self.tried.points)
        held = self._held()
        self.programs.prepare(self.constants, starts, held)
        began = time.perf_counter()
        modes, same = jax.tree.map(np.asarray, self.programs.modes(self.constants, starts, held))
        self._took("mode", began, _modes_said(modes), int(modes.iterations.sum()))
        began = time.perf_counter()
        places = [int(p) for p in np.argsort(-np.where(np.isfinite(modes.values), modes.values, -np.inf))]
        places = [p for p in places if same[p] == p][:MAX_MODES]
        found = [self.programs.curvature(self.constants, jnp.asarray(modes.points[p]), held) for p in places]
        known = [(c, int((same == p).sum())) for c, p in zip(found, places, strict=True) if _is_mode(c)]
        known.sort(key=lambda pair: -float(pair[0].log_evidence))
        self.progress.modes = Modes(
            tuple(Mode(float(c.value), float(c.log_evidence), starts) for c, starts in known),
            failed=int((same < 0).sum()),
            unbounded=int((modes.status == Status.UNBOUNDED).sum()),
        )
        evaluations = sum(int(c.trials) + int(c.rounds) * starts.shape[1] for c in found)
        if not known:
            self._took("curvature", began, "no mode has one", evaluations)
            return None
        best = known[0][0]
        said = f"condition number {number(float(best.condition))}"
        if len(known) > 1:
            said += f"; {how_many(len(known), 'mode')}, {self.progress.modes.share:.2f} of the mass at the best"
        self._took("curvature", began, said, evaluations)
        return best.normal

    def gaussian(self, name: str, normal: Normal) -> Candidate:
        """The fit whose q is a normal."""
        state = state_at(self.mapped.program, self.mapped.optimizer, self.state, normal, self.constants)
        return self._weighed(name, self.mapped, state)

    def warm(self) -> tuple[Engine, State]:
        """A start for stochastic steps: mode and curvature, where there is one."""
        normal = self.curvature()
        if normal is None:
            return self.engine, self.state
        return self.mapped, state_at(self.mapped.program, self.mapped.optimizer, self.state, normal, self.constants)

    def stochastic(self, normal: Normal) -> Candidate:
        """The fit of a richer family, by stochastic steps in the coordinates that a normal gives."""
        program = self.engine.program
        (block,) = (b for b in program.plan.blocks if mappable(b))
        point = self._best_start()
        halves = lambda masks: np.asarray(self.programs.meetings(self.constants, point, jnp.asarray(masks)))  # noqa: E731
        family, why = richer_family(program, block, halves)
        estimator = ESTIMATORS["sticking"]()
        plan = with_maps(with_family(program.plan, block.name, family, estimator, why, estimator.num_particles))
        # In these coordinates a gradient longer than this is that of a draw far in a tail.
        engine = self.engine.under(plan, Optimizer(longest=float(max(1.0, normal.loc.shape[0] ** 0.5))))
        state = state_at(engine.program, engine.optimizer, self._fresh(engine), normal, self.constants, SPREAD)
        began, progress = time.perf_counter(), replace(self.progress, losses=[])
        state = ran(engine, self.inputs, self.arrays, state, progress, self.watch)
        evaluations = progress.step * plan.num_particles
        self._took(family.name, began, f"{how_many(progress.step, 'step')} of {plan.num_particles} draws", evaluations)
        return self._weighed(family.name, engine, state, progress)

    def _fresh(self, engine: Engine) -> State:
        return engine.initial_state(self.arrays, self.state.rng_key)

    def climb(self) -> Fit:
        """The fit of the first rung that is good enough, else the best of all."""
        self.constants = _noncentred(self.engine.program)
        found = self.curvature()
        normal = Normal(self._best_start(), jnp.ones(self.tried.points.shape[1])) if found is None else found
        # Where a scale is unknown no normal follows: it is left to the family that does.
        if not {"scale", "both"} & set(self.engine.program.plan.noncentred.values()):
            if found is not None and self._is_enough("laplace", found):
                return self._ended()
            began = time.perf_counter()
            dense = normal if normal.scale.ndim == 2 else normal._replace(scale=jnp.diag(normal.scale))
            matched = self.programs.matched(self.constants, dense, jax.random.fold_in(self.rng_key, 11))
            self._took("matching", began, "", int(matched.good_draws.sum()))
            if self._is_enough("matching", matched.normal):
                return self._ended()
        self.candidates.append(self.stochastic(normal))
        return self._ended()

    def _is_enough(self, name: str, normal: Normal) -> bool:
        self.candidates.append(self.gaussian(name, normal))
        return _good(name, self.candidates[-1])

    # --- what they share ----------------------------------------------------------------------------------------------

    def _held(self) -> Held:
        """Unknown scales are held where the best start has them: with all else at its mode, they would be far too
        large, or run to where a density grows without bound."""
        program, point = self.engine.program, self._best_start()
        scales = {n: jnp.array(n in program.plan.scales) for n in program.sites.latents}
        shapes = {
            n: jnp.broadcast_to(held, program.sites.samples[n].unconstrained_shape or ()) for n, held in scales.items()
        }
        return Held(program.blocks.start_of(shapes) > 0, point)

    def _best_start(self) -> jax.Array:
        totals = np.where(np.isfinite(self.tried.totals), self.tried.totals, -np.inf)
        return jnp.asarray(self.tried.points[np.argmax(totals)])

    def _took(self, name: str, began: float, said: str, evaluations: int) -> None:
        self.rungs.append(Rung(name, said, evaluations, time.perf_counter() - began))

    def _weighed(self, name: str, engine: Engine, state: State, progress: Progress | None = None) -> Candidate:
        began = time.perf_counter()
        progress = replace(self.progress, status="converged", message="") if progress is None else progress
        fit = self.as_fit(engine, Run(state, progress, self.rng_key))
        khat, efficiency = float(fit.khat), float(fit.efficiency)
        value, se = with_error(fit.elbo, fit.elbo_se)
        said = f"ELBO {value} ± {se} nats, k-hat {number(khat)}, efficiency {efficiency:.2f}"
        self.rungs.append(Rung(name, said, 0, time.perf_counter() - began, fit.elbo))
        return Candidate(fit, fit.elbo, fit.elbo_se, khat, efficiency)

    def _ended(self) -> Fit:
        """The last q that was better than the best before it, by two standard errors."""
        best = self.candidates[0]
        for other in self.candidates[1:]:
            if _is_better(other, best):
                best = other
        best.fit.progress.modes = self.progress.modes
        best.fit.progress.rungs = tuple(self.rungs)
        return best.fit


def _noncentred(program: Program) -> dict[str, Any]:
    """Constants in which the sites that can be are non-centred."""
    centrings = {centring_inputs(site)[0] for site in program.traced.noncentred}
    own = {n: c for n, c in program.constants().items() if not isinstance(c, dict)}
    return {n: jnp.zeros_like(c) if n in centrings else c for n, c in own.items()}


def _is_better(other: Candidate, best: Candidate) -> bool:
    if not np.isfinite(best.elbo):
        return bool(np.isfinite(other.elbo))
    return bool(other.elbo - best.elbo > 2 * np.hypot(other.elbo_se, best.elbo_se))


def _good(name: str, candidate: Candidate) -> bool:
    khat, efficiency = STOP[name]
    return not candidate.khat > khat and candidate.efficiency >= efficiency


def _is_mode(found: Curvature) -> bool:
    return bool(np.isfinite(found.value)) and not int(found.negative)


def _modes_said(modes: Any) -> str:
    counts = {status: int((modes.status == status).sum()) for status in Status}
    ended = ", ".join(f"{count} {status.name.lower()}" for status, count in counts.items() if count)
    return f"{how_many(len(modes.status), 'start')}: {ended}"
