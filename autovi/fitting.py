"""`fit` and `plan`: the stages one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.errors import JaxRuntimeError

from autovi.checkpoints.journal import Checkpoint, as_checkpoint, in_folder
from autovi.keys import as_key, seed_or_key
from autovi.objectives import Objective
from autovi.plan.plan import Plan
from autovi.plan.requests import as_objective
from autovi.preparation import Options, prepare
from autovi.restarting import best_of
from autovi.result.fit import Fit
from autovi.run.checks import check_count
from autovi.run.clock import Seconds
from autovi.run.loop import MAX_STEPS
from autovi.run.reporting import Report
from autovi.run.running import Steps
from autovi.run.state import State
from autovi.run.together import alone, together
from autovi.starting import asked_for


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
        num_restarts: fits from different starting points, and of different modes where the search for modes finds
            several; the one with the lowest final loss is returned, all are in its `restarts`. They run side by side
            where that is faster, unless there is a callback or a checkpoint.
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
    check_count("num_restarts", num_restarts)
    place = as_checkpoint(checkpoint)
    asked = asked_for(
        model,
        guide=guide,
        families=families,
        estimators=estimators,
        objective=objective,
        allow_bias=allow_bias,
        num_particles=num_particles,
        num_steps=num_steps,
        max_steps=max_steps,
        optimizer=optimizer,
        learning_rate=learning_rate,
        init=init,
        num_draws=num_draws,
        batch_size=batch_size,
        callback=callback,
        coords=coords,
        dims=dims,
        allow_nan=allow_nan,
        progress_bar=progress_bar,
    )
    clock, key = Seconds(), seed_or_key(rng_key)
    engine, inputs = asked.prepared(data, clock)
    decides = {
        "rng_key": key,
        "num_steps": num_steps,
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "objective": asked.options.objective,
        "allow_bias": allow_bias,
        "init": init.params if isinstance(init, Fit) else init,
        "num_restarts": num_restarts,
        "callback": callback is not None,
    }
    with in_folder(place, engine, inputs, decides) as kept:
        # A callback is called as steps are made, and what is kept has the same bits whatever runs beside it.
        side_by_side = num_restarts > 1 and callback is None and kept is None

        def begun(restart: int) -> Generator[Steps, State, Fit]:
            own_key = key if restart == 0 else jax.random.fold_in(as_key(key), restart)
            journal = None if kept is None else kept.journal(restart)
            return asked.begun(engine, inputs, own_key, clock, journal, not side_by_side, restart)

        if side_by_side:
            return best_of(together([begun(restart) for restart in range(num_restarts)]))
        return best_of(_one_after_another(begun, num_restarts))


def fits(
    model: Callable, data: Sequence[Any], rng_keys: Sequence[int | jax.Array], **options: Any
) -> list[Fit | BaseException]:
    """A fit to each of several data sets, side by side where their shapes are the same.

    Each is what `fit(model, data[i], rng_key=rng_keys[i], **options)` gives but for rounding, with one compilation for
    all that share a program, and side by side where that is faster (see `run/lanes.py`).

    Args:
        model: as in `fit`.
        data: one data set for each fit.
        rng_keys: one key for each.
        options: those of `fit` but for `num_restarts`, `callback` and `checkpoint`.

    Returns:
        For each data set its `Fit`, or the error that its fit ended with: a ValueError or TypeError for data that
        cannot be right, a KeyboardInterrupt where Ctrl-C came before its steps.
    """
    asked = asked_for(model, **options)
    begun: list[Generator[Steps, State, Fit] | BaseException] = []
    for one, rng_key in zip(data, rng_keys, strict=True):
        clock = Seconds()
        try:
            engine, inputs = asked.prepared(one, clock)
            begun.append(asked.begun(engine, inputs, seed_or_key(rng_key), clock, alone=len(data) == 1))
        except Exception as error:
            begun.append(error)
    made = iter(together([fit for fit in begun if not isinstance(fit, BaseException)]))
    return [fit if isinstance(fit, BaseException) else next(made) for fit in begun]


def _one_after_another(
    begun: Callable[[int], Generator[Steps, State, Fit]], num_restarts: int
) -> list[Fit | BaseException]:
    """The restarts as `together` gives them, up to the one that ends them all."""
    runs: list[Fit | BaseException] = []
    for restart in range(num_restarts):
        try:
            run = alone(begun(restart))
        except (ValueError, KeyboardInterrupt, JaxRuntimeError) as error:
            runs.append(error)
            if not isinstance(error, ValueError) or restart == 0:
                break
            continue
        runs.append(run)
        if run.progress.interrupted:
            break
    return runs


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
