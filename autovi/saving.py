"""A fit to a file: arrays and JSON only, so that reading one can never run code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from autovi import storage
from autovi.inputs import Inputs
from autovi.plan import Block, Plan


def write_fit(fit: Any, path: str | os.PathLike[str]) -> None:
    """Writes a `Fit`: parameters, data, losses and the plan.

    Raises:
        ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
    """
    arrays = {f"param/{k}": v for k, v in storage.flatten(fit.raw_params).items()}
    arrays |= {f"estimator/{k}": v for k, v in storage.flatten(fit.estimator_params).items()}
    arrays |= {f"data/{k}": np.asarray(v) for k, v in fit.inputs.arrays.items()}
    arrays["losses"] = fit.losses
    arrays["rng_key"] = np.asarray(jax.random.key_data(fit.rng_key))
    meta = {
        "plan": fit.plan.to_dict(),
        "choices": choices_of(fit.plan),
        "lengths": {p.name: p.length for p in fit.engine.program.sites.subsampled.values()},
        "data": data_template(fit.inputs),
        "rng_impl": str(jax.random.key_impl(fit.rng_key)),
        **{k: getattr(fit, k) for k in ("status", "message", "skipped_steps", "num_draws", "seconds")},
    }
    storage.write(path, arrays, meta)


def choices_of(plan: Plan) -> dict[str, Any]:
    """Family and estimator of every site, by name and settings."""
    return {site: _choice(b) for b in [*plan.blocks, *plan.marginal.values()] for site in b.sites}


def _choice(block: Block) -> dict[str, Any]:
    family = None if block.family is None else [block.family.name, asdict(block.family)]
    return {"family": family, "estimator": [block.estimator.name, asdict(block.estimator)]}


def data_template(inputs: Inputs) -> list[Any]:
    """The structure of the model's arguments with a reference in place of each array."""
    static = dict(inputs.static)
    for name, value in static.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"the fit cannot be saved: the model's argument {name!r} is a {type(value).__name__}, neither an array nor "
                "a JSON value; build it inside the model"
            ) from None
    leaves = [{"array": p} if p in inputs.arrays else {"value": static[p]} for p in inputs.paths]
    return _encode(jax.tree.unflatten(inputs.tree, [_Leaf(leaf) for leaf in leaves]))


class _Leaf:
    def __init__(self, content: dict[str, Any]):
        self.content = content


def _encode(tree: Any) -> Any:
    if isinstance(tree, _Leaf):
        return tree.content
    if isinstance(tree, dict):
        return {"dict": {k: _encode(v) for k, v in tree.items()}}
    return {"tuple" if isinstance(tree, tuple) else "list": [_encode(v) for v in tree]}


def decode_data(template: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """The inverse of `data_template`: `(args, kwargs)`."""
    (kind, content), *_ = template.items()
    match kind:
        case "array":
            return arrays[content]
        case "value":
            return content
        case "dict":
            return {k: decode_data(v, arrays) for k, v in content.items()}
        case _:
            items = [decode_data(v, arrays) for v in content]
            return tuple(items) if kind == "tuple" else items
