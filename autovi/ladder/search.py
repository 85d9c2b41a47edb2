"""The search for the normal that the ladder begins with: modes, their curvature, and better scales, in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.families.base import INIT_SCALE, MAX_DENSE
from autovi.ladder.curvature import Curvature
from autovi.ladder.diagonal import NUM_PROBES
from autovi.ladder.informing import informed
from autovi.ladder.mode import Status
from autovi.ladder.normal import Normal
from autovi.ladder.programs import Held, Programs
from autovi.model.traced import pseudo_inputs
from autovi.numbers import how_many, number
from autovi.program.program import Program
from autovi.run.engine import Start
from autovi.run.starts import Mode, Modes
from autovi.run.thresholds import THRESHOLDS

# Of q at the start of stochastic steps, in units of the curvature: they widen it faster than they narrow it.
SPREAD = 0.3
MAX_MODES = 4  # whose mass is measured, the highest
MOST_ROUNDS = 6  # in which unknown scales are moved
STAYS = 0.2  # how far a scale is moved on the unconstrained scale that stays


class Search:
    """One search. `tried` are starting points, and `took(name, began, said, evaluations)` is told of each step; `modes`
    is what was found, and `constants` are those of the coordinates, which begin without pseudo-data. Of several modes
    with mass around them, the search of each `restart` takes another one, the first the one with the most."""

    def __init__(
        self, programs: Programs, tried: Start, took: Callable[[str, float, str, int], None], restart: int = 0
    ):
        self.programs, self.program, self.tried, self.took = programs, programs.engine.program, tried, took
        self.restart = restart
        program = self.program  # what is kept holds no data
        self.constants = programs.at_once("constants", lambda: _noncentred(program))
        self.modes: Modes | None = None

    def normal(self) -> Normal | None:
        """The normal at the mode with the most mass around it; None where no mode was found that has a curvature. Where
        scales are unknown, again with what the one before says of them, as long as they move."""
        starts, held = self._starts(), self._held()
        best = self._believed(self._curvature(starts, held))
        for _ in range(MOST_ROUNDS if self.program.plan.scales else 0):
            if best is None:
                break
            began = time.perf_counter()
            constants, point, values, evaluations = informed(self.programs, self.constants, best.loc)
            self.took("scales", began, f"pseudo-data of {how_many(values, 'value')}", evaluations)
            moved = held._replace(point=jnp.asarray(point))
            # The scales' most likely values by pseudo-data may be far off where these are far from normal.
            found = self._better(best, constants, starts, moved) or self._better(best, constants, starts, held)
            stays = found is None or found[1] is held or np.abs(point - np.asarray(best.loc)).max() <= STAYS
            best, held = found or (best, held)
            if stays:
                break
        return best

    def _better(self, best: Normal, constants: Any, starts: jax.Array, held: Held) -> tuple[Normal, Held] | None:
        """The normal in other coordinates with the scales at other values, where it is not certain to be worse."""
        former = self.constants, self.modes
        reached, error = self._elbo(best)
        self.constants = constants
        found = self._curvature(starts, held)
        now, its_error = (-np.inf, 0.0) if found is None else self._elbo(found)
        if found is not None and now >= reached - 2 * np.hypot(error, its_error):
            return found, held
        self.constants, self.modes = former
        return None

    def _believed(self, found: Normal | None) -> Normal | None:
        """A normal that is nearer to the posterior than one around the best start. Where a scale goes to zero, and what
        it is the scale of with it, a mode may be a spike without mass."""
        if found is None:
            return None
        scale = np.full(found.loc.shape, INIT_SCALE, found.loc.dtype)
        cold = Normal(self.best_start, jnp.asarray(scale if found.scale.ndim == 1 else np.diag(scale)))
        near, far = self._elbo(found)[0], self._elbo(cold, (1.0,))[0]
        if near > -np.inf and near >= far:
            return found
        self.modes = None
        return None

    def _elbo(self, normal: Normal, spreads: tuple[float, ...] = (1.0, SPREAD)) -> tuple[float, float]:
        """Roughly the ELBO of a normal, the better of several as wide, and its standard error. As wide as the curvature
        says it is the answer of a normal posterior, narrower of one with heavy costs."""
        found = [self.programs.weighed(self.constants, normal, spread) for spread in spreads]
        best = max(found, key=lambda few: few.elbo)
        return best.elbo, best.elbo_se

    def _curvature(self, starts: jax.Array, held: Held) -> Normal | None:
        self.programs.prepare(self.constants, starts, held)
        began = time.perf_counter()
        modes, same = jax.tree.map(np.asarray, self.programs.modes(self.constants, starts, held))
        self.took("mode", began, _modes_said(modes), int(modes.iterations.sum()))
        if starts.shape[1] > MAX_DENSE:
            return self._diagonal(modes, held)
        began = time.perf_counter()
        places = _highest_converged(modes, same)[:MAX_MODES]
        found = [self.programs.curvature(self.constants, jnp.asarray(modes.points[p]), held) for p in places]
        starting = [int((same == same[p]).sum()) for p in places]
        known = [(c, float(e), n) for (c, e), n in zip(found, starting, strict=True) if _is_mode(c)]
        known = _in_turn(sorted(known, key=lambda pair: -pair[1]), self.restart)
        self.modes = Modes(
            tuple(Mode(float(c.value), log_evidence, starts) for c, log_evidence, starts in known),
            failed=int((modes.status != Status.CONVERGED).sum()),
            unbounded=int((modes.status == Status.UNBOUNDED).sum()),
        )
        evaluations = sum(int(c.trials) + int(c.rounds) * starts.shape[1] for c, _ in found)
        if not known and (unknown := [c for c, _ in found if np.isfinite(c.value) and not _has_hessian(c)]):
            self.modes = None  # how much mass is around them is not known either
            self.took("curvature", began, "the Hessian is not finite at the mode", evaluations)
            return unknown[0].normal
        if not known:
            self.took("curvature", began, "no mode has one", evaluations)
            return None
        best = known[0][0]
        said = f"condition number {number(float(best.condition))}"
        if len(known) > 1:
            which = "best" if self.modes.found[0] == max(self.modes.found, key=lambda m: m.log_weight) else "one taken"
            said += f"; {how_many(len(known), 'mode')}, {self.modes.share:.2f} of the mass at the {which}"
        self.took("curvature", began, said, evaluations)
        return best.normal

    def _diagonal(self, modes: Any, held: Held) -> Normal | None:
        """Where there are too many dimensions for a matrix: independent normals at the highest mode."""
        began = time.perf_counter()
        ended = np.isin(modes.status, (Status.CONVERGED, Status.MAX_ITERATIONS))
        values = np.where(np.isfinite(modes.values) & ended, modes.values, -np.inf)
        if not np.isfinite(values.max()):
            return None
        size = modes.points.shape[1]
        evaluations = size if self.programs.has_exact_diagonal(size) else NUM_PROBES
        normal = self.programs.diagonal(self.constants, jnp.asarray(modes.points[np.argmax(values)]), held)
        self.took("curvature", began, f"of each of {normal.loc.shape[0]:,} dimensions alone", evaluations)
        return normal

    def _held(self) -> Held:
        """Unknown scales are held where the best start has them: with all else at its mode, they would be far too
        large, or run to where a density grows without bound."""
        program, point = self.program, self.best_start
        held = {n: float(n in program.plan.scales) for n in program.sites.latents}
        return Held(self.programs.at_once("held", lambda: program.blocks.start_of(held) > 0), point)

    def _starts(self) -> jax.Array:
        """The best of those that were tried, as many as there is time for."""
        totals = np.where(np.isfinite(self.tried.totals), self.tried.totals, -np.inf)
        best = np.sort(np.argsort(-totals, kind="stable")[: self.programs.num_starts])
        return jnp.asarray(self.tried.points[best])

    @property
    def best_start(self) -> jax.Array:
        totals = np.where(np.isfinite(self.tried.totals), self.tried.totals, -np.inf)
        return jnp.asarray(self.tried.points[np.argmax(totals)])


def _noncentred(program: Program) -> dict[str, Any]:
    """Constants in which the sites that can be are non-centred."""
    pseudo_data = {pseudo_inputs(site)[0] for site in program.traced.noncentred}
    own = {n: c for n, c in program.constants().items() if not isinstance(c, dict)}
    return {n: jnp.zeros_like(c) if n in pseudo_data else c for n, c in own.items()}


def _in_turn(known: list[tuple[Any, float, int]], restart: int) -> list[tuple[Any, float, int]]:
    """Modes, the one with the most mass first, with that of a restart moved to the front. A mode is given a restart
    where a verdict would miss it."""
    logs = np.array([log_evidence for _, log_evidence, _ in known])
    if not restart or not known or not np.isfinite(logs).all():
        return known
    masses = np.exp(logs - logs.max())
    number = int((masses > THRESHOLDS.other_modes * masses.sum()).sum())
    which = restart % max(1, number)
    return [known[which], *known[:which], *known[which + 1 :]]


def _is_mode(found: Curvature) -> bool:
    return bool(np.isfinite(found.value)) and _has_hessian(found) and not int(found.negative)


def _has_hessian(found: Curvature) -> bool:
    """Were the second derivatives numbers? Where they are not, the normal has the scale that it was begun with."""
    return bool(np.isfinite(found.identity_error))


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
