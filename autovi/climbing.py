"""The ladder: from a plan to a fit, by the first rung that is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from autovi.compiling import compiler_options
from autovi.estimators import Estimator, Sticking
from autovi.families.base import MAX_DENSE
from autovi.ladder.directions import Directions
from autovi.ladder.normal import Normal
from autovi.ladder.programs import NUM_TRIED, Few, Programs
from autovi.ladder.richer import Richer, richer_families
from autovi.ladder.rungs import STOP, Rung
from autovi.ladder.search import SPREAD, Search
from autovi.ladder.start import Fixed, reordered, state_at
from autovi.model.inputs import Inputs
from autovi.numbers import how_many, number, with_error
from autovi.plan.mapped import mappable, with_family, with_maps
from autovi.plan.plan import Block, Plan
from autovi.result.findings import of_weights
from autovi.result.fit import Fit
from autovi.result.signs import signs_of
from autovi.run import faults
from autovi.run.engine import Engine, Start
from autovi.run.optimizer import Optimizer
from autovi.run.running import Run, Steps, Watch
from autovi.run.state import State
from autovi.run.stopping import Progress
from autovi.run.thresholds import THRESHOLDS

# Steps that a richer family takes with the gradient of the entropy, at a falling rate. Far from the optimum sticking
# the landing is unstable: where q is too wide, what it leaves out is what would hold it.
FIRST_STEPS = 2_000
NUM_PARTICLES = 16
HOPELESS = 0.15  # an efficiency by a few draws, below which a normal is no answer whatever more draws say
CERTAIN = 5.0  # standard errors of a few draws
MORE_EQUAL = 1.5  # times the efficiency, from which on weights are more equal for certain


@dataclass
class Candidate:
    """A q that a rung left, as a fit. `few` are its ELBO, the standard error of it and the efficiency by a few draws,
    where these say that it is no answer; its own draws are weighed only where they would decide something."""

    fit: Fit
    few: Few | None = None

    @property
    def elbo(self) -> float:
        return self.fit.elbo if self.few is None else self.few.elbo

    @property
    def elbo_se(self) -> float:
        return self.fit.elbo_se if self.few is None else self.few.elbo_se

    @property
    def efficiency(self) -> float:
        return float(self.fit.efficiency) if self.few is None else self.few.efficiency

    @property
    def khat(self) -> float:
        return float("nan") if self.few is not None else float(self.fit.khat)


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
    restart: int = 0  # of several modes each restart takes another one
    rungs: list[Rung] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    directed: tuple[Normal, Directions] | None = None  # where there are too many dimensions for a matrix

    def __post_init__(self) -> None:
        self.programs = Programs(self.engine, self.arrays, self.watch)
        self.mapped = self.engine.under(with_maps(self.engine.program.plan))
        self.search = Search(self.programs, self.tried, self._took, self.restart)

    @property
    def is_affordable(self) -> bool:
        """Is there time to look for a mode?"""
        return self.programs.num_starts > 0

    # --- rungs --------------------------------------------------------------------------------------------------------

    def laplace(self, normal: Normal) -> Candidate:
        """The fit whose q has the curvature at the mode. Where there are too many dimensions for a matrix, that is the
        one of each coordinate, and along a few directions."""
        began, plan = time.perf_counter(), self.engine.program.plan
        blocks, size = [b for b in plan.blocks if mappable(b)], normal.loc.shape[0]
        if size <= MAX_DENSE or len(blocks) > 1 or not self.programs.has_exact_diagonal(size):
            return self.gaussian("laplace", normal)
        curved, along, products = self.programs.directions(self.search.constants, normal)
        self.directed, number = (curved, along), along.lengths.shape[0]
        (block,) = blocks
        assert block.family is not None
        why = f"over {MAX_DENSE} dimensions: independent normals, stretched along {number} directions of the curvature"
        plan = with_family(plan, block.name, block.sites, block.family, block.estimator, why, plan.num_particles)
        return self.gaussian("laplace", curved, began, int(products), self._along(plan))

    def gaussian(
        self, name: str, normal: Normal, began: float | None = None, evaluations: int = 0, plan: Plan | None = None
    ) -> Candidate:
        """The fit whose q is a normal, which took so many evaluations since it `began`, under its own plan."""
        began = time.perf_counter() if began is None else began
        engine = self.mapped if plan is None else self.engine.under(plan)
        progress = replace(self.progress, status="converged", message=f"no stochastic steps: q is that of {name!r}")
        # Where blocks have q of their own, the normal is not all of it; and where no scale is unknown, most are good.
        few = None
        if self.engine.program.plan.scales and not self.exact:
            few = self.programs.weighed(self.search.constants, normal)
        few = few if few is not None and few.efficiency < HOPELESS else None
        return self._weighed(name, engine, self._at(engine, normal), progress, began, evaluations, few=few)

    def warm(self) -> tuple[Engine, State]:
        """A start for stochastic steps: mode and curvature, where there is one and time to find it."""
        normal = self.search.normal() if self.is_affordable else None
        self.progress.modes = self.search.modes
        if normal is None:
            return self.engine, self.state
        return self.mapped, self._at(self.mapped, normal, SPREAD)

    def grow(self, normal: Normal) -> Generator[Steps, State, None]:
        """Richer families, until one follows the posterior."""
        program, point = self.engine.program, self.search.best_start
        (block,) = (b for b in program.plan.blocks if mappable(b))
        halves = lambda masks: np.asarray(self.programs.meetings(self.search.constants, point, jnp.asarray(masks)))  # noqa: E731
        for richer in richer_families(program, block, halves):
            self.candidates.append((yield from self.stochastic(normal, block, richer)))
            if self.candidates[-1].fit.progress.interrupted or _good("richer", self.candidates[-1]):
                return

    def stochastic(self, normal: Normal, block: Block, richer: Richer) -> Generator[Steps, State, Candidate]:
        """The fit of a richer family, by stochastic steps in the coordinates that a normal gives."""
        program, (family, why, sites) = self.engine.program, richer
        began, progress = time.perf_counter(), replace(self.progress, num_steps=FIRST_STEPS, losses=[])
        if self.directed is not None and not family.rotates:
            normal = self.directed[0]

        def engine_of(estimator: Estimator) -> Engine:
            plan = with_family(program.plan, block.name, sites, family, estimator, why, NUM_PARTICLES)
            plan = with_maps(plan) if family.rotates else self._along(plan)
            # In these coordinates a gradient longer than this is that of a draw far in a tail.
            return self.engine.under(plan, Optimizer(longest=max(1.0, normal.loc.shape[0] ** 0.5)))

        # One program for all steps: first with the score, then without.
        engine, last = engine_of(Sticking(score=1.0)), engine_of(Sticking())
        state = self._at(engine, normal, SPREAD)
        without = {name: {"score": np.zeros_like(own["score"])} for name, own in state.estimators.items()}
        with self.watch.clock.spent("trace"):
            # What weighs the draws is compiled while the steps run. Of fits side by side another program makes these.
            steps = engine.chunk(state, self.arrays, progress.expected_steps) if self.watch.alone else None
            self.as_fit(last, Run(_landed(state), progress, self.rng_key)).prepare(after=steps)
        state = yield Steps(engine, self.inputs, self.arrays, state, progress, self.watch)
        if not progress.interrupted:
            progress = replace(progress.next_leg(None, progress.max_steps), rates=progress.rates[1:])
            state = self._again(engine, state)._replace(estimators=without)
            state = yield Steps(engine, self.inputs, self.arrays, state, progress, self.watch)
        engine, state = last, _landed(state)
        evaluations = progress.step * NUM_PARTICLES
        said = f"{how_many(progress.step, 'step')} of {NUM_PARTICLES} draws, "
        return self._weighed(family.name, engine, state, progress, began, evaluations, said)

    def _along(self, plan: Plan) -> Plan:
        """The plan with maps that have the directions in them, where there are some."""
        if self.directed is None:
            return with_maps(plan)
        return with_maps(plan, {b.name: self.directed[1].lengths.shape[0] for b in plan.blocks if mappable(b)})

    def _at(self, engine: Engine, normal: Normal, spread: float = 1.0) -> State:
        """The state of a program whose q is a normal over the values in the order of the ladder's own program."""

        own, blocks = self.engine.program, engine.program.plan.blocks  # what is kept holds no data

        def at(arrays: Any, rng_key: jax.Array, normal: Normal, fixed: Fixed, spread: jax.Array) -> State:
            like = engine.initial_state(arrays, rng_key)
            normal = reordered(normal, own, engine.program)
            return state_at(engine.program, engine.optimizer, like, normal, fixed, spread)

        made = engine.kept(("at",), lambda: jax.jit(at, compiler_options=compiler_options(1)))
        along = self.directed[1] if self.directed is not None and any(b.directions for b in blocks) else None
        fixed = Fixed(self.search.constants, self.exact, along)
        return made(self.arrays, self.state.rng_key, normal, fixed, np.asarray(spread, normal.loc.dtype))

    def _again(self, engine: Engine, state: State) -> State:
        """The state before the first step from where the last steps led."""
        again = lambda state: state.started_at(engine.program, engine.optimizer, state.all_averages)  # noqa: E731
        return engine.kept(("again",), lambda: jax.jit(again, compiler_options=compiler_options(1)))(state)

    def climb(self) -> Generator[Steps, State, Fit]:
        """The fit of the first rung that is good enough, else the best of all, or, after Ctrl-C or an error of XLA, of
        those so far."""
        try:
            yield from self._climbed()
        except KeyboardInterrupt:
            if not self.candidates:
                raise
            self._end("Ctrl-C")
        except JaxRuntimeError as error:
            if not self.candidates:
                raise
            self._end(f"an error of XLA ({faults.said(error)})")
        return self._best()

    def _end(self, cause: str) -> None:
        """The best so far is the answer."""
        best = self._best()
        best.progress.status, best.progress.message = "stopped", f"stopped by {cause} on the way to a better q"
        best.progress.interrupted = True

    def _climbed(self) -> Generator[Steps, State, None]:
        if not any(mappable(b) for b in self.engine.program.plan.blocks):
            size = self.tried.points.shape[1]
            self.candidates.append(self.gaussian("exact", Normal(jnp.zeros(size), jnp.ones(size))))
            return
        found = self.search.normal()
        self.progress.modes = self.search.modes
        start = self.search.best_start
        normal = Normal(start, jnp.asarray(np.ones(start.shape, start.dtype))) if found is None else found
        # Where a scale is unknown the mode says where it was held.
        if (
            not self.engine.program.plan.scales
            and found is not None
            and self._is_enough("laplace", self.laplace(found))
        ):
            return
        if normal.loc.shape[0] <= MAX_DENSE:
            began = time.perf_counter()
            dense = normal if normal.scale.ndim == 2 else normal._replace(scale=jnp.asarray(np.diag(normal.scale)))
            matched = self.programs.matched(self.search.constants, dense, self.rng_key)
            evaluations = int(np.sum(matched.good_draws))
            if self._is_enough("matching", self.gaussian("matching", matched.normal, began, evaluations)):
                return
        yield from self.grow(normal)

    def _is_enough(self, name: str, candidate: Candidate) -> bool:
        self.candidates.append(candidate)
        return _good(name, candidate)

    # --- what they share ----------------------------------------------------------------------------------------------

    def _took(self, name: str, began: float, said: str, evaluations: int) -> None:
        """A rung that was taken; of one that is taken again, what came out last, and the cost of all."""
        places = [i for i, rung in enumerate(self.rungs) if rung.name == name] or [len(self.rungs)]
        before = self.rungs[places[0] : places[0] + 1]
        evaluations += sum(rung.evaluations for rung in before)
        seconds = time.perf_counter() - began + sum(rung.seconds for rung in before)
        self.rungs[places[0] : places[0] + 1] = [Rung(name, said, evaluations, seconds)]

    def _weighed(
        self,
        name: str,
        engine: Engine,
        state: State,
        progress: Progress,
        began: float,
        evaluations: int,
        said: str = "",
        few: Few | None = None,
    ) -> Candidate:
        found = Candidate(self.as_fit(engine, Run(state, progress, self.rng_key)), few)
        value, se = with_error(found.elbo, found.elbo_se)
        khat = f", k-hat {number(found.khat)}" if np.isfinite(found.khat) else ""
        by = "" if few is None else f", by {NUM_TRIED} draws"
        said += f"ELBO {value} ± {se} nats{khat}, efficiency {found.efficiency:.2f}{by}"
        self.rungs.append(Rung(name, said, evaluations, time.perf_counter() - began, found.elbo))
        return found

    def _best(self) -> Fit:
        """The last q that was better than the best before it: in its ELBO by two standard errors, or in its weights."""
        best = self.candidates[0]
        for other in self.candidates[1:]:
            if _is_better(other, best):
                best = other
        progress = best.fit.progress
        progress.rungs = tuple(self.rungs)
        failed = [c.fit.progress for c in self.candidates if c.fit.progress.status == "failed"]
        if failed and progress.status != "failed" and of_weights(signs_of(best.fit)) is None:
            # That the steps on the way to a better q failed, and why, is what there is to be done about this one.
            progress.status, progress.message = "failed", f"{failed[-1].message}; q is that of {self._rung_of(best)!r}"
        stopped = [c.fit.progress for c in self.candidates if c.fit.progress.interrupted]
        if stopped and not progress.interrupted:
            by = self._rung_of(best)
            progress.status, progress.interrupted = "stopped", True
            progress.message = f"{stopped[-1].message} on the way to a better q; this is that of {by!r}"
        return best.fit

    def _rung_of(self, candidate: Candidate) -> str:
        """The name of the rung that left a q, the last rungs being those of the candidates."""
        place = next(i for i, c in enumerate(self.candidates) if c is candidate)
        return self.rungs[place - len(self.candidates)].name


