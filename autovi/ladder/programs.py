"""The rungs before the steps as compiled programs of an engine, kept for the next fit like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from autovi.compiling import compiler_options
from autovi.ladder.couplings import meetings
from autovi.ladder.curvature import Curvature, curved
from autovi.ladder.density import joint_density
from autovi.ladder.matching import Matched, match
from autovi.ladder.mode import Modes, find_modes
from autovi.ladder.normal import LogDensity, Normal
from autovi.run.background import Compiling
from autovi.run.engine import Engine
from autovi.run.running import Watch


EVALUATIONS = 2_000  # of the density, that a rung takes; at a few times its numbers each


class Programs:
    """What the ladder computes of one program and its data. `constants` are those of the coordinates."""

    def __init__(self, engine: Engine, arrays: Any, watch: Watch):
        self.engine, self.arrays, self.watch = engine, arrays, watch

    def modes(self, constants: Any, starts: jax.Array) -> Modes:
        """Modes from every start `(S, D)`."""
        return self._run("modes", lambda f, points: find_modes(f, points), constants, starts)

    def curvature(self, constants: Any, point: jax.Array) -> Curvature:
        """The normal with the curvature at a mode."""
        return self._run("curvature", lambda f, x: curved(f, x), constants, point)

    def matched(self, constants: Any, start: Normal, rng_key: jax.Array) -> Matched:
        """The normal whose scores match, from another one."""
        return self._run("matching", lambda f, normal, key: match(f, normal, key), constants, start, rng_key)

    def meetings(self, constants: Any, point: jax.Array, halves: jax.Array) -> jax.Array:
        """Which coordinates the gradient changes in where others move."""
        return self._run("meetings", lambda f, x, masks: meetings(f, x, masks), constants, point, halves)

    def prepare(self, constants: Any, starts: jax.Array) -> None:
        """Begins to compile what every ladder needs."""
        self._compiling("modes", lambda f, points: find_modes(f, points), constants, starts)
        self._compiling("curvature", lambda f, x: curved(f, x), constants, starts[0])

    def _run(self, name: str, compute: Callable[..., Any], constants: Any, *args: Any) -> Any:
        with self.watch.clock.spent("trace"):
            compiling = self._compiling(name, compute, constants, *args)
        ready = self.engine.waited(compiling, self.watch.clock, self.watch.progress_bar)
        with self.watch.clock.spent("run"):
            return jax.block_until_ready(ready(self.arrays, constants, *args))

    def _compiling(self, name: str, compute: Callable[..., Any], constants: Any, *args: Any) -> Compiling:
        shapes = str(jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), args))

        def traced() -> Compiling:
            def program(arrays: Any, constants: Any, *args: Any) -> Any:
                return compute(self._density(arrays, constants), *args)

            lowered = jax.jit(program).lower(self.arrays, constants, *args)
            return Compiling(lambda: lowered.compile(compiler_options(EVALUATIONS * self.engine.numbers_per_draw)))

        return self.engine.kept(("ladder", name, shapes), traced)

    def _density(self, arrays: Any, constants: Any) -> LogDensity:
        params = {**self.engine.initial_params(arrays), "constants": constants}
        return joint_density(self.engine.program, params, arrays)
