"""A fit to a file: arrays and JSON only, so that reading one can never run code."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from autovi.analysis.counted import partly_masked
from autovi.estimators import ESTIMATORS, Estimator
from autovi.families import FAMILIES, Family
from autovi.keys import is_key
from autovi.ladder.rungs import Rung
from autovi.model.columns import Columns, Header, taken_apart
from autovi.model.inputs import Inputs
from autovi.model.labels import Labels
from autovi.model.sites import Sites
from autovi.objectives import OBJECTIVES, Objective
from autovi.plan.plan import Plan
from autovi.process import computing
from autovi.result import storage
from autovi.result.without_data import NEEDED, described
from autovi.run.engine import Engine
from autovi.run.learning_rate import forgotten
from autovi.run.starts import agreement_of, modes_of
from autovi.run.stopping import Progress
from autovi.run.stored import stored
from autovi.versions import version_of

KIND = "fit"  # checkpoints are files of the same format
# What is kept as it is.
FIELDS = ("num_draws",)


def write_fit(fit: Any, path: str | os.PathLike[str], with_data: bool) -> None:
    """Writes a `Fit`: its state, losses, the plan and, where asked for, the data with their labels.

    Raises:
        ValueError: an argument of the model that is neither an array nor a JSON value; the message names it. Or the
            data are asked for, and not there.
    """
    if with_data and fit.absent:
        raise ValueError(f"with_data: this fit was loaded without its data; {NEEDED}")
    arrays, meta = contents(fit, with_data)
    storage.write(path, arrays, {**meta, "data": data_template(fit.inputs)})


@computing()
def contents(fit: Any, with_data: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file holds of a `Fit`: arrays, and all else but how the model's arguments are made of the arrays."""
    data, labels = fit.inputs.arrays, fit.inputs.labels
    # Without data: what new data need to be read as they were, and random keys, which say nothing of anybody.
    labels = labels if with_data else {n: Labels((), (), x.categories) for n, x in labels.items()}
    held = data if with_data else {n: x for n, x in data.items() if is_key(x)}
    label_arrays, label_dims = pack_labels(labels)
    arrays = {
        **_prefixed("state", stored(fit.state)),
        **_prefixed("data", held),
        **_prefixed("label", label_arrays),
        **_prefixed("coord", {dim: _storable(values) for dim, values in fit.coords.items()}),
        "losses": fit.losses,
        "rng_key": fit.rng_key,
    }
    meta = {
        "kind": KIND,
        "plan": fit.plan.to_dict(),
        "choices": choices_of(fit.plan),
        "progress": progress_fields(fit.progress),
        # What diagnostics took is of the process that asked for them.
        "seconds": {**asdict(fit.seconds), "diagnostics": 0.0},
        "objective": _instance(fit.engine.program.objective, OBJECTIVES),
        "optimizer": _optimizer(fit),
        "program": program_of(fit.engine),
        "model": model_of(fit.engine.full.sites),
        "lengths": {p.name: p.length for p in fit.engine.program.sites.subsampled.values()},
        "labels": label_dims,
        "absent": dict(fit.absent) or {n: described(x) for n, x in data.items() if n not in held},
        "masked": sorted(_masked(fit)),
        "concrete": fit.inputs.concrete,
        "dims": {name: list(axes) for name, axes in fit.dims.items()},
        "allow_bias": fit.options.allow_bias,
        "allow_nan": sorted(fit.inputs.allow_nan),
        "ladder": ladder_of(fit.engine),
        "restarts": None if fit.restarts is None else fit.restarts.saved(),
        **{field: getattr(fit, field) for field in FIELDS},
    }
    return arrays, meta


def _masked(fit: Any) -> Collection[str]:
    """The sites that are masked in part, which the data say."""
    known = fit.options.masked
    return partly_masked(fit.engine.program.traced, fit.inputs) if known is None else known


def progress_fields(progress: Progress) -> dict[str, Any]:
    """What is kept of it beside the losses; of a schedule that there was one."""
    fields = {n: v for n, v in vars(progress).items() if n != "losses"}
    return {
        **fields,
        "rungs": [asdict(rung) for rung in progress.rungs],
        "learning_rate": None if progress.learning_rate is None else "given",
    }


def progress_of(saved: Mapping[str, Any], losses: np.ndarray) -> Progress:
    """The inverse of what a file has of a `Progress`."""
    schedule = None if saved["learning_rate"] is None else forgotten
    found = {
        "rungs": tuple(Rung(**rung) for rung in saved.get("rungs", ())),
        "modes": modes_of(saved.get("modes")),
        "restarts": agreement_of(saved.get("restarts")),
    }
    return Progress(**{**saved, **found, "rates": tuple(saved["rates"]), "learning_rate": schedule, "losses": [losses]})


def _optimizer(fit: Any) -> str:
    """Whose memory the state holds."""
    if fit.state.optimizer is None:
        return "forgotten"
    return "autovi" if fit.engine.optimizer.transform is None else "given"


