"""`fit` and `plan`: the stages one after the other. The only file that imports them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from autovi.checks import check_end, check_start
from autovi.engine import Cache, Engine
from autovi.fingerprint import fingerprint
from autovi.guides import as_guide_function
from autovi.inputs import Inputs, bind
from autovi.optimize import MAX_STEPS, Carry, Optimizer, Progress, optimize
from autovi.plan import Plan
from autovi.planning import GUIDES, make_plan
from autovi.program import Program
from autovi.result import Fit
from autovi.sites import Sites, trace_sites
from autovi.structure import analyse_structure
from autovi.switching import find_jumps

_CACHE = Cache()


@dataclass(frozen=True)
class Options:
    """What a plan is made of besides model and data."""

    guide: Any = "auto"
    families: Mapping[str, Any] | None = None
    estimators: Mapping[str, Any] | None = None
    num_particles: int | None = None
    batch_size: int | Mapping[str, int] | None = None
    optimizer: optax.GradientTransformation | None = None


def fit(
    model: Callable,
    data: Any = None,
    *,
    rng_key: int | jax.Array = 0,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    num_particles: int | None = None,
    num_steps: int | None = None,
    max_steps: int = MAX_STEPS,
    optimizer: optax.GradientTransformation | None = None,
    num_draws: int = 1000,
    batch_size: int | Mapping[str, int] | None = None,
    progress_bar: bool = True,
) -> Fit:
    """Fits a variational posterior to a NumPyro model by maximizing the ELBO, E_q[log p(x, z) - log q(z)].

    Args:
        model: a NumPyro model function.
        data: a dict of keyword arguments for the model, or a tuple of positional ones. Arrays, lists of numbers, pandas
            and xarray objects become arrays; other values are passed as they are.
        rng_key: an integer or a JAX key; the same key gives the same fit.
        guide: "auto" (a family for every site by rules), "mean_field", "low_rank" or "full_rank" (normals on the
            unconstrained scale), a NumPyro guide function, or an AutoGuide.
        families: site name or glob -> entry of `autovi.families.FAMILIES`, or a `Family`.
        estimators: site name or glob -> entry of `autovi.estimators.ESTIMATORS`, an `Estimator`, or a dict such as
            {"estimator": "score", "baseline": "moving_average"}. `infer={"autovi": {...}}` on a site says the same;
            these arguments win.
        num_particles: draws per step; None: chosen.
        num_steps: how many steps; None: until the loss stands still, at most `max_steps`.
        max_steps: the bound when `num_steps` is None.
        optimizer: an Optax transformation; None: Adam, its learning rate lowered as the fit goes.
        num_draws: posterior draws in the ArviZ object.
        batch_size: elements of the subsampled plates per step, one number or by plate name; None: as the model says.
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
    _check_count("num_steps", num_steps, optional=True)
    _check_count("max_steps", max_steps)
    _check_count("num_draws", num_draws)
    options = Options(guide, families, estimators, num_particles, batch_size, optimizer)
    engine, inputs = prepare(model, data, options)
    arrays = jax.device_put(inputs.traced())
    key = as_key(rng_key)
    run_start, chunk = engine.compile(arrays, key)
    carry, start, result_key = run_start(arrays, key)
    check_start(engine.program.sites, jax.tree.map(np.asarray, start))
    progress = Progress(num_steps, max_steps)
    carry = optimize(
        chunk,
        carry,
        arrays,
        progress,
        progress_bar=progress_bar,
        adaptive=engine.optimizer.transform is None,
    )
    check_end(engine, progress, carry)
    return _result(model, engine, inputs, arrays, carry, progress, result_key, num_draws, time.perf_counter() - started)


def plan(
    model: Callable,
    data: Any = None,
    *,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    num_particles: int | None = None,
    batch_size: int | Mapping[str, int] | None = None,
) -> Plan:
    """The plan that `fit` would follow: for every site its family, estimator, baseline and why. Nothing is optimized.

    Arguments and errors are those of `fit`.

    Example:
        >>> print(autovi.plan(model, {"y": y}))
    """
    engine, _ = prepare(model, data, Options(guide, families, estimators, num_particles, batch_size))
    return engine.program.plan


def prepare(model: Callable, data: Any, options: Options) -> tuple[Engine, Inputs]:
    """Everything before the first step, nothing run: the engine (kept from an earlier fit of the same program) and the
    checked inputs."""
    inputs = data if isinstance(data, Inputs) else bind(model, data)
    if isinstance(options.guide, str) and options.guide not in GUIDES:
        raise ValueError(
            f"guide: unknown name {options.guide!r}; expected one of {list(GUIDES)}, a guide function or an AutoGuide"
        )
    sites, inputs = trace_sites(model, inputs)
    lengths = _lengths(sites, options.batch_size)
    if lengths:
        sites, inputs = trace_sites(model, inputs, lengths)
    if not sites.latents:
        raise ValueError("the model has no latent site: nothing to fit. Is every numpyro.sample given obs=?")
    guide = None if isinstance(options.guide, str) else as_guide_function(options.guide, inputs)
    guide_sites = None if guide is None else trace_sites(guide, inputs, lengths)[0]
    key = _cache_key(inputs, sites, guide_sites, options)
    return _CACHE.get(key, lambda: _make(model, guide, inputs, sites, guide_sites, options)), inputs


