"""`fit` and `plan`: the stages one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from autovi.keys import as_key, seed_or_key
from autovi.model.inputs import Inputs
from autovi.objectives import Objective
from autovi.plan.plan import Plan
from autovi.plan.requests import as_objective
from autovi.preparation import Options, prepare
from autovi.result.axes import Axes, as_dicts
from autovi.result.fit import Fit
from autovi.run.checks import check_count, check_end, check_start
from autovi.run.engine import Engine
from autovi.run.loop import MAX_STEPS, optimize
from autovi.run.state import State
from autovi.run.stopping import OWN_RATE, RATES, Progress


def fit(
    model: Callable,
    data: Any = None,
    *,
    rng_key: int | jax.Array = 0,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    objective: str | Objective = "elbo",
    num_particles: int | None = None,
    num_steps: int | None = None,
    max_steps: int = MAX_STEPS,
    optimizer: optax.GradientTransformation | None = None,
    num_draws: int = 1000,
    num_restarts: int = 1,
    batch_size: int | Mapping[str, int] | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    allow_nan: Collection[str] = (),
    progress_bar: bool = True,
) -> Fit:
    """Fits a variational posterior to a NumPyro model by maximizing the ELBO, E_q[log p(x, z) - log q(z)].

    Stochastic gradients of it are followed as in Kucukelbir et al. (2017), "Automatic Differentiation Variational
    Inference", with the estimator of each site as `plan` says.

    Args:
        model: a NumPyro model function.
        data: a dict of keyword arguments for the model, or a tuple of positional ones. Arrays, lists of numbers and
            what pandas, polars and xarray have become arrays, categories their codes, a data frame a matrix or, where
            the model takes it so, columns by name; other values are passed as they are.
        rng_key: an integer or a JAX key; the same key gives the same fit.
        guide: "auto" (a family for every site by rules), "mean_field", "low_rank" or "full_rank" (normals on the
            unconstrained scale), a NumPyro guide function, or an AutoGuide.
        families: site name or glob -> entry of `autovi.families.FAMILIES`, or a `Family`.
        estimators: site name or glob -> entry of `autovi.estimators.ESTIMATORS`, an `Estimator`, or a dict such as
            {"estimator": "score", "baseline": "moving_average"}. `infer={"autovi": {...}}` on a site says the same;
            these arguments win.
        objective: "elbo", "iwae" (the importance-weighted bound of all particles of a step), or an `Objective`.
        num_particles: draws per step; None: chosen.
        num_steps: how many steps; None: until the loss stands still, at most `max_steps`.
        max_steps: the bound when `num_steps` is None.
        optimizer: an Optax transformation, whose learning rate is its own; None: Adam, its learning rate lowered as
            the fit goes.
        num_draws: posterior draws in the ArviZ object.
        num_restarts: fits from different starting points; the one with the lowest final loss is returned.
        batch_size: elements of the subsampled plates per step, one number or by plate name; None: as the model says.
        coords: dim, or plate, -> labels of its elements; None: those of the data.
        dims: site, deterministic site or data array -> names of all its axes, as in `arviz.from_dict`; None: the
            plates.
        allow_nan: names of arguments in which the model handles NaN itself.
        progress_bar: show steps, ELBO and speed.

    Returns:
        A `Fit`. How it ended is in its `status` and `message`; faults of the run never raise.

    Raises:
        ValueError, TypeError: before any optimization, for data, names or choices that cannot be right; the message
            names the argument or the site, what was expected, and what to do.

    Example:
        >>> fit = autovi.fit(model, {"y": y})
        >>> print(fit.plan)
        >>> fit.summary()
    """
    started = time.perf_counter()
    check_count("num_steps", num_steps, optional=True)
    check_count("max_steps", max_steps)
    check_count("num_draws", num_draws)
    check_count("num_restarts", num_restarts)
    own_coords, own_dims = as_dicts(coords, dims)
    options = Options(
        guide, families, estimators, num_particles, batch_size, optimizer, as_objective(objective), allow_nan
    )
    engine, inputs = prepare(model, data, options)
    if own_coords or own_dims:
        Axes(engine.full.traced, inputs, own_coords, own_dims).check()
    arrays = jax.device_put(inputs.traced())
    rates = RATES if optimizer is None else OWN_RATE
    runs: list[_Run] = []
    for restart in range(num_restarts):
        progress = Progress(num_steps, max_steps, rates)
        try:
            key = _restart_key(seed_or_key(rng_key), restart)
            runs.append(_run(engine, inputs, arrays, key, progress, progress_bar))
        except ValueError:
            # No finite starting point: of the first run that is an error, of another that run's own bad luck.
            if not runs:
                raise
        if progress.status == "stopped":
            break
    best = _best(runs)
    return Fit(
        model=model,
        guide=engine.guide,
        engine=engine,
        inputs=inputs,
        state=best.state,
        progress=best.progress,
        rng_key=best.rng_key,
        num_draws=num_draws,
        seconds=time.perf_counter() - started,
        coords=own_coords,
        dims=own_dims,
    )


class _Run(NamedTuple):
    state: State
    progress: Progress
    rng_key: jax.Array


def _run(
    engine: Engine, inputs: Inputs, arrays: Any, rng_key: int | jax.Array, progress: Progress, progress_bar: bool
) -> _Run:
    run_start, chunk = engine.compile(arrays, rng_key)
    state, start, result_key = run_start(arrays, rng_key)
    check_start(engine.program, jax.tree.map(np.asarray, start), inputs)
    state = optimize(chunk, state, arrays, progress, progress_bar=progress_bar)
    check_end(engine, progress, state, inputs)
    return _Run(state, progress, result_key)


def _best(runs: list[_Run]) -> _Run:
    """The run with the lowest final loss that did not fail; it says so if Ctrl-C ended a later one."""
    best = min(runs, key=lambda run: (run.progress.status == "failed", run.progress.final_loss()))
    if runs[-1].progress.status == "stopped" and best is not runs[-1]:
        best.progress.status = "stopped"
        best.progress.message = f"{runs[-1].progress.message} of restart {len(runs)}; this is an earlier one: " + (
            best.progress.message
        )
    return best


def _restart_key(rng_key: int | jax.Array, restart: int) -> int | jax.Array:
    if restart == 0:
        return rng_key
    return jax.random.fold_in(as_key(rng_key), restart)


def plan(
    model: Callable,
    data: Any = None,
    *,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    num_particles: int | None = None,
    batch_size: int | Mapping[str, int] | None = None,
    allow_nan: Collection[str] = (),
) -> Plan:
    """The plan that `fit` would follow: for every site its family, estimator, baseline and why. Nothing is optimized.

    Arguments and errors are those of `fit`.

    Example:
        >>> print(autovi.plan(model, {"y": y}))
    """
    options = Options(guide, families, estimators, num_particles, batch_size, allow_nan=allow_nan)
    engine, _ = prepare(model, data, options)
    return engine.program.plan
