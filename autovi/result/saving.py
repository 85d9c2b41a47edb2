"""A fit to a file: arrays and JSON only, so that reading one can never run code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from autovi.estimators import ESTIMATORS, Estimator
from autovi.families import FAMILIES, Family
from autovi.model.inputs import Inputs
from autovi.model.labels import Labels
from autovi.model.sites import Sites
from autovi.objectives import OBJECTIVES, Objective
from autovi.plan.plan import Plan
from autovi.process import computing
from autovi.result import storage
from autovi.run.engine import Engine
from autovi.run.stored import stored

KIND = "fit"  # checkpoints are files of the same format
# What is kept as it is.
FIELDS = ("num_draws", "seconds")


def write_fit(fit: Any, path: str | os.PathLike[str]) -> None:
    """Writes a `Fit`: its state, data with their labels, losses and the plan.

    Raises:
        ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
    """
    arrays, meta = contents(fit)
    storage.write(path, arrays, {**meta, "data": data_template(fit.inputs)})


@computing()
def contents(fit: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file holds of a `Fit`: arrays, and all else but how the model's arguments are made of the arrays."""
    label_arrays, label_dims = pack_labels(fit.inputs.labels)
    arrays = {
        **_prefixed("state", stored(fit.state)),
        **_prefixed("data", fit.inputs.arrays),
        **_prefixed("label", label_arrays),
        "losses": fit.losses,
        "rng_key": fit.rng_key,
    }
    meta = {
        "kind": KIND,
        "plan": fit.plan.to_dict(),
        "choices": choices_of(fit.plan),
        "progress": {n: v for n, v in vars(fit.progress).items() if n != "losses"},
        "objective": _instance(fit.engine.program.objective, OBJECTIVES),
        "optimizer": _optimizer(fit),
        "program": program_of(fit.engine),
        "model": model_of(fit.engine.full.sites),
        "lengths": {p.name: p.length for p in fit.engine.program.sites.subsampled.values()},
        "labels": label_dims,
        **{field: getattr(fit, field) for field in FIELDS},
    }
    return arrays, meta


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
    versions = {p: version(p) for p in ("jax", "numpyro", "autovi")}
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


def _instance(chosen: Family | Estimator | Objective | None, table: Mapping[str, type]) -> list[Any] | None:
    """Name and settings; of a class that is not autovi's own no settings, since a file cannot bring it back."""
    if chosen is None:
        return None
    own = table.get(chosen.name) is type(chosen)
    return [chosen.name, asdict(chosen) if own else None]


def pack_labels(labels: Mapping[str, Labels]) -> tuple[dict[str, np.ndarray], dict[str, list[str | None]]]:
    """The labels of the data as arrays, "name/axis" -> coordinate values, and as names of axes."""
    arrays = {
        f"{name}/{axis}": _storable(values)
        for name, label in labels.items()
        for axis, values in enumerate(label.coords)
        if values is not None
    }
    return arrays, {name: list(label.dims) for name, label in labels.items()}


def unpack_labels(arrays: Mapping[str, Any], dims: Mapping[str, Any]) -> dict[str, Labels]:
    """The inverse of `pack_labels`."""
    return {
        name: Labels(tuple(axes), tuple(arrays.get(f"{name}/{axis}") for axis in range(len(axes))))
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
            f"the fit cannot be saved: the model's argument {name!r} is a {type(value).__name__}, neither an array nor "
            "a JSON value; build it inside the model"
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
    if type(tree) not in (tuple, list):
        raise ValueError(
            f"the fit cannot be saved: an argument of the model is a {type(tree).__name__}; of the containers a file "
            "holds dicts, lists and tuples"
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
        case "dict":
            return {k: decode_data(v, arrays) for k, v in content}
        case _:
            items = [decode_data(v, arrays) for v in content]
            return tuple(items) if kind == "tuple" else items