def _make(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    guide_sites: Sites | None,
    options: Options,
) -> Engine:
    structure = analyse_structure(model, guide, inputs, sites, guide_sites)
    jumps = find_jumps(model, guide, inputs, sites, guide_sites, structure)
    chosen = make_plan(
        sites,
        structure,
        guide=options.guide if guide is None else "function",
        guide_sites=guide_sites,
        families=options.families,
        estimators=options.estimators,
        num_particles=options.num_particles,
        jumps=jumps,
    )
    program = Program(model, guide, inputs, sites, guide_sites, chosen)
    full = program
    if sites.subsampled or (guide_sites is not None and guide_sites.subsampled):
        sizes = {p.name: p.size for p in sites.plates.values()}
        full_guide = None if guide is None else trace_sites(guide, inputs, sizes)[0]
        full = Program(model, guide, inputs, trace_sites(model, inputs, sizes)[0], full_guide, chosen)
    return Engine(program, full, structure, Optimizer(options.optimizer))


def _cache_key(inputs: Inputs, sites: Sites, guide_sites: Sites | None, options: Options) -> Any:
    """Equal keys mean the same compiled program. The fingerprints hold what the functions close over."""
    constants = tuple(np.asarray(a).tobytes() for a in inputs.arrays.values()) if inputs.concrete else ()
    asked = tuple(
        tuple(sorted((k, _hashable(v)) for k, v in (d or {}).items())) for d in (options.families, options.estimators)
    )
    batch = tuple(sorted(options.batch_size.items())) if isinstance(options.batch_size, Mapping) else options.batch_size
    return (
        inputs.signature(),
        constants,
        sites.fingerprint,
        None if guide_sites is None else guide_sites.fingerprint,
        options.guide if isinstance(options.guide, str) else None,
        asked,
        options.num_particles,
        batch,
        None if options.optimizer is None else optimizer_fingerprint(options.optimizer),
        bool(jax.config.read("jax_enable_x64")),
    )


def optimizer_fingerprint(optimizer: optax.GradientTransformation) -> str:
    """A digest of what an optimizer does, so that `optax.adam(0.1)` made twice is the same.

    Raises:
        TypeError: not an Optax transformation, or one that needs more than gradients, state and parameters.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer: expected an optax.GradientTransformation, got {type(optimizer).__name__}")
    probe = {"a": jax.ShapeDtypeStruct((2,), float), "b": jax.ShapeDtypeStruct((), float)}
    try:
        return fingerprint(jax.make_jaxpr(lambda g, p: optimizer.update(g, optimizer.init(p), p))(probe, probe))
    except TypeError as error:
        raise TypeError(
            f"optimizer: its update needs more than gradients, state and parameters ({error}); line searches and the "
            "like do not fit a stochastic loss"
        ) from error


def _hashable(value: Any) -> Any:
    return str(sorted(value.items())) if isinstance(value, Mapping) else str(value)


def _lengths(sites: Sites, batch_size: int | Mapping[str, int] | None) -> dict[str, int]:
    if batch_size is None:
        return {}
    if isinstance(batch_size, Mapping):
        unknown = sorted(set(batch_size) - set(sites.plates))
        if unknown:
            raise ValueError(f"batch_size: no plate is called {unknown}; the plates are {sorted(sites.plates)}")
        lengths = dict(batch_size)
    else:
        names = list(sites.subsampled) or (list(sites.plates) if len(sites.plates) == 1 else [])
        if not names:
            raise ValueError(
                "batch_size: which plate is to be subsampled? Say {plate: size}; the plates are "
                f"{sorted(sites.plates)}, none of which has a subsample_size"
            )
        lengths = dict.fromkeys(names, batch_size)
    for name, length in lengths.items():
        _check_count(f"batch_size[{name!r}]", length)
        if length > sites.plates[name].size:
            raise ValueError(
                f"batch_size: {length} is more than plate {name!r} has elements ({sites.plates[name].size})"
            )
    return {n: int(length) for n, length in lengths.items()}


def _check_count(name: str, value: Any, optional: bool = False) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1{' or None' if optional else ''}, got {value!r}")


def as_key(rng_key: int | jax.Array) -> int | jax.Array:
    """The seed as it is, or a typed JAX key from a typed key or an old-style key array."""
    if isinstance(rng_key, int | np.integer) and not isinstance(rng_key, bool):
        return int(rng_key)
    if isinstance(rng_key, jax.Array) and jax.dtypes.issubdtype(rng_key.dtype, jax.dtypes.prng_key):
        return rng_key
    if hasattr(rng_key, "dtype") and np.shape(rng_key) == (2,):
        return jax.random.wrap_key_data(rng_key)
    raise ValueError(f"rng_key: expected an integer or a jax key, got {type(rng_key).__name__}")


def _result(
    model: Callable,
    engine: Engine,
    inputs: Inputs,
    arrays: Any,
    carry: Carry,
    progress: Progress,
    rng_key: jax.Array,
    num_draws: int,
    seconds: float,
) -> Fit:
    return Fit(
        model=model,
        engine=engine,
        inputs=inputs,
        raw_params=carry.average,
        estimator_params=carry.estimator_params,
        losses=np.concatenate([*progress.losses, np.zeros(0, np.float32)]),
        status=progress.status,
        message=progress.message,
        skipped_steps=int(carry.skipped),
        rng_key=rng_key,
        num_draws=num_draws,
        seconds=seconds,
    )
