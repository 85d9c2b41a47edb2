"""The rungs before the steps as compiled programs of an engine, kept for the next fit like it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.compiling import compiler_options, numbers_of, work_of
from autovi.families.base import MAX_DENSE
from autovi.ladder.couplings import meetings
from autovi.ladder.curvature import LANES, Curvature, curved
from autovi.ladder.density import joint_density
from autovi.ladder.diagonal import diagonal_curvature
from autovi.ladder.directions import Directions, directions, how_many_directions
from autovi.ladder.matching import Matched, match
from autovi.ladder.mode import Modes, distinct_modes, find_modes
from autovi.ladder.normal import LogDensity, Normal
from autovi.ladder.pseudo_data import Place, Told, place_at, told_at
from autovi.run.background import Compiling
from autovi.run.engine import Engine
from autovi.run.running import Watch
from autovi.run.weights import effective_size

NUMBERS_AT_ONCE = 20_000_000
SEARCH_NUMBERS = 20_000_000_000  # that a search for modes may compute: about half a minute
SEARCH_EVALUATIONS = 200  # that one takes, gradients counted as three
MOST_STARTS = 10
PRODUCT = 6  # evaluations that a product with the Hessian is worth
NUM_TRIED = 32  # draws by which a start is compared with another
# Of the density, that a program takes, roughly, gradients counted as three.
EVALUATIONS = {"modes": 20_000, "weights": 500}
USUALLY = 5_000


class Held(NamedTuple):
    """Coordinates `mask` that are held at `point` while the others are searched: they get a unit curvature there."""

    mask: jax.Array
    point: jax.Array

    def of(self, log_density: LogDensity) -> LogDensity:
        """The density of the others."""
        return lambda u: (
            log_density(jnp.where(self.mask, self.point, u))
            - 0.5 * jnp.sum(jnp.where(self.mask, u - self.point, 0) ** 2)
        )


class Few(NamedTuple):
    """What a few draws of q say: roughly the ELBO in nats, its standard error, and the efficiency."""

    elbo: float
    elbo_se: float
    efficiency: float


class Programs:
    """What the ladder computes of one program and its data. `constants` are those of the coordinates."""

    def __init__(self, engine: Engine, arrays: Any, watch: Watch):
        self.engine, self.arrays, self.watch = engine, arrays, watch

    @property
    def work(self) -> float:
        """Roughly how many numbers one evaluation of the density computes."""
        return float(self.engine.kept(("ladder", "work"), self._counted))

    def _counted(self) -> float:
        program = self.engine.program
        density = lambda params, arrays, point: joint_density(program, params, arrays)(point)  # noqa: E731
        params, point = jax.eval_shape(self.engine.initial_params, self.arrays), jnp.zeros(program.start_size)
        return max(1.0, numbers_of(jax.make_jaxpr(density)(params, self.arrays, point)))

    @property
    def lanes(self) -> int:
        """How many evaluations are held side by side."""
        return int(max(1, NUMBERS_AT_ONCE // self.work))

    def has_exact_diagonal(self, size: int) -> bool:
        """Is there time for a product with the Hessian for each of so many coordinates?"""
        return PRODUCT * size * self.work <= SEARCH_NUMBERS

    @property
    def num_starts(self) -> int:
        """From how many starts a mode can be looked for in about half a minute: from none, if it would take longer."""
        return int(min(self.lanes, SEARCH_NUMBERS // (SEARCH_EVALUATIONS * self.work), MOST_STARTS))

    def modes(self, constants: Any, starts: jax.Array, held: Held) -> tuple[Modes, jax.Array]:
        """Modes from every start `(S, D)`, and which starts ended in one and the same."""
        return self._run("modes", _modes, constants, starts, held)

    def curvature(self, constants: Any, point: jax.Array, held: Held) -> tuple[Curvature, jax.Array]:
        """The normal with the curvature at a mode, and Laplace's approximation of the log evidence there."""
        return self._run("curvature", self._curvature, constants, point, held)

    def diagonal(self, constants: Any, point: jax.Array, held: Held) -> Normal:
        """Independent normals with the curvature of each coordinate at a mode."""
        return self._run("diagonal", self._diagonal, constants, point, held)

    def directions(self, constants: Any, normal: Normal) -> tuple[Normal, Directions, jax.Array]:
        """The curvature at a mode, of low rank beside that of each coordinate, and how many products it took."""
        return self._run("directions", self._directions, constants, normal)

    def matched(self, constants: Any, start: Normal, rng_key: jax.Array) -> Matched:
        """The normal whose scores match, from another one."""
        return self._run("matching", self._matched, constants, start, rng_key)

    def weighed(self, constants: Any, normal: Normal, spread: float = 1.0) -> Few:
        """What a few draws say of a normal that is `spread` times as wide."""
        log_weights = self._run("weights", _log_weights, constants, normal, np.asarray(spread, normal.loc.dtype))
        return few_of(np.asarray(log_weights))

    def place(self, constants: Any, point: jax.Array) -> Place:
        """The values at a point, and what the coordinates of its sites are made of."""
        return self._run("place", self._place, constants, point, of_density=False)

    def told(self, constants: Any, values: jax.Array, asked: Any) -> Told:
        """What all but their own priors say of the sites that are `asked` for, at a vector of values."""
        return self._run("told", self._told, constants, values, asked, of_density=False)

    def meetings(self, constants: Any, point: jax.Array, halves: jax.Array) -> jax.Array:
        """Which coordinates the gradient changes in where others move."""
        return self._run("meetings", lambda f, x, masks: meetings(f, x, masks), constants, point, halves)

    def prepare(self, constants: Any, starts: jax.Array, held: Held) -> None:
        """Begins to compile what every ladder needs, side by side."""
        self._compiling("modes", _modes, constants, starts, held)
        point, dense = starts[0], starts.shape[1] <= MAX_DENSE
        name, compute = ("curvature", self._curvature) if dense else ("diagonal", self._diagonal)
        self._compiling(name, compute, constants, point, held)
        if self.engine.program.plan.scales:
            self._compiling("place", self._place, constants, point, of_density=False)
            self._compiling("told", self._told, constants, point, self.asked((), point), of_density=False)
            number: Any = jax.ShapeDtypeStruct((), point.dtype)
            scale: Any = jax.ShapeDtypeStruct(point.shape * (2 if dense else 1), point.dtype)
            self._compiling("weights", _log_weights, constants, Normal(point, scale), number)
            if dense:
                key = jax.eval_shape(jax.random.key, 0)
                self._compiling("matching", self._matched, constants, Normal(point, scale), key)

    def asked(self, sites: Collection[str], point: jax.Array) -> dict[str, np.ndarray]:
        """For `told`: 1 of these sites, 0 of the other non-centred ones."""
        return {n: np.asarray(n in sites, point.dtype) for n in sorted(self.engine.program.traced.noncentred)}

    def _place(self, arrays: Any, params: Any, point: jax.Array) -> Place:
        return place_at(self.engine.program, params, arrays, point)

    def _told(self, arrays: Any, params: Any, values: jax.Array, asked: Any) -> Told:
        return told_at(self.engine.program, params, arrays, values, asked, min(LANES, self.lanes))

    def _matched(self, log_density: LogDensity, start: Normal, rng_key: jax.Array) -> Matched:
        return match(log_density, start, jax.random.fold_in(rng_key, 11), lanes=self.lanes)

    def _curvature(self, log_density: LogDensity, point: jax.Array, held: Held) -> tuple[Curvature, jax.Array]:
        found = curved(held.of(log_density), point, lanes=min(LANES, self.lanes))
        return found, found.log_evidence

    def _diagonal(self, log_density: LogDensity, point: jax.Array, held: Held) -> Normal:
        exact = self.has_exact_diagonal(point.shape[0])
        return diagonal_curvature(held.of(log_density), point, exact, min(LANES, self.lanes))

    def _directions(self, log_density: LogDensity, normal: Normal) -> tuple[Normal, Directions, jax.Array]:
        return directions(log_density, normal, how_many_directions(normal.loc.shape[0]))

    def at_once(self, name: str, compute: Callable[..., Any], *args: Any) -> Any:
        """What a function of the program alone gives: one small program in place of many, one for each operation."""
        run = self.engine.kept(("ladder", name), lambda: jax.jit(compute, compiler_options=compiler_options(1)))
        return run(*args)

    def _run(self, name: str, compute: Callable[..., Any], constants: Any, *args: Any, of_density: bool = True) -> Any:
        with self.watch.clock.spent("trace"):
            compiling = self._compiling(name, compute, constants, *args, of_density=of_density)
        ready = self.engine.waited(compiling, self.watch.clock, self.watch.progress_bar)
        with self.watch.clock.spent("run"):
            return jax.block_until_ready(ready(self.arrays, constants, *args))

    def _compiling(
        self, name: str, compute: Callable[..., Any], constants: Any, *args: Any, of_density: bool = True
    ) -> Compiling:
        shapes = str(jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), args))

        def traced() -> Compiling:
            def program(arrays: Any, constants: Any, *args: Any) -> Any:
                params = {**self.engine.initial_params(arrays), "constants": constants}
                if not of_density:
                    return compute(arrays, params, *args)
                return compute(joint_density(self.engine.program, params, arrays), *args)

            traced = jax.jit(program).trace(self.arrays, constants, *args)
            is_exact = np.isfinite(work_of(traced.jaxpr))  # loops that end by themselves are not counted by it
            options = compiler_options(EVALUATIONS.get(name, USUALLY) * self.work if is_exact else np.inf)
            lowered = traced.lower()
            return Compiling(lambda: lowered.compile(options))

        return self.engine.kept(("ladder", name, shapes), traced)


def _modes(log_density: LogDensity, starts: jax.Array, held: Held) -> tuple[Modes, jax.Array]:
    of_others = held.of(log_density)
    modes = find_modes(of_others, jnp.where(held.mask, held.point, starts))
    return modes, distinct_modes(of_others, modes)


def _log_weights(log_density: LogDensity, normal: Normal, spread: jax.Array) -> jax.Array:
    normal = normal._replace(scale=spread * normal.scale)
    noise = jax.random.normal(jax.random.key(0), (NUM_TRIED, normal.loc.shape[0]), normal.loc.dtype)
    return jax.lax.map(log_density, normal.at(noise)) - normal.log_density_at_noise(noise)


def few_of(log_weights: np.ndarray) -> Few:
    """What a few log weights say. Where one of them is no number, the ELBO is none."""
    logs = log_weights.astype(np.float64)
    known = np.isfinite(logs.max())  # weights of zero are weights too
    efficiency = effective_size(logs) / logs.size if known else 0.0
    if not np.isfinite(logs).all():
        return Few(float("-inf"), 0.0, efficiency)
    return Few(float(logs.mean()), float(logs.std(ddof=1) / logs.size**0.5), efficiency)
