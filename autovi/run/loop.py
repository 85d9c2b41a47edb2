"""Compiled chunks of steps over Optax: the loop and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.errors import JaxRuntimeError
from jax.flatten_util import ravel_pytree
from tqdm.auto import tqdm

from autovi.numbers import how_many
from autovi.program.program import Program
from autovi.program.rows import scatter_rows
from autovi.program.surrogate import estimate
from autovi.run.ahead import Ahead, drawn_ahead
from autovi.run.faults import LastState, said
from autovi.run.interruption import Interruption
from autovi.run.keeping import Leg
from autovi.run.optimizer import MANY, Optimizer, Pace, joined, split
from autovi.run.reporting import LOG
from autovi.run.sources import Source
from autovi.run.state import Bad, State, learning
from autovi.run.stopping import CHUNK, HOPELESS, LOST, Progress, Schedule

MAX_STEPS = 100_000


def make_chunk(program: Program, source: Source, optimizer: Optimizer, lanes: int = 1) -> jax.stages.Wrapped:
    """`chunk(state, data, schedule) -> (state, losses)`: one compiled scan over what the source gives, its state
    donated. So many `lanes` of it are to run side by side."""
    loss_and_grads = jax.value_and_grad(partial(estimate, program), argnums=(0, 1), has_aux=True)

    def step(data: Any, state: State, now: tuple[Any, Ahead]) -> tuple[State, jax.Array]:
        schedule, (step_key, rng_key, noise) = now
        batch, indices = source.next(data, state.step, step_key)
        rows = {n: t.seen(program.node_site(n), indices) for n, t in state.tables.items()}
        seen = joined(state.params, {n: r.params for n, r in rows.items()})
        own = program.seen_estimators(state.estimators, indices)
        fixed = {"constants": program.seen_constants(state.constants, indices)}
        (_, info), (grads, own_grads) = loss_and_grads(
            {**seen, **fixed}, own, batch, step_key, program.plan.num_particles, indices, noise
        )
        grads = {n: g for n, g in grads.items() if n != "constants"}
        whole, row_grads = split(program, grads)
        finite = jax.tree.map(jnp.isfinite, _joined(whole))
        finite_rows = {n: _all_finite(g) for n, g in row_grads.items()}
        finite_own = jnp.array([_all_finite(own_grads[n]) for n in learning(own)], bool)
        good = _all_true(finite) & jnp.isfinite(info.elbo) & jnp.all(finite_own)
        for is_finite in finite_rows.values():
            good &= is_finite
        active = schedule.rate > 0
        pace = Pace(schedule.rate, schedule.number, schedule.emphasis)
        number = state.step + 1
        params, average, memory = optimizer.step(
            state.params, state.average, state.optimizer, whole, pace, good & active
        )
        tables = dict(state.tables)
        for n, grad in row_grads.items():
            site = program.node_site(n)
            moved = optimizer.step_rows(site, rows[n], grad, pace, number, good & active)
            tables[n] = tables[n].put(site, moved, indices)
        before = state.estimators, state.estimator_optimizers
        estimators, states = trained(program, *before, own, own_grads, indices, good & active)

        bad = active & ~good
        # Without a branch, which an accelerator would have to ask the host for.
        bad_terms = state.bad_terms + (bad & ~jnp.isfinite(info.terms))
        rows_bad = {n: state.bad_params.rows[n] + (bad & ~f) for n, f in finite_rows.items()}
        whole_bad = jax.tree.map(lambda n, f: _counted(n, bad & ~f), state.bad_params.whole, finite)
        bad_params = Bad(whole_bad, rows_bad, state.bad_params.own + (bad & ~finite_own))
        after = State(
            params=params,
            constants=state.constants,
            optimizer=memory,
            average=average,
            tables=tables,
            estimators=estimators,
            estimator_optimizers=states,
            rng_key=rng_key,
            step=jnp.where(active, number, state.step),
            skipped=state.skipped + bad,
            bad_terms=bad_terms,
            bad_params=bad_params,
        )
        return after, -info.elbo

    @partial(jax.jit, donate_argnums=0)
    def chunk(state: State, data: Any, schedule: Schedule) -> tuple[State, jax.Array]:
        return jax.lax.scan(
            partial(step, program.settled(data)), state, (schedule, drawn_ahead(program, state.rng_key, lanes))
        )

    return chunk


def _joined(tree: Any) -> Any:
    """Many leaves as one vector, few as they are."""
    return ravel_pytree(tree)[0] if len(jax.tree.leaves(tree)) > MANY else tree


def _all_true(tree: Any) -> jax.Array:
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(jnp.all, tree), jnp.asarray(True))


def _all_finite(tree: Any) -> jax.Array:
    return _all_true(jax.tree.map(jnp.isfinite, _joined(tree)))


def _counted(number: jax.Array, more: jax.Array) -> jax.Array:
    """One byte for each element of the gradient, which stops at the end of its type."""
    return jnp.where(more & (number < 255), number + jnp.uint8(1), number)


def trained(
    program: Program,
    before: Mapping[str, Any],
    optimizers: Mapping[str, Any],
    own: Any,
    grads: Any,
    indices: Any,
    good: jax.Array,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The estimators' own parameters after a step, and their optimizers' states; of `Rows` those that were seen."""
    estimators, states = dict(before), dict(optimizers)
    memories = program.seen_estimators(states, indices)
    for name, params in own.items():
        updates, moved = program.plan.estimator_of(name).optimizer.update(grads[name], memories[name], params)
        new = (optax.apply_updates(params, updates), moved)
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, (params, memories[name]))
        if not program.is_flat(name):
            site = program.node_site(name)
            new = tuple(
                scatter_rows(site, t, r, indices) for t, r in zip((estimators[name], states[name]), new, strict=True)
            )
        estimators[name], states[name] = new
    return estimators, states


