"""A saved fit from its file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
import optax

from autovi.estimators import ESTIMATORS
from autovi.families import FAMILIES
from autovi.model.inputs import Inputs, bind
from autovi.model.new_data import bind_like
from autovi.model.places import cause_of
from autovi.objectives import OBJECTIVES, Objective
from autovi.plan.choices import Choice
from autovi.plan.mapped import with_maps, with_order
from autovi.plan.plan import Plan
from autovi.preparation import Options, prepare
from autovi.process import computing
from autovi.result import storage
from autovi.result.fit import Fit
from autovi.result.paths import checked_path
from autovi.result.restarts import restored as restored_restarts
from autovi.result.saving import (
    FIELDS,
    KIND,
    decode_data,
    model_of,
    program_of,
    program_settings,
    progress_of,
    unpack_labels,
)
from autovi.result.without_data import absent, described, is_absent, stand_in
from autovi.run.clock import Seconds
from autovi.run.engine import Engine
from autovi.run.stored import restored


@computing()
def load(
    path: str | os.PathLike[str],
    model: Callable,
    *,
    data: Any = None,
    guide: Any = None,
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Fit:
    """Reads a fit that `Fit.save` wrote, for the same model function, which a file does not hold.

    That it is the same is tested by its sites (names, distributions, shapes) and, if autovi, NumPyro and JAX are of the
    versions that wrote the file, by a digest of all that it computes.

    Args:
        path: the file.
        model: the model that was fitted.
        data: what it was fitted to, as it was given to `fit`, where the file does not hold it. Without it there are
            `params`, draws of q (`sample`; of sites that are summed out there are none), and `predict` for new data.
        guide: the guide function or AutoGuide that was fitted, if one was.
        families, estimators: instances of the user's own classes, for sites that had them, by name or glob.
        objective: an instance of the user's own class, if the fit had one.
        optimizer: the Optax transformation, if the fit had one. It is not needed to look at the fit: what it remembers
            is left out without it.

    Raises:
        FileNotFoundError: there is no such file. IsADirectoryError: the path is a folder.
        ValueError: the file is truncated, foreign or from a newer version, or does not belong to this model; the
            message has the path.

    Example:
        >>> fit.save("posterior.autovi")
        >>> again = autovi.load("posterior.autovi", model, data={"y": y})
    """
    name = checked_path(path)
    arrays, meta = storage.read(name)
    if meta.get("kind") != KIND:
        raise ValueError(
            f"path {name!r}: autovi wrote the file, but it is no fit; give the path of one from `fit.save`"
        )
    try:
        arguments = decode_data(meta["data"], data_of(arrays, meta))
        asked = (guide, families or {}, estimators or {}, objective, optimizer)
        return restored_fit(arrays, meta, model, arguments, *asked, data=data)
    except (ValueError, TypeError) as error:
        raise ValueError(f"path {name!r}: {error}") from cause_of(error)


def restored_fit(
    arrays: Mapping[str, Any],
    meta: Mapping[str, Any],
    model: Callable,
    arguments: tuple[tuple, dict[str, Any]],
    guide: Any,
    families: Mapping[str, Any],
    estimators: Mapping[str, Any],
    objective: Objective | None,
    optimizer: optax.GradientTransformation | None,
    data: Any = None,
) -> Fit:
    """The fit of these `saving.contents`; `arguments` are the model's, with shapes (`ShapeDtypeStruct`) in the place of
    data that are not there, and all others are as for `load`.

    Raises:
        ValueError: the fit does not belong to this model, or these data are not those of the fit.
    """
    options = replace(_options(meta, guide, families, estimators, objective), optimizer=optimizer)
    given = _given(model, arguments, options, unpack_labels(under("label", arrays), meta["labels"]))
    lost = meta["absent"]
    if data is not None:
        given, lost = _with_data(model, data, given, lost), {}
    if lost:
        if meta["concrete"]:
            raise ValueError("data: the model computes shapes from their values; give them by data=")
        options = replace(options, masked=tuple(meta["masked"]))
    if options.optimizer is not None and meta["optimizer"] == "autovi":
        raise ValueError("optimizer: this fit had autovi's own; leave out optimizer=")
    _warn_of_precision(meta)
    engine, inputs = _prepared(model, given, options)
    inputs = replace(inputs, labels=given.labels)
    inputs = replace(inputs, arrays=inputs.arrays | {n: absent(x) for n, x in lost.items()})
    ladder = meta.get("ladder", {})
    if ladder.get("maps"):
        engine = engine.under(
            with_maps(with_order(engine.program.plan, ladder["sites"]), ladder.get("directions", {})),
            replace(engine.optimizer, longest=ladder["longest"]),
        )
    saved = _saved_plan(engine.program.plan, meta["plan"])
    _check_same(meta, saved, engine)
    like = jax.eval_shape(engine.initial_state, inputs.traced(), jax.random.key(0))
    with_memory = meta["optimizer"] == ("autovi" if options.optimizer is None else "given")
    state = restored(like, engine.program, under("state", arrays), with_memory)
    _check_program(meta, engine)  # last, as what was found before says more
    return Fit(
        model=model,
        guide=engine.guide,
        engine=engine,
        inputs=inputs,
        state=state,
        progress=progress_of(meta["progress"], arrays["losses"]),
        seconds=Seconds(**meta["seconds"]),
        options=options,
        rng_key=arrays["rng_key"],
        saved_plan=saved,
        absent=lost,
        coords=under("coord", arrays),
        dims=meta.get("dims", {}),
        restarts=restored_restarts(meta.get("restarts")),
        **{field: meta[field] for field in FIELDS},
    )


def _warn_of_precision(meta: Mapping[str, Any]) -> None:
    saved, now = meta["program"]["jax_enable_x64"], program_settings()["jax_enable_x64"]
    if saved != now:
        rounded = "its numbers are rounded to 32 bits, and " if saved == "True" else ""
        warnings.warn(
            f"this fit was made with jax_enable_x64={saved}, which is {now} here: {rounded}the draws of a key are "
            "others; set it as it was to have the same",
            UserWarning,
            stacklevel=5,
        )


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays whose names begin with `prefix/`, without it."""
    return {n.removeprefix(f"{prefix}/"): v for n, v in arrays.items() if n.startswith(f"{prefix}/")}


