"""One run from its start to its end: compiled, started, optimized, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from autovi.model.inputs import Inputs
from autovi.run.checks import check_end, check_start
from autovi.run.clock import Seconds
from autovi.run.engine import Engine, Start
from autovi.run.keeping import Journal
from autovi.run.loop import optimize
from autovi.run.origin import Origin
from autovi.run.reporting import LOG, Report, called
from autovi.run.state import State
from autovi.run.stopping import Progress


class Run(NamedTuple):
    """What a run leaves; `rng_key` is for what is drawn from the result."""

    state: State
    progress: Progress
    rng_key: jax.Array


class Watch(NamedTuple):
    """Who looks on: a callback, the progress bar, the clock, and the journal that keeps the run on disk."""

    callback: Callable[[Report], Any] | None
    progress_bar: bool
    clock: Seconds
    journal: Journal | None = None
    alone: bool = True  # no other fit of the same program is to run beside it


class Steps(NamedTuple):
    """A leg of stochastic steps that a fit asks for: what `ran` takes."""

    engine: Engine
    inputs: Inputs
    arrays: Any
    state: State
    progress: Progress
    watch: Watch


@contextmanager
def before_the_first_step() -> Iterator[None]:
    """Ctrl-C inside ends in one sentence: there is nothing to return yet."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped by Ctrl-C before the first step: there is no fit") from None


def started(
    engine: Engine, inputs: Inputs, arrays: Any, rng_key: jax.Array | int, origin: Origin, watch: Watch, steps: float
) -> tuple[State, Start, jax.Array]:
    """The state before the first step, the points that were tried, and the key for the result. If so many
    `steps` are to follow at once, they are on their way to be compiled.

    Raises:
        ValueError: no starting point has a finite ELBO.
    """
    with watch.clock.spent("trace"):
        compiling = engine.start(arrays, rng_key, origin)
        if steps:
            engine.chunk(compiling.returns, arrays, steps)
    start = engine.waited(compiling, watch.clock, watch.progress_bar)
    with watch.clock.spent("run"):
        state, tried, result_key = start(arrays, rng_key, origin)
        tried = jax.tree.map(np.asarray, tried)
        check_start(engine, tried, inputs)
    return state, tried, result_key


def ran(
    engine: Engine, inputs: Inputs, arrays: Any, state: State, progress: Progress, watch: Watch, fits: int = 1
) -> State:
    """The state after the last step, with status and message in `progress`. The given state is used up. So many `fits`
    make about as many steps with the same program, which is then worth compiling better."""
    leg = None if watch.journal is None else watch.journal.next_leg()
    # Of the whole leg: what is compiled for the few steps that are left of a kept one may round otherwise.
    num_steps = progress.expected_steps
    if leg is not None and (found := leg.found(state, engine.program, progress)) is not None:
        state, ended = found
        if ended:
            return state
    with watch.clock.spent("trace"):
        compiling = engine.chunk(state, arrays, num_steps, fits)
    chunk = engine.waited(compiling, watch.clock, watch.progress_bar)
    callback = watch.callback
    told = None if callback is None else lambda state: called(callback, engine.program, state, progress)
    LOG.info("%d particles a step, %d cost terms", engine.num_particles, len(engine.program.term_names))
    with watch.clock.spent("run"):
        state = optimize(chunk, state, arrays, progress, progress_bar=watch.progress_bar, told=told, leg=leg)
        check_end(engine, progress, state, inputs)
    if leg is not None and not progress.interrupted:
        leg.keep(state, progress, ended=True)
    LOG.info("%s after %d steps: %s", progress.status, progress.step, progress.message)
    return state