def _prefixed(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def model_of(sites: Sites) -> list[list[Any]]:
    """What of a model a file can be held against: name, distribution, full shape and role of every sample site."""
    return [[s.name, s.distribution, list(s.shape), s.observed] for s in sites.samples.values()]


def program_of(engine: Engine) -> dict[str, str]:
    """The digest of what model and guide compute, and the versions and settings that write a program as this one is
    written."""
    versions = {p: version_of(p) for p in ("jax", "numpyro", "autovi")}
    return {"digest": engine.fingerprint.program, **program_settings(), **versions}


def program_settings() -> dict[str, str]:
    """The settings of JAX that write the same program in another way."""
    return {s: str(getattr(jax.config, s)) for s in ("jax_enable_x64", "jax_default_prng_impl")}


def choices_of(plan: Plan) -> dict[str, Any]:
    """Family and estimator of every site, by name and settings."""
    blocks = [*plan.blocks, *plan.marginal.values()]
    return {
        site: {"family": _instance(b.family, FAMILIES), "estimator": _instance(b.estimator, ESTIMATORS)}
        for b in blocks
        for site in b.sites
    }


def ladder_of(engine: Engine) -> dict[str, Any]:
    """What the ladder added to the plan: maps before blocks, coordinates, the longest gradient."""
    program = engine.program
    return {
        "maps": any(b.map for b in program.plan.blocks),
        "directions": {b.name: b.directions for b in program.plan.blocks if b.directions},
        "noncentred": sorted(program.traced.noncentred),
        "longest": engine.optimizer.longest,
        "sites": {b.name: list(b.sites) for b in program.plan.blocks},
    }


def _instance(chosen: Family | Estimator | Objective | None, table: Mapping[str, type]) -> list[Any] | None:
    """Name and settings; of a class that is not autovi's own, or one with functions, no settings, since a file cannot
    bring it back."""
    if chosen is None:
        return None
    own = table.get(chosen.name) is type(chosen) and not any(_has_function(x) for x in vars(chosen).values())
    return [chosen.name, asdict(chosen) if own else None]


def _has_function(setting: Any) -> bool:
    return callable(setting) or (isinstance(setting, tuple) and any(map(_has_function, setting)))


def pack_labels(labels: Mapping[str, Labels]) -> tuple[dict[str, np.ndarray], dict[str, list[str | None]]]:
    """The labels of the data as arrays, "name/axis" -> coordinate values, and as names of axes."""
    arrays = {
        f"{name}/{axis}": _storable(values)
        for name, label in labels.items()
        for axis, values in enumerate(label.coords)
        if values is not None
    }
    arrays |= {
        f"{name}/categories": _storable(label.categories)
        for name, label in labels.items()
        if label.categories is not None
    }
    return arrays, {name: list(label.dims) for name, label in labels.items()}


def unpack_labels(arrays: Mapping[str, Any], dims: Mapping[str, Any]) -> dict[str, Labels]:
    """The inverse of `pack_labels`."""
    return {
        name: Labels(
            tuple(axes),
            tuple(arrays.get(f"{name}/{axis}") for axis in range(len(axes))),
            arrays.get(f"{name}/categories"),
        )
        for name, axes in dims.items()
    }


def _storable(values: Any) -> np.ndarray:
    array = np.asarray(values)
    # Tuples and dates with a zone are objects; ArviZ is given their text as well.
    return np.array([str(item) for item in array]) if array.dtype.kind == "O" else array


def data_template(inputs: Inputs) -> dict[str, Any]:
    """The structure of the model's arguments with a reference in place of each array."""
    static = dict(inputs.static)
    leaves = [_Leaf({"array": p} if p in inputs.arrays else {"value": _json(p, static[p])}) for p in inputs.paths]
    return _encode(jax.tree.unflatten(inputs.tree, leaves))


def _json(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    try:
        plain = json.loads(json.dumps(value))
    except (TypeError, ValueError):
        plain = None
    # JSON would turn other keys into strings, and the model would be called with something else.
    if plain is None or plain != value:
        raise ValueError(
            f"data: the model's argument {name!r} is a {type(value).__name__}, neither an array nor a JSON value, so "
            "that the fit cannot be saved; build it inside the model"
        )
    return plain


class _Leaf:
    def __init__(self, content: dict[str, Any]):
        self.content = content


def _encode(tree: Any) -> dict[str, Any]:
    if isinstance(tree, _Leaf):
        return tree.content
    if isinstance(tree, dict):
        # Pairs, because a key need not be a string.
        return {"dict": [[_json("(a key)", k), _encode(v)] for k, v in tree.items()]}
    if isinstance(tree, Columns):
        header, values = taken_apart(tree)
        return {"columns": [header.to_json(), [_encode(v) for v in values]]}
    if type(tree) not in (tuple, list):
        raise ValueError(
            f"data: an argument of the model is a {type(tree).__name__}, so that the fit cannot be saved; of the "
            "containers a file holds dicts, lists and tuples"
        )
    return {"tuple" if isinstance(tree, tuple) else "list": [_encode(v) for v in tree]}


def decode_data(template: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """The inverse of `data_template`: `(args, kwargs)`."""
    ((kind, content),) = template.items()
    match kind:
        case "array":
            return arrays[content]
        case "value":
            return content
        case "columns":
            return Columns(Header.from_json(content[0]), [decode_data(v, arrays) for v in content[1]])
        case "dict":
            return {k: decode_data(v, arrays) for k, v in content}
        case _:
            items = [decode_data(v, arrays) for v in content]
            return tuple(items) if kind == "tuple" else items