def _landed(state: State) -> State:
    """The state of the same steps without the score, whose estimator has no parameters."""
    bad = state.bad_params._replace(own=jnp.zeros(0, jnp.int32))
    return state._replace(estimators={}, estimator_optimizers={}, bad_params=bad)


def _is_better(other: Candidate, best: Candidate) -> bool:
    if not np.isfinite(best.elbo):
        return bool(np.isfinite(other.elbo))
    gain, error = other.elbo - best.elbo, np.hypot(other.elbo_se, best.elbo_se)
    if best.few is not None and not abs(gain) > CERTAIN * error:
        best.few = None
        return _is_better(other, best)
    if abs(gain) <= 2 * error:
        # How equal the weights are is the same question, to which the answer is often clear before the ELBO's is.
        return bool(other.efficiency > MORE_EQUAL * best.efficiency and not other.khat > best.khat)
    return bool(gain > 0)


def _good(name: str, candidate: Candidate) -> bool:
    if candidate.few is not None:
        return False
    if not _enough(name, candidate.khat, candidate.efficiency):
        return False
    # Of what draws correct, far more are weighed for that, and they see more of the tails.
    signs = signs_of(candidate.fit)
    # What else a verdict warns of, as other modes, no richer family mends.
    return _enough(name, signs.khat, signs.efficiency) and of_weights(signs) is not None


def _enough(name: str, khat: float, efficiency: float) -> bool:
    largest, least = STOP[name]
    return THRESHOLDS.are_alike(efficiency) or (not khat > largest and efficiency >= least)
