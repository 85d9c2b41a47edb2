"""`fit` and `plan`: the stages one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.errors import JaxRuntimeError

from autovi.checkpoints.journal import Checkpoint, Kept, as_checkpoint, in_folder
from autovi.keys import as_key, seed_or_key
from autovi.objectives import Objective
from autovi.plan.plan import Plan
from autovi.plan.requests import as_objective
from autovi.preparation import Options, prepare
from autovi.result.axes import Axes, as_dicts
from autovi.result.fit import Fit
from autovi.run.checks import check_count
from autovi.run.clock import Seconds
from autovi.run.engine import Engine
from autovi.run.faults import said
from autovi.run.learning_rate import rates_of
from autovi.run.loop import MAX_STEPS
from autovi.run.reporting import Report, check_callback
from autovi.run.running import Run, Watch, before_the_first_step
from autovi.run.starts import agreement
from autovi.run.stopping import Progress
from autovi.starting import Asked, first_fit, why_steps


def fit(
    model: Callable,
    data: Any = None,
    *,
    rng_key: int | jax.Array = 0,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    objective: str | Objective = "elbo",
    allow_bias: bool = False,
    num_particles: int | None = None,
    num_steps: int | None = None,
    max_steps: int = MAX_STEPS,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule | None = None,
    init: Mapping[str, Any] | Fit | str | None = None,
    num_draws: int = 1000,
    num_restarts: int = 1,
    batch_size: int | Mapping[str, int] | None = None,
    callback: Callable[[Report], Any] | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    allow_nan: Collection[str] = (),
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
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
        objective: "elbo", "iwae" (the importance-weighted bound of all particles of a step), "renyi", or an
            `Objective`.
        allow_bias: whether `estimators` may name biased ones; plan, `message`, `verdict` and ArviZ attributes then say
            where they are.
        num_particles: draws per step; None: chosen.
        num_steps: how many steps; None: until the loss stands still, at most `max_steps`.
        max_steps: the bound when `num_steps` is None.
        optimizer: an Optax transformation, whose learning rate is its own; None: Adam, its learning rate lowered as
            the fit goes.
        learning_rate: of that Adam: a number, its first one, or an Optax schedule, a function of the step; None: 0.05.
        init: where to start: a dict from site (or parameter site) to value; "prior", the best of ten draws from the
            prior; "median", the best of ten medians of the prior; or another `Fit`, whose parameters and posterior
            means are taken over where sites have the same names and shapes. None: around zero on the unconstrained
            scale. Sites that are not named start as with None.
        num_draws: posterior draws in the ArviZ object.
        num_restarts: fits from different starting points; the one with the lowest final loss is returned.
        batch_size: elements of the subsampled plates per step, one number or by plate name; None: as the model says.
        callback: called after every 100 steps with an object that has `step`, `losses`, `loss` and `params`; the fit
            ends where it returns True or raises. Of several restarts, True ends the one that is running.
        coords: dim, or plate, -> labels of its elements; None: those of the data.
        dims: site, deterministic site or data array -> names of all its axes, as in `arviz.from_dict`; None: the
            plates.
        allow_nan: names of arguments in which the model handles NaN itself.
        checkpoint: a folder, or a `Checkpoint` that also says how often: the fit is saved there as it goes, and a
            process that makes the same call with the same folder takes it up where it was, to the same numbers, bit for
            bit. SIGTERM then saves before the process ends. The folder of another fit is an error that says what
            differs.
        progress_bar: show compilation, steps, ELBO and speed.

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
    check_count("num_steps", num_steps, optional=True)
    check_count("max_steps", max_steps)
    check_count("num_draws", num_draws)
    check_count("num_restarts", num_restarts)
    check_callback(callback)
    rates, schedule = rates_of(learning_rate, optimizer)
    place = as_checkpoint(checkpoint)
    clock, key = Seconds(), seed_or_key(rng_key)
    options = Options(
        guide,
        families,
        estimators,
        num_particles,
        batch_size,
        optimizer,
        as_objective(objective),
        allow_bias,
        allow_nan,
    )
    own_coords, own_dims = as_dicts(coords, dims)
    with before_the_first_step(), clock.spent("trace"):
        engine, inputs = prepare(model, data, options)
        if own_coords or own_dims:
            Axes(engine.full.traced, inputs, own_coords, own_dims).check()

    def as_fit(engine: Engine, run: Run) -> Fit:
        return Fit(
            model=model,
            guide=engine.guide,
            engine=engine,
            inputs=inputs,
            state=run.state,
            progress=run.progress,
            rng_key=run.rng_key,
            num_draws=num_draws,
            seconds=clock,
            options=options,
            progress_bar=progress_bar,
            coords=own_coords,
            dims=own_dims,
        )

    asked = Asked(init, why_steps(options, num_steps, max_steps, learning_rate, callback))

    def run(restart: int, kept: Kept | None) -> Fit:
        own_key = key if restart == 0 else jax.random.fold_in(as_key(key), restart)
        progress = Progress(num_steps, max_steps, rates, schedule)
        watch = Watch(callback, progress_bar, clock, None if kept is None else kept.journal(restart))
        return first_fit(model, engine, inputs, asked, own_key, progress, watch, as_fit)

    decides = {
        "rng_key": key,
        "num_steps": num_steps,
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "objective": options.objective,
        "allow_bias": allow_bias,
        "init": init.params if isinstance(init, Fit) else init,
        "num_restarts": num_restarts,
        "callback": callback is not None,
    }
    with in_folder(place, engine, inputs, decides) as kept:
        return _best_of(lambda restart: run(restart, kept), num_restarts)


def _best_of(run: Callable[[int], Fit], num_restarts: int) -> Fit:
    """The fit with the lowest final loss that did not fail; it says so if Ctrl-C or an error of XLA ended the
    restarts."""
    runs: list[Fit] = []
    ended = ""
    for restart in range(num_restarts):
        try:
            runs.append(run(restart))
        except ValueError:
            # No finite starting point: of the first run that is an error, of another that run's own bad luck.
            if not runs:
                raise
        except KeyboardInterrupt:
            if not runs:
                raise
            ended = f"stopped by Ctrl-C before restart {restart + 1}"
        except JaxRuntimeError as error:
            if not runs:
                raise
            ended = f"stopped by an error of XLA in restart {restart + 1}: {said(error)}"
        if ended or runs[-1].progress.interrupted:
            break
    best = min(runs, key=lambda run: (run.progress.status == "failed", _loss_of(run)))
    if len(runs) > 1 and all(run.is_light for run in runs):
        best.progress.restarts = agreement([run.values for run in runs])
    if best is not runs[-1] and runs[-1].progress.interrupted:
        ended = f"{runs[-1].progress.message} of restart {len(runs)}"
    if ended:
        best.progress.status = "stopped"
        best.progress.message = f"{ended}; this is an earlier one: {best.progress.message}"
    return best


def _loss_of(fit: Fit) -> float:
    """What restarts are compared by: the loss at the end of the steps, or that of the draws where there were none."""
    return fit.progress.final_loss() if fit.losses.size else -fit.elbo


def plan(
    model: Callable,
    data: Any = None,
    *,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    objective: str | Objective = "elbo",
    allow_bias: bool = False,
    num_particles: int | None = None,
    batch_size: int | Mapping[str, int] | None = None,
    allow_nan: Collection[str] = (),
) -> Plan:
    """The plan that `fit` would follow: for every site its family, estimator, baseline and why. Nothing is optimized.

    Arguments and errors are those of `fit`.

    Example:
        >>> print(autovi.plan(model, {"y": y}))
    """
    options = Options(
        guide,
        families,
        estimators,
        num_particles,
        batch_size,
        objective=as_objective(objective),
        allow_bias=allow_bias,
        allow_nan=allow_nan,
    )
    engine, _ = prepare(model, data, options)
    return engine.program.plan
