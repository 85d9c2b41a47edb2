"""A fit that goes on: more steps, on the same or on new data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.preparation import prepare
from autovi.process import computing
from autovi.result.without_data import NEEDED
from autovi.run.checks import check_count
from autovi.run.clock import Seconds
from autovi.run.engine import Engine
from autovi.run.learning_rate import forgotten, rates_of
from autovi.run.reporting import Report, check_callback
from autovi.run.running import Watch, before_the_first_step, ran
from autovi.run.state import State
from autovi.run.stopping import Progress


@computing()
def resumed(
    fit: Any,
    data: Any,
    num_steps: int | None,
    max_steps: int,
    learning_rate: float | optax.Schedule | None,
    callback: Callable[[Report], Any] | None,
    progress_bar: bool | None,
) -> Any:
    """See `Fit.resume`."""
    check_count("num_steps", num_steps, optional=True)
    check_count("max_steps", max_steps)
    check_callback(callback)
    if data is None and fit.lacks_data:
        raise ValueError(f"data: this fit was loaded without its data; give them to `resume`, or {NEEDED}")
    show = fit.progress_bar if progress_bar is None else progress_bar
    clock = Seconds()
    with before_the_first_step(), clock.spent("trace"):
        progress = _paced(fit, fit.progress.next_leg(num_steps, max_steps, data is not None), learning_rate)
        progress.schedule(progress.step)  # a schedule of the user's fails here or never
        engine, inputs = _prepared(fit, data)
        state = _copied(fit.state, engine, inputs)
    arrays = jax.device_put(inputs.traced())
    state = ran(engine, inputs, arrays, state, progress, Watch(callback, show, clock))
    key = jax.random.fold_in(fit.rng_key, 6)
    return replace(
        fit,
        engine=engine,
        inputs=inputs,
        state=state,
        progress=progress,
        rng_key=key,
        seconds=clock,
        progress_bar=show,
        restarts=None,
        absent={},
    )


def _paced(fit: Any, progress: Progress, learning_rate: Any) -> Progress:
    if learning_rate is None:
        return progress
    rates, schedule = rates_of(learning_rate, fit.options.optimizer)
    if schedule is not None and progress.learning_rate is forgotten:
        return replace(progress, learning_rate=schedule)  # what the file did not hold, from where it was
    step = progress.step
    return replace(progress, rates=rates, learning_rate=schedule, learning_rate_start=step, level=0, level_start=step)


def _prepared(fit: Any, data: Any) -> tuple[Engine, Inputs]:
    fit.check_unchanged()
    if data is None:
        return fit.engine, fit.inputs
    # The same categories have the same codes: what is fitted of an element stays with it.
    options = replace(fit.options, masked=None)
    engine, inputs = prepare(fit.model, bind_like(fit.model, data, fit.inputs, "data"), options)
    # The plan is that of the fit, to which its ladder has led.
    return engine.under(fit.engine.program.plan, fit.engine.optimizer), inputs


def _copied(state: State, engine: Engine, inputs: Inputs) -> State:
    """The state for the steps to come, which use it up.

    Raises:
        ValueError: the new data have other sizes, or what the optimizer remembers is not there.
    """
    like = jax.eval_shape(engine.initial_state, inputs.traced(), jax.random.key(0))
    if state.optimizer is None and like.optimizer is not None:
        raise ValueError(
            "resume: this fit was loaded without its optimizer; load it again with "
            "autovi.load(path, model, optimizer=...)"
        )
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    if shapes(state) != shapes(like):
        raise ValueError(
            "resume: with these data the posterior has another shape than in the fit (other sites, or plates of local "
            "sites of another size); start a new fit from it with autovi.fit(model, data, init=fit)"
        )
    return jax.tree.map(jnp.copy, state)
