"""A saved fit from its file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from autovi.estimators import ESTIMATORS
from autovi.families import FAMILIES
from autovi.model.inputs import Inputs, bind
from autovi.plan.plan import Choice, Plan
from autovi.preparation import Options, prepare
from autovi.result import storage
from autovi.result.fit import Fit
from autovi.result.saving import FIELDS, KIND, decode_data, model_of, named_leaves, unpack_labels
from autovi.run.engine import Engine


def load(
    path: str | os.PathLike[str],
    model: Callable,
    *,
    guide: Any = None,
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
) -> Fit:
    """Reads a fit that `Fit.save` wrote, for the same model function, which a file does not hold.

    That it is the same is tested by its sites: names, distributions, shapes. What else a model computes is not known to
    the file.

    Args:
        path: the file.
        model: the model that was fitted.
        guide: the guide function or AutoGuide that was fitted, if one was.
        families, estimators: instances of the user's own classes, for sites that had them, by name or glob.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign or from a newer version, or does not belong to this model; the
            message has the path.

    Example:
        >>> fit.save("posterior.autovi")
        >>> again = autovi.load("posterior.autovi", model)
    """
    name = os.fspath(path)
    arrays, meta = storage.read(name)
    if meta.get("kind") != KIND:
        raise ValueError(f"{name!r} was written by autovi, but is no fit; give the path of a file from `fit.save`.")
    try:
        return _restore(arrays, meta, model, guide, families or {}, estimators or {})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name!r}: {error}") from error


def _restore(
    arrays: Mapping[str, Any],
    meta: Mapping[str, Any],
    model: Callable,
    guide: Any,
    families: Mapping[str, Any],
    estimators: Mapping[str, Any],
) -> Fit:
    engine, inputs = _prepared(arrays, meta, model, _options(meta, guide, families, estimators))
    saved = _saved_plan(engine.program.plan, meta["plan"])
    _check_same(meta, saved, engine)
    own = jax.eval_shape(lambda: engine.estimator_params())
    return Fit(
        model=model,
        guide=engine.guide,
        engine=engine,
        inputs=replace(inputs, labels=unpack_labels(_under("label", arrays), meta["labels"])),
        raw_params=_filled(jax.eval_shape(engine.initial_params, inputs.traced()), _under("param", arrays)),
        estimator_params=_filled(own, _under("estimator", arrays)),
        losses=arrays["losses"],
        rng_key=arrays["rng_key"],
        saved_plan=saved,
        **{field: meta[field] for field in FIELDS},
    )


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix(f"{prefix}/"): v for n, v in arrays.items() if n.startswith(f"{prefix}/")}


def _prepared(
    arrays: Mapping[str, Any], meta: Mapping[str, Any], model: Callable, options: Options
) -> tuple[Engine, Inputs]:
    args, kwargs = decode_data(meta["data"], _under("data", arrays))
    try:
        return prepare(model, bind(model, kwargs if kwargs or not args else args), options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"this fit does not belong to the model given: {error}") from error


def _options(
    meta: Mapping[str, Any], guide: Any, families: Mapping[str, Any], estimators: Mapping[str, Any]
) -> Options:
    """The options that give the saved plan again: every choice of it asked for by name."""
    name = meta["plan"]["guide"]
    if name == "function" and guide is None:
        raise ValueError("this fit had a guide function, which a file does not hold; pass guide=")
    if name != "function" and guide is not None:
        raise ValueError(f"this fit had guide={name!r}, which the file holds; leave out guide=")
    choices = meta["choices"].items()
    return Options(
        guide=guide if name == "function" else name,
        families=_instances({s: c["family"] for s, c in choices}, families, FAMILIES, "families"),
        estimators=_instances({s: c["estimator"] for s, c in choices}, estimators, ESTIMATORS, "estimators"),
        num_particles=meta["plan"]["num_particles"],
        batch_size=meta["lengths"] or None,
    )


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
                f"site {site!r} had {name!r}, a class that is not autovi's own; pass an instance as "
                f"{argument}={{{site!r}: ...}}"
            )
        instances[site] = table[name](**settings)
    return instances


def _saved_plan(plan: Plan, saved: Mapping[str, Any]) -> Plan:
    """The plan with the sentences of the fit, and not "asked for" at every site."""
    rows = tuple(Choice(**{**row, "shape": tuple(row["shape"])}) for row in saved["sites"])
    return replace(plan, choices=rows, notes=tuple(saved["notes"]))


def _check_same(meta: Mapping[str, Any], saved: Plan, engine: Engine) -> None:
    now = model_of(engine.full.sites)
    different = [pair for pair in zip(meta["model"], now, strict=False) if pair[0] != pair[1]]
    for theirs, ours in different[:1]:
        raise ValueError(
            f"this fit belongs to another model, which has the site {_told(theirs)} where this has {_told(ours)}"
        )
    if len(meta["model"]) != len(now):
        names = [site[0] for site in now], [site[0] for site in meta["model"]]
        raise ValueError(f"this fit belongs to another model: expected the sites {names[0]}, got {names[1]}")
    for old, new in zip(saved.choices, engine.program.plan.choices, strict=True):
        if replace(old, why="") != replace(new, why=""):
            raise ValueError(
                f"site {old.site!r} was fitted with family {old.family!r} and estimator {old.estimator!r}, got "
                f"{new.family!r} and {new.estimator!r}"
            )


def _told(site: list[Any]) -> str:
    name, distribution, shape, observed = site
    return f"{name!r} ({'observed ' if observed else ''}{distribution} of shape {tuple(shape)})"


def _filled(template: Any, arrays: Mapping[str, Any]) -> Any:
    """A tree of the template's structure and dtypes with the saved leaves in it."""
    expected = named_leaves(template)
    for name, leaf in expected.items():
        if name not in arrays or np.shape(arrays[name]) != leaf.shape:
            got = np.shape(arrays[name]) if name in arrays else "nothing"
            raise ValueError(f"this fit belongs to another model: parameter {name} has shape {leaf.shape}, got {got}")
    if more := sorted(set(arrays) - set(expected)):
        raise ValueError(f"this fit belongs to another model, which has the parameters {more}")
    leaves = [np.asarray(arrays[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