def optimize(
    chunk: Callable,
    state: State,
    arrays: Any,
    progress: Progress,
    *,
    progress_bar: bool,
    told: Callable[[State], str | None] | None = None,
    leg: Leg | None = None,
) -> State:
    """Runs chunks until `num_steps`, convergence, or Ctrl-C, which ends the fit with what there is.

    `told` is called after every chunk with the state, and may return why the fit is to end. Without it, and with a
    fixed number of steps, the next chunk is on its way before the last one's losses are read. `leg` is where the run
    is kept as it goes. An error of XLA ends the fit with the last state that is known to be whole.

    Raises:
        jax.errors.JaxRuntimeError: XLA failed within the first quarter of a second, of which nothing is kept.
    """
    if not jax.tree.leaves((state.params, state.tables)):
        progress.status, progress.message = "converged", "nothing to optimize: every site is summed out exactly"
        return state
    if progress.step == progress.leg_start:
        progress.skipped = int(state.skipped)
    total = None if progress.num_steps is None else progress.limit
    bar = tqdm(total=total, initial=progress.step, disable=not progress_bar, unit="step")
    interruption, last = Interruption(terminable=leg is not None), LastState(state)
    try:
        with interruption, bar:
            state = _stepped(chunk, state, arrays, progress, interruption, bar, last, told, leg)
    except JaxRuntimeError as error:
        found = last.found(progress)
        if found is None:
            raise
        state = found
        after = f"after {how_many(progress.step, 'step')}"
        progress.status, progress.message = "stopped", f"stopped {after} by an error of XLA: {said(error)}"
        progress.interrupted = True
        if leg is not None:
            leg.keep(state, progress)
    interruption.pass_on()
    note_interruption(progress, interruption)
    return state


def _stepped(
    chunk: Callable,
    state: State,
    arrays: Any,
    progress: Progress,
    interruption: Interruption,
    bar: tqdm,
    last: LastState,
    told: Callable[[State], str | None] | None,
    leg: Leg | None,
) -> State:
    """Chunk after chunk to the end."""
    pending: list[tuple[Any, int]] = []
    launched, ahead = progress.step, int(progress.num_steps is not None and told is None)
    while launched < progress.limit and not interruption.requested:
        if (schedule := next_schedule(progress, launched)) is None:
            break
        state, losses = chunk(state, arrays, schedule)
        pending.append((losses, min(CHUNK, progress.limit - launched)))
        launched += pending[-1][1]
        if len(pending) > ahead:
            collect(progress, *pending.pop(0), bar)
        if told is not None and (reason := told(state)) is not None:
            progress.status, progress.message = "stopped", reason
            break
        if is_asked_for_hope(progress, launched) and is_hopeless(progress, int(state.skipped)):
            break
        if not ahead and progress.num_steps is None and progress.has_ended():
            break
        is_due = leg is not None and leg.is_due(launched)
        if is_due or last.is_due:
            while pending:
                collect(progress, *pending.pop(0), bar)
            last.keep(state, progress)
        if leg is not None and is_due:
            leg.keep(state, progress)
    for losses, count in pending:
        collect(progress, losses, count, bar)
    state = jax.block_until_ready(state)
    if leg is not None and interruption.requested:
        leg.keep(state, progress)
    return state


def next_schedule(progress: Progress, launched: int) -> Schedule | None:
    """The schedule of the chunk after so many steps; None where the user's own fails, which ends the fit: what is
    fitted so far is kept."""
    try:
        return progress.schedule(launched)
    except Exception as error:
        progress.status, progress.message = "stopped", f"stopped after {launched} steps: {error}"
        progress.interrupted = True
        return None


def is_asked_for_hope(progress: Progress, launched: int) -> bool:
    """Is it asked, after so many steps, whether steps still change anything?"""
    return (launched - progress.leg_start) % (HOPELESS * CHUNK) == 0


def is_hopeless(progress: Progress, skipped: int) -> bool:
    """Did next to none of the steps since this was last asked change anything? So many were `skipped` in all."""
    progress.skipped, before = skipped, progress.skipped
    return progress.skipped - before > LOST * HOPELESS * CHUNK


def note_interruption(progress: Progress, interruption: Interruption) -> None:
    """What a fit says that Ctrl-C or SIGTERM ended."""
    progress.interrupted |= interruption.requested
    if interruption.requested and progress.status != "stopped":
        after = f"after {how_many(progress.step, 'step')}"
        progress.status, progress.message = "stopped", f"stopped by {interruption.name} {after}"


def collect(progress: Progress, losses: Any, count: int, bar: tqdm) -> None:
    """Takes the losses of a chunk's first `count` steps, read from the device, into what is known of a fit."""
    progress.losses.append(np.asarray(losses)[:count])
    progress.step += count
    LOG.debug("step %d: loss %.6g nats", progress.step, progress.losses[-1].mean())
    if not bar.disable:
        finite = progress.losses[-1][np.isfinite(progress.losses[-1])]
        bar.set_postfix_str(f"ELBO {-finite.mean():,.2f}" if finite.size else "ELBO not finite", refresh=False)
        bar.update(count)