def data_of(arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments that are arrays, by path, those that the file does not hold as their shapes."""
    return under("data", arrays) | {n: absent(x) for n, x in meta["absent"].items()}


@contextmanager
def _of_this_model() -> Iterator[None]:
    """What is wrong with the model inside is that the file belongs to another one."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"model: the file belongs to another model than the one given: {error}") from cause_of(error)


def _given(
    model: Callable, arguments: tuple[tuple, dict[str, Any]], options: Options, labels: Mapping[str, Any]
) -> Inputs:
    """The model's arguments, with zeros in the place of those that are not there."""
    args, kwargs = jax.tree.map(stand_in, arguments, is_leaf=is_absent)
    with _of_this_model():
        return replace(bind(model, kwargs if kwargs or not args else args, options.allow_nan), labels=labels)


def _with_data(model: Callable, data: Any, given: Inputs, lost: Mapping[str, Any]) -> Inputs:
    """The inputs that a user's data are, which were those of the fit."""
    if not lost:
        raise ValueError("data: the file holds them; leave out data=")
    bound = bind_like(model, data, given, "data")
    names = [sorted(inputs.paths) for inputs in (bound, given)]
    if names[0] != names[1]:
        raise ValueError(f"data: they are not those of the fit: expected {names[1]}, got {names[0]}")
    for name, said in lost.items():
        if described(bound.arrays.get(name, np.zeros(0))) != said:
            raise ValueError(f"data: they are not those of the fit: {name!r} is another")
    return bound


def _prepared(model: Callable, given: Inputs, options: Options) -> tuple[Engine, Inputs]:
    with _of_this_model():
        return prepare(model, given, options)


def _options(
    meta: Mapping[str, Any],
    guide: Any,
    families: Mapping[str, Any],
    estimators: Mapping[str, Any],
    objective: Objective | None,
) -> Options:
    """The options that give the saved plan again: every choice of it asked for by name."""
    name = meta["plan"]["guide"]
    if name == "function" and guide is None:
        raise ValueError("guide: this fit had a guide function, which a file does not hold; pass guide=")
    if name != "function" and guide is not None:
        raise ValueError(f"guide: this fit had {name!r}, which the file holds; leave out guide=")
    choices = meta["choices"].items()
    return Options(
        guide=guide if name == "function" else name,
        families=_instances({s: c["family"] for s, c in choices}, families, FAMILIES, "families"),
        estimators=_instances({s: c["estimator"] for s, c in choices}, estimators, ESTIMATORS, "estimators"),
        num_particles=meta["plan"]["num_particles"],
        batch_size=meta["lengths"] or None,
        objective=_objective(meta["objective"], objective),
        allow_bias=meta.get("allow_bias", False),
        allow_nan=meta.get("allow_nan", ()),
        noncentred=tuple(meta.get("ladder", {}).get("noncentred", ())),
    )


def _objective(saved: list[Any], given: Objective | None) -> Objective:
    name, settings = saved
    if settings is not None and given is not None:
        raise ValueError(f"objective: this fit had {name!r}, which the file holds; leave out objective=")
    if settings is None and given is None:
        raise ValueError(f"objective: this fit had {name!r}, a class that is not autovi's own; pass objective=")
    return OBJECTIVES[name](**settings) if given is None else given


def _instances(
    saved: Mapping[str, Any], given: Mapping[str, Any], table: Mapping[str, Any], argument: str
) -> dict[str, Any]:
    instances = dict(given)
    for site, choice in saved.items():
        if choice is None or any(site == pattern or fnmatchcase(site, pattern) for pattern in given):
            continue
        name, settings = choice
        if settings is None or name not in table:
            raise ValueError(
                f"site {site!r}: it had {name!r}, of a class or with a function that a file cannot hold; pass an "
                f"instance as {argument}={{{site!r}: ...}}"
            )
        instances[site] = table[name](**{k: _as_set(x) for k, x in settings.items()})
    return instances


def _as_set(setting: Any) -> Any:
    """A setting as it was before it was written: JSON has lists in the place of tuples."""
    return tuple(map(_as_set, setting)) if isinstance(setting, list) else setting


def _saved_plan(plan: Plan, saved: Mapping[str, Any]) -> Plan:
    """The plan with the sentences of the fit, and not "asked for" at every site."""
    rows = tuple(Choice(**{**row, "shape": tuple(row["shape"])}) for row in saved["sites"])
    return replace(plan, choices=rows, notes=tuple(saved["notes"]))


def _check_same(meta: Mapping[str, Any], saved: Plan, engine: Engine) -> None:
    now = model_of(engine.full.sites)
    different = [pair for pair in zip(meta["model"], now, strict=False) if pair[0] != pair[1]]
    for theirs, ours in different[:1]:
        raise ValueError(
            f"model: the file belongs to another model, which has the site {_told(theirs)} where this has {_told(ours)}"
        )
    if len(meta["model"]) != len(now):
        names = [site[0] for site in now], [site[0] for site in meta["model"]]
        raise ValueError(f"model: the file belongs to another model: expected the sites {names[0]}, got {names[1]}")
    for old, new in zip(saved.choices, engine.program.plan.choices, strict=True):
        if replace(old, why="") != replace(new, why=""):
            raise ValueError(
                f"site {old.site!r}: it was fitted with family {old.family!r} and estimator {old.estimator!r}, got "
                f"{new.family!r} and {new.estimator!r}"
            )


def _check_program(meta: Mapping[str, Any], engine: Engine) -> None:
    program = program_of(engine)
    # Other versions may write the same program in another way.
    comparable = all(meta["program"][p] == program[p] for p in program if p != "digest")
    if comparable and meta["program"]["digest"] != program["digest"]:
        raise ValueError(
            "model: the file belongs to another model: its sites are the same, but what it computes is not (a "
            "constant, a formula, or a value that it reads besides its arguments)"
        )


def _told(site: list[Any]) -> str:
    name, distribution, shape, observed = site
    return f"{name!r} ({'observed ' if observed else ''}{distribution} of shape {tuple(shape)})"
