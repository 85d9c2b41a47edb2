"""Compiled chunks of steps over Optax: the loop and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from autovi.run.interruption import Interruption
from autovi.run.stopping import CHUNK, HOPELESS, Progress, Schedule

MAX_STEPS = 100_000
ESTIMATOR_RATE = 0.05  # SGD on squared error: a moving average that forgets by a factor of 0.9 a step


class Carry(NamedTuple):
    """All that a step needs. `average` is the running mean of the parameters, `skipped` counts steps that changed
    nothing, `bad_terms` and `bad_params` in how many of them a cost term or a gradient was not finite."""

    params: Any
    optimizer: Any
    estimator_params: Any
    estimator_optimizer: Any
    average: Any
    rng_key: jax.Array
    skipped: jax.Array
    bad_terms: jax.Array  # in the order of the terms' names
    bad_params: Any


@dataclass(frozen=True)
class Optimizer:
    """The user's Optax transformation, or Adam with a learning rate that the host sets (None)."""

    transform: optax.GradientTransformation | None = None

    def base(self) -> optax.GradientTransformation:
        """The transformation whose updates are applied."""
        return optax.scale_by_adam() if self.transform is None else self.transform

    def updates(self, grads: Any, state: Any, params: Any, rate: jax.Array) -> tuple[Any, Any]:
        """Updates to add to the parameters, and the new state."""
        updates, state = self.base().update(grads, state, params)
        return (jax.tree.map(lambda u: -rate * u, updates) if self.transform is None else updates), state


def init_carry(params: Any, estimator_params: Any, optimizer: Optimizer, rng_key: jax.Array, num_terms: int) -> Carry:
    """The state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    estimators = optax.sgd(ESTIMATOR_RATE)
    return Carry(
        params,
        optimizer.base().init(params),
        estimator_params,
        estimators.init(estimator_params),
        jax.tree.map(jnp.copy, params),
        rng_key,
        zero,
        jnp.zeros(num_terms, jnp.int32),
        jax.tree.map(lambda x: zero, params),
    )


def make_chunk(estimate: Callable, optimizer: Optimizer) -> jax.stages.Wrapped:
    """`chunk(carry, arrays, schedule) -> (carry, losses)`: one compiled scan, its carry donated.

    `estimate(params, estimator_params, arrays, rng_key)` is the loss with the ELBO and the terms' means.
    """
    loss_and_grads = jax.value_and_grad(estimate, argnums=(0, 1), has_aux=True)
    estimators = optax.sgd(ESTIMATOR_RATE)

    def step(arrays: Any, carry: Carry, schedule: Any) -> tuple[Carry, jax.Array]:
        rng_key, step_key = jax.random.split(carry.rng_key)
        (_, info), (grads, own) = loss_and_grads(carry.params, carry.estimator_params, arrays, step_key)
        finite = jax.tree.map(lambda g: jnp.all(jnp.isfinite(g)), (grads, own))
        good = jax.tree.reduce(jnp.logical_and, finite, jnp.isfinite(info.elbo))
        active = schedule.rate > 0
        updates, state = optimizer.updates(grads, carry.optimizer, carry.params, schedule.rate)
        own_updates, own_state = estimators.update(own, carry.estimator_optimizer)
        params = optax.apply_updates(carry.params, updates)
        average = jax.tree.map(lambda a, p: a + schedule.weight * (p - a), carry.average, params)
        moved = (params, state, optax.apply_updates(carry.estimator_params, own_updates), own_state, average)
        stayed = carry[:5]
        kept = jax.tree.map(lambda a, b: jnp.where(good & active, a, b), moved, stayed)
        counts = {
            "skipped": carry.skipped + (active & ~good),
            "bad_terms": carry.bad_terms + (active & ~jnp.isfinite(jnp.stack(list(info.terms.values())))),
            "bad_params": jax.tree.map(lambda n, f: n + (active & ~f), carry.bad_params, finite[0]),
        }
        return carry._replace(**dict(zip(Carry._fields, kept, strict=False)), rng_key=rng_key, **counts), -info.elbo

    @partial(jax.jit, donate_argnums=0)
    def chunk(carry: Carry, arrays: Any, schedule: Schedule) -> tuple[Carry, jax.Array]:
        return jax.lax.scan(partial(step, arrays), carry, schedule)

    return chunk


def optimize(chunk: Callable, carry: Carry, arrays: Any, progress: Progress, *, progress_bar: bool) -> Carry:
    """Runs chunks until `num_steps`, convergence, or Ctrl-C, which ends the fit with what there is.

    With a fixed number of steps the next chunk is on its way before the last one's losses are read.
    """
    if not jax.tree.leaves(carry.params):
        progress.status, progress.message = "converged", "nothing to optimize: every site is summed out exactly"
        return carry
    pending: list[tuple[Any, int]] = []
    launched, ahead = 0, int(progress.num_steps is not None)
    bar = tqdm(total=progress.num_steps, disable=not progress_bar, unit="step")
    with Interruption() as interruption, bar:
        while launched < progress.limit and not interruption.requested:
            carry, losses = chunk(carry, arrays, progress.schedule(launched))
            pending.append((losses, min(CHUNK, progress.limit - launched)))
            launched += pending[-1][1]
            if len(pending) > ahead:
                _collect(progress, *pending.pop(0), bar)
            if ahead:
                continue
            if progress.stands_still():
                progress.status = "converged"
                break
            if launched == HOPELESS * CHUNK and int(carry.skipped) == launched:
                break
        for losses, count in pending:
            _collect(progress, losses, count, bar)
        carry = jax.block_until_ready(carry)
    if interruption.requested:
        progress.status, progress.message = "stopped", f"stopped by Ctrl-C after {progress.step} steps"
    return carry


def _collect(progress: Progress, losses: Any, count: int, bar: tqdm) -> None:
    progress.losses.append(np.asarray(losses)[:count])
    progress.step += count
    if not bar.disable:
        finite = progress.losses[-1][np.isfinite(progress.losses[-1])]
        bar.set_postfix_str(f"ELBO {-finite.mean():,.2f}" if finite.size else "ELBO not finite", refresh=False)
        bar.update(count)
