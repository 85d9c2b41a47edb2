"""The ladder: from a plan to a fit, by the first rung that is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.estimators import ESTIMATORS, Estimator
from autovi.families.base import INIT_SCALE, MAX_DENSE
from autovi.ladder.curvature import Curvature
from autovi.ladder.diagonal import NUM_PROBES
from autovi.ladder.informing import informed
from autovi.ladder.mode import Status
from autovi.ladder.normal import Normal
from autovi.ladder.programs import Held, Programs
from autovi.ladder.richer import Richer, richer_families
from autovi.ladder.rungs import STOP, Rung
from autovi.ladder.start import Fixed, reordered, state_at
from autovi.model.inputs import Inputs
from autovi.model.traced import pseudo_inputs
from autovi.numbers import how_many, number, with_error
from autovi.plan.mapped import mappable, with_family, with_maps
from autovi.plan.plan import Block
from autovi.program.program import Program
from autovi.result.fit import Fit
from autovi.run.engine import Engine, Start
from autovi.run.optimizer import Optimizer
from autovi.run.running import Run, Watch, ran
from autovi.run.starts import Mode, Modes
from autovi.run.state import State
from autovi.run.stopping import EXPECTED, Progress
from autovi.run.thresholds import THRESHOLDS

# Steps that a richer family takes with the gradient of the entropy, at a falling rate. Far from the optimum sticking
# the landing is unstable: where q is too wide, what it leaves out is what would hold it.
FIRST_STEPS = 2_000
NUM_PARTICLES = 16
# Of q at the start of stochastic steps, in units of the curvature: they widen it faster than they narrow it.
SPREAD = 0.3
MAX_MODES = 4  # whose mass is measured, the highest
MOST_ROUNDS = 6  # in which unknown scales are moved
STAYS = 0.2  # how far a scale is moved on the unconstrained scale that stays


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

    @property
    def is_affordable(self) -> bool:
        """Is there time to look for a mode?"""
        return self.programs.num_starts > 0

    # --- rungs --------------------------------------------------------------------------------------------------------

    def curvature(self) -> Normal | None:
        """The normal at the mode with the most mass around it; None where no mode was found that has a curvature. Where
        scales are unknown, again with what the one before says of them, as long as they move."""
        starts, held = self._starts(), self._held()
        best = self._believed(self._curvature(starts, held))
        for _ in range(MOST_ROUNDS if self.engine.program.plan.scales else 0):
            if best is None:
                break
            constants, point = informed(self.programs, self.constants, best.loc)
            moved = held._replace(point=point)
            # The scales' most likely values by pseudo-data may be far off where these are far from normal.
            found = self._better(best, constants, starts, moved) or self._better(best, constants, starts, held)
            stays = found is None or found[1] is held or float(jnp.abs(point - best.loc).max()) <= STAYS
            best, held = found or (best, held)
            if stays:
                break
        return best

    def _better(self, best: Normal, constants: Any, starts: jax.Array, held: Held) -> tuple[Normal, Held] | None:
        """The normal in other coordinates with the scales at other values, where it is not certain to be worse."""
        former = self.constants, self.progress.modes
        reached, error = self._elbo(best)
        self.constants = constants
        found = self._curvature(starts, held)
        now, its_error = (-np.inf, 0.0) if found is None else self._elbo(found)
        if found is not None and now >= reached - 2 * np.hypot(error, its_error):
            return found, held
        self.constants, self.progress.modes = former
        return None

    def _believed(self, found: Normal | None) -> Normal | None:
        """A normal that is nearer to the posterior than one around the best start. Where a scale goes to zero, and what
        it is the scale of with it, a mode may be a spike without mass."""
        if found is None:
            return None
        cold = Normal(self._best_start(), jnp.full_like(found.loc, INIT_SCALE))
        cold = cold if found.scale.ndim == 1 else cold._replace(scale=jnp.diag(cold.scale))
        near, far = self._elbo(found)[0], self._elbo(cold, (1.0,))[0]
        if near > -np.inf and near >= far:
            return found
        self.progress.modes = None
        return None

    def _elbo(self, normal: Normal, spreads: tuple[float, ...] = (1.0, SPREAD)) -> tuple[float, float]:
        """Roughly the ELBO of a normal, the better of several as wide, and its standard error. As wide as the curvature
        says it is the answer of a normal posterior, narrower of one with heavy costs."""
        wide = [normal._replace(scale=s * normal.scale) for s in spreads]
        found = [self.programs.elbo(self.constants, w) for w in wide]
        known = [(float(value), float(se)) for value, se in found if np.isfinite(value) and np.isfinite(se)]
        return max(known, default=(-np.inf, 0.0))

    def _curvature(self, starts: jax.Array, held: Held) -> Normal | None:
        self.programs.prepare(self.constants, starts, held)
        began = time.perf_counter()
        modes, same = jax.tree.map(np.asarray, self.programs.modes(self.constants, starts, held))
        self._took("mode", began, _modes_said(modes), int(modes.iterations.sum()))
        if starts.shape[1] > MAX_DENSE:
            return self._diagonal(modes, held)
        began = time.perf_counter()
        places = _highest_converged(modes, same)[:MAX_MODES]
        found = [self.programs.curvature(self.constants, jnp.asarray(modes.points[p]), held) for p in places]
        known = [(c, int((same == same[p]).sum())) for c, p in zip(found, places, strict=True) if _is_mode(c)]
        known.sort(key=lambda pair: -float(pair[0].log_evidence))
        self.progress.modes = Modes(
            tuple(Mode(float(c.value), float(c.log_evidence), starts) for c, starts in known),
            failed=int((modes.status != Status.CONVERGED).sum()),
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
        ended = np.isin(modes.status, (Status.CONVERGED, Status.MAX_ITERATIONS))
        values = np.where(np.isfinite(modes.values) & ended, modes.values, -np.inf)
        if not np.isfinite(values.max()):
            return None
        normal = self.programs.diagonal(self.constants, jnp.asarray(modes.points[np.argmax(values)]), held)
        self._took("curvature", began, f"of each of {normal.loc.shape[0]:,} dimensions alone", NUM_PROBES)
        return normal

    def gaussian(self, name: str, normal: Normal, began: float | None = None, evaluations: int = 0) -> Candidate:
        """The fit whose q is a normal, which took so many evaluations since it `began`."""
        began = time.perf_counter() if began is None else began
        progress = replace(self.progress, status="converged", message=f"no stochastic steps: q is that of {name!r}")
        return self._weighed(name, self.mapped, self._at(self.mapped, normal), progress, began, evaluations)

    def warm(self) -> tuple[Engine, State]:
        """A start for stochastic steps: mode and curvature, where there is one and time to find it."""
        normal = self.curvature() if self.is_affordable else None
        if normal is None:
            return self.engine, self.state
        return self.mapped, self._at(self.mapped, normal, SPREAD)

    def grow(self, normal: Normal) -> None:
        """Richer families, until one follows the posterior."""
        program, point = self.engine.program, self._best_start()
        (block,) = (b for b in program.plan.blocks if mappable(b))
        halves = lambda masks: np.asarray(self.programs.meetings(self.constants, point, jnp.asarray(masks)))  # noqa: E731
        for richer in richer_families(program, block, halves):
            self.candidates.append(self.stochastic(normal, block, richer))
            if self.candidates[-1].fit.progress.interrupted or _good("richer", self.candidates[-1]):
                return

    def stochastic(self, normal: Normal, block: Block, richer: Richer) -> Candidate:
        """The fit of a richer family, by stochastic steps in the coordinates that a normal gives."""
        program, (family, why, sites) = self.engine.program, richer
        began, progress = time.perf_counter(), replace(self.progress, num_steps=FIRST_STEPS, losses=[])

        def engine_of(estimator: Estimator) -> Engine:
            plan = with_family(program.plan, block.name, sites, family, estimator, why, NUM_PARTICLES)
            # In these coordinates a gradient longer than this is that of a draw far in a tail.
            return self.engine.under(with_maps(plan), Optimizer(longest=max(1.0, normal.loc.shape[0] ** 0.5)))

        engine, last = engine_of(ESTIMATORS["explicit"]()), engine_of(ESTIMATORS["sticking"]())
        state = self._at(engine, reordered(normal, program, engine.program), SPREAD)
        with self.watch.clock.spent("trace"):  # the steps that come last are compiled while the first ones run
            last.chunk(state.started_at(last.program, last.optimizer, state.all_params), self.arrays, EXPECTED)
        state = ran(engine, self.inputs, self.arrays, state, progress, self.watch)
        if not progress.interrupted:
            engine = last
            progress = replace(progress.next_leg(None, progress.max_steps), rates=progress.rates[1:])
            state = state.started_at(engine.program, engine.optimizer, state.all_averages)
            state = ran(engine, self.inputs, self.arrays, state, progress, self.watch)
        evaluations = progress.step * NUM_PARTICLES
        said = f"{how_many(progress.step, 'step')} of {NUM_PARTICLES} draws, "
        return self._weighed(family.name, engine, state, progress, began, evaluations, said)

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
        # Where a scale is unknown the mode says where it was held.
        if not self.engine.program.plan.scales and found is not None and self._is_enough("laplace", found):
            return
        if normal.loc.shape[0] <= MAX_DENSE:
            began = time.perf_counter()
            dense = normal if normal.scale.ndim == 2 else normal._replace(scale=jnp.diag(normal.scale))
            matched = self.programs.matched(self.constants, dense, jax.random.fold_in(self.rng_key, 11))
            if self._is_enough("matching", matched.normal, began, int(matched.good_draws.sum())):
                return
        self.grow(normal)

    def _is_enough(self, name: str, normal: Normal, began: float | None = None, evaluations: int = 0) -> bool:
        self.candidates.append(self.gaussian(name, normal, began, evaluations))
        return _good(name, self.candidates[-1])

    # --- what they share ----------------------------------------------------------------------------------------------

    def _held(self) -> Held:
        """Unknown scales are held where the best start has them: with all else at its mode, they would be far too
        large, or run to where a density grows without bound."""
        program, point = self.engine.program, self._best_start()
        held = {n: float(n in program.plan.scales) for n in program.sites.latents}
        return Held(program.blocks.start_of(held) > 0, point)

    def _starts(self) -> jax.Array:
        """The best of those that were tried, as many as there is time for."""
        totals = np.where(np.isfinite(self.tried.totals), self.tried.totals, -np.inf)
        best = np.sort(np.argsort(-totals, kind="stable")[: self.programs.num_starts])
        return jnp.asarray(self.tried.points[best])

    def _best_start(self) -> jax.Array:
        totals = np.where(np.isfinite(self.tried.totals), self.tried.totals, -np.inf)
        return jnp.asarray(self.tried.points[np.argmax(totals)])

    def _took(self, name: str, began: float, said: str, evaluations: int) -> None:
        """A rung that was taken; of one that is taken again, what came out last, and the cost of all."""
        before = [r for r in self.rungs if r.name == name]
        evaluations += sum(r.evaluations for r in before)
        seconds = time.perf_counter() - began + sum(r.seconds for r in before)
        self.rungs = [r for r in self.rungs if r.name != name] + [Rung(name, said, evaluations, seconds)]

    def _weighed(
        self,
        name: str,
        engine: Engine,
        state: State,
        progress: Progress,
        began: float,
        evaluations: int,
        said: str = "",
    ) -> Candidate:
        fit = self.as_fit(engine, Run(state, progress, self.rng_key))
        found = Candidate(fit, fit.elbo, fit.elbo_se, float(fit.khat), float(fit.efficiency))
        value, se = with_error(fit.elbo, fit.elbo_se)
        khat = f", k-hat {number(found.khat)}" if np.isfinite(found.khat) else ""
        said += f"ELBO {value} ± {se} nats{khat}, efficiency {found.efficiency:.2f}"
        self.rungs.append(Rung(name, said, evaluations, time.perf_counter() - began, fit.elbo))
        return found

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
    pseudo_data = {pseudo_inputs(site)[0] for site in program.traced.noncentred}
    own = {n: c for n, c in program.constants().items() if not isinstance(c, dict)}
    return {n: jnp.zeros_like(c) if n in pseudo_data else c for n, c in own.items()}


def _is_better(other: Candidate, best: Candidate) -> bool:
    if not np.isfinite(best.elbo):
        return bool(np.isfinite(other.elbo))
    return bool(other.elbo - best.elbo > 2 * np.hypot(other.elbo_se, best.elbo_se))


def _good(name: str, candidate: Candidate) -> bool:
    khat, efficiency = STOP[name]
    alike = candidate.efficiency >= THRESHOLDS.efficiency_alike  # then k-hat is the shape of noise
    good = alike or (not candidate.khat > khat and candidate.efficiency >= efficiency)
    # Of what draws correct, far more are weighed for that, and they see more of the tails.
    return good and not candidate.fit.verdict.warns


def _is_mode(found: Curvature) -> bool:
    return bool(np.isfinite(found.value)) and not int(found.negative)


def _highest_converged(modes: Any, same: np.ndarray) -> list[int]:
    """Of each mode the highest start that converged there, the highest mode first.

    A start that stalls may be one whose density grows without bound, as where a scale of observations goes to zero and
    their means to them: no mode, whatever the curvature there. Or rounding stopped it near a mode; then others of the
    same mode converged.
    """
    order = np.argsort(-np.where(np.isfinite(modes.values), modes.values, -np.inf), kind="stable")
    highest: dict[int, int] = {}
    for place in order:
        if modes.status[place] == Status.CONVERGED:
            highest.setdefault(int(same[place]), int(place))
    return list(highest.values())


def _modes_said(modes: Any) -> str:
    counts = {status: int((modes.status == status).sum()) for status in Status}
    ended = ", ".join(f"{count} {status.name.lower()}" for status, count in counts.items() if count)
    return f"{how_many(len(modes.status), 'start')}: {ended}"
