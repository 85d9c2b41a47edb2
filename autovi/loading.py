"""A saved fit from its file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from autovi import storage
from autovi.estimators import ESTIMATORS
from autovi.families import FAMILIES
from autovi.fitting import Options, prepare
from autovi.inputs import bind
from autovi.result import Fit
from autovi.saving import decode_data


def load(
    path: str | os.PathLike[str],
    model: Callable,
    *,
    guide: Any = None,
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
) -> Fit:
    """Reads a fit that `Fit.save` wrote, for the same model function, which a file does not hold.

    Args:
        path: the file.
        model: the model that was fitted.
        guide: the guide function that was fitted, if one was.
        families, estimators: instances of the user's own classes, for sites that had them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign or from a newer version, or does not belong to this model.
    """
    arrays, meta = storage.read(path)
    data = {k.removeprefix("data/"): v for k, v in arrays.items() if k.startswith("data/")}
    args, kwargs = decode_data(meta["data"], data)
    options = _options(meta, guide, dict(families or {}), dict(estimators or {}), path)
    engine, inputs = prepare(model, bind(model, kwargs if kwargs or not args else args), options)
    raw = _subtree(arrays, "param/")
    raw = {"guide": raw.get("guide", {}), "param": raw.get("param", {})}
    _check_same(path, meta, engine.program.plan.to_dict(), raw, engine, inputs)
    return Fit(
        model=model,
        engine=engine,
        inputs=inputs,
        raw_params=raw,
        estimator_params=_subtree(arrays, "estimator/"),
        losses=np.asarray(arrays["losses"]),
        status=meta["status"],
        message=meta["message"],
        skipped_steps=meta["skipped_steps"],
        rng_key=jax.random.wrap_key_data(arrays["rng_key"], impl=meta["rng_impl"]),
        num_draws=meta["num_draws"],
        seconds=meta["seconds"],
    )


def _subtree(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return storage.unflatten({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def _options(meta: Mapping[str, Any], guide: Any, families: dict, estimators: dict, path: Any) -> Options:
    own = meta["plan"]["guide"] == "function"
    if own and guide is None:
        raise ValueError(f"{path}: this fit had a guide function, which a file does not hold; pass guide=")
    for site, choice in meta["choices"].items():
        if choice["family"] is not None and site not in families:
            families[site] = _instance(FAMILIES, choice["family"], site, "families", path)
        if site not in estimators:
            estimators[site] = _instance(ESTIMATORS, choice["estimator"], site, "estimators", path)
    name = guide if own else meta["plan"]["guide"]
    particles, lengths = meta["plan"]["num_particles"], meta["lengths"] or None
    return Options(name, families, estimators, particles, lengths)


def _instance(table: Mapping[str, Any], saved: list[Any], site: str, argument: str, path: Any) -> Any:
    name, settings = saved
    if name not in table:
        raise ValueError(
            f"{path}: site {site!r} had {name!r}, which is not in autovi; pass it as {argument}={{{site!r}: ...}}"
        )
    return table[name](**settings)


def _check_same(
    path: Any, meta: Mapping[str, Any], plan: Mapping[str, Any], raw: Any, engine: Any, inputs: Any
) -> None:
    saved = [(s["site"], s["shape"]) for s in meta["plan"]["sites"]]
    now = [(s["site"], s["shape"]) for s in plan["sites"]]
    expected = jax.eval_shape(engine.initial_params, inputs.traced())
    same = jax.tree.structure(expected) == jax.tree.structure(raw) and all(
        np.shape(a) == np.shape(b) for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(raw), strict=True)
    )
    if saved != now or not same:
        raise ValueError(f"{path}: this fit belongs to another model: it has sites {saved}, the model given {now}")
