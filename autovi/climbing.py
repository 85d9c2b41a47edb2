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
from autovi.families.base import MAX_DENSE
from autovi.ladder.curvature import Curvature
from autovi.ladder.diagonal import NUM_PROBES
from autovi.ladder.mode import Status
from autovi.ladder.normal import Normal
from autovi.ladder.programs import Held, Programs
from autovi.ladder.richer import richer_family
from autovi.ladder.rungs import STOP, Rung
from autovi.ladder.start import Fixed, reordered, state_at
from autovi.model.inputs import Inputs
from autovi.model.traced import centring_inputs
from autovi.numbers import how_many, number, with_error
from autovi.plan.mapped import mappable, with_family, with_maps
from autovi.program.program import Program
from autovi.result.fit import Fit
from autovi.run.engine import Engine, Start
from autovi.run.optimizer import Optimizer
from autovi.run.running import Run, Watch, ran
from autovi.run.starts import Mode, Modes
from autovi.run.state import State
from autovi.run.stopping import Progress

# Of q at the start of stochastic steps, in units of the curvature: they widen it faster than they narrow it.
SPREAD = 0.3
MAX_MODES = 4  # whose mass is measured, the highest


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
    exact: Mapping[str, Any]  # block -> its parameters, where its posterior is known
    rungs: list[Rung] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.programs = Programs(self.engine, self.arrays, self.watch)
        self.mapped = self.engine.under(with_maps(self.engine.program.plan))
        self.constants = _noncentred(self.engine.program)

    # --- rungs --------------------------------------------------------------------------------------------------------

    def curvature(self) -> Normal | None:
        """The normal at the mode with the most mass around it; None where no mode was found that has a curvature."""
        starts = jnp.asarray(self.tried.points)
        held = self._held()
        self.programs.prepare(self.constants, starts, held)
        began = time.perf_counter()
        modes, same = jax.tree.map(np.asarray, self.programs.modes(self.constants, starts, held))
        self._took("mode", began, _modes_said(modes), int(modes.iterations.sum()))
        if starts.shape[1] > MAX_DENSE:
            return self._diagonal(modes, held)
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

    def _diagonal(self, modes: Any, held: Held) -> Normal | None:
        """Where there are too many dimensions for a matrix: independent normals at the highest mode."""
        began = time.perf_counter()
        values = np.where(np.isfinite(modes.values), modes.values, -np.inf)
        if not np.isfinite(values.max()):
            return None
        normal = self.programs.diagonal(self.constants, jnp.asarray(modes.points[np.argmax(values)]), held)
        self._took("curvature", began, f"of each of {normal.loc.shape[0]:,} dimensions alone", NUM_PROBES)
        return normal

    def gaussian(self, name: str, normal: Normal) -> Candidate:
        """The fit whose q is a normal."""
        return self._weighed(name, self.mapped, self._at(self.mapped, normal))

    def warm(self) -> tuple[Engine, State]:
        """A start for stochastic steps: mode and curvature, where there is one."""
        normal = self.curvature()
        if normal is None:
            return self.engine, self.state
        return self.mapped, self._at(self.mapped, normal, SPREAD)

    def stochastic(self, normal: Normal) -> Candidate:
        """The fit of a richer family, by stochastic steps in the coordinates that a normal gives."""
        program = self.engine.program
        (block,) = (b for b in program.plan.blocks if mappable(b))
        point = self._best_start()
        halves = lambda masks: np.asarray(self.programs.meetings(self.constants, point, jnp.asarray(masks)))  # noqa: E731
        family, why, sites = richer_family(program, block, halves)
        estimator = ESTIMATORS["sticking"]()
        particles = estimator.num_particles
        plan = with_maps(with_family(program.plan, block.name, sites, family, estimator, why, particles))
        # In these coordinates a gradient longer than this is that of a draw far in a tail.
        engine = self.engine.under(plan, Optimizer(longest=float(max(1.0, normal.loc.shape[0] ** 0.5))))
        state = self._at(engine, reordered(normal, program, engine.program), SPREAD)
        began, progress = time.perf_counter(), replace(self.progress, losses=[])
        state = ran(engine, self.inputs, self.arrays, state, progress, self.watch)
        evaluations = progress.step * plan.num_particles
        self._took(family.name, began, f"{how_many(progress.step, 'step')} of {plan.num_particles} draws", evaluations)
        return self._weighed(family.name, engine, state, progress)

    def _at(self, engine: Engine, normal: Normal, spread: float = 1.0) -> State:
        like = engine.initial_state(self.arrays, self.state.rng_key)
        fixed = Fixed(self.constants, self.exact)
        return state_at(engine.program, engine.optimizer, like, normal, fixed, spread)

    def climb(self) -> Fit:
        """The fit of the first rung that is good enough, else the best of all, or, after Ctrl-C, of those so far."""
        try:
            self._climbed()
        except KeyboardInterrupt:
            if not self.candidates:
                raise
            best = self._best()
            best.progress.status, best.progress.message = "stopped", "stopped by Ctrl-C on the way to a better q"
        return self._best()

    def _climbed(self) -> None:
        if not any(mappable(b) for b in self.engine.program.plan.blocks):
            size = self.tried.points.shape[1]
            self.candidates.append(self.gaussian("exact", Normal(jnp.zeros(size), jnp.ones(size))))
            return
        found = self.curvature()
        normal = Normal(self._best_start(), jnp.ones(self.tried.points.shape[1])) if found is None else found
        # Where a scale is unknown no normal follows: it is left to the family that does.
        if not {"scale", "both"} & set(self.engine.program.plan.noncentred.values()):
            if found is not None and self._is_enough("laplace", found):
                return
            if normal.loc.shape[0] > MAX_DENSE:
                self.candidates.append(self.stochastic(normal))
                return
            began = time.perf_counter()
            dense = normal if normal.scale.ndim == 2 else normal._replace(scale=jnp.diag(normal.scale))
            matched = self.programs.matched(self.constants, dense, jax.random.fold_in(self.rng_key, 11))
            self._took("matching", began, "", int(matched.good_draws.sum()))
            if self._is_enough("matching", matched.normal):
                return
        self.candidates.append(self.stochastic(normal))

    def _is_enough(self, name: str, normal: Normal) -> bool:
        self.candidates.append(self.gaussian(name, normal))
        return _good(name, self.candidates[-1])

    # --- what they share ----------------------------------------------------------------------------------------------

    def _held(self) -> Held:
        """Unknown scales are held where the best start has them: with all else at its mode, they would be far too
        large, or run to where a density grows without bound."""
        program, point = self.engine.program, self._best_start()
        held = {n: float(n in program.plan.scales) for n in program.sites.latents}
        return Held(program.blocks.start_of(held) > 0, point)

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

    def _best(self) -> Fit:
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
