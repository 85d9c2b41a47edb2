"""Reference posteriors in folders that the user names.

A folder holds `models.py` with `MODELS[case] = (model, load_data)`, where `model(**load_data())` runs a NumPyro model,
and for each case a folder with

- `reference.json`: `parameters`, a dict from name to `shape`, `mean` and `sd` (nested lists of that shape), and,
  optionally, `heavy_tailed`, the names whose standard deviation says little;
- `reference_draws.npz`: name -> draws, `(draws, *shape)`.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "AUTOVI_REFERENCES"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a reference: moments of the shape of the parameter, draws with one more axis in front."""

    mean: np.ndarray
    sd: np.ndarray
    draws: np.ndarray


@dataclass(frozen=True)
class Reference:
    """What a posterior is compared with."""

    parameters: dict[str, Parameter]
    heavy_tailed: tuple[str, ...] = ()


def folders(named: Sequence[str]) -> list[Path]:
    """The folders named, else those of the environment variable (separated as in PATH); each must have a models.py."""
    found = [Path(f) for f in named or os.environ.get(VARIABLE, "").split(os.pathsep) if f]
    for folder in found:
        if not (folder / "models.py").is_file():
            raise ValueError(f"references: expected a folder with models.py and a folder for each case, got {folder}")
    return [folder.resolve() for folder in found]


def models_of(folder: Path) -> dict[str, tuple[Callable, Callable[[], dict[str, Any]]]]:
    """`MODELS` of the folder's models.py."""
    spec = importlib.util.spec_from_file_location(f"models_of_{folder.name}", folder / "models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MODELS


def cases_of(folder: Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """The cases of a folder that have a reference, of those that match one of the patterns."""
    names = sorted(path.parent.name for path in folder.glob("*/reference.json"))
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def load(folder: Path, case: str) -> Reference:
    """The reference of one case, in double precision."""
    text = json.loads((folder / case / "reference.json").read_text())
    with np.load(folder / case / "reference_draws.npz") as stored:
        draws = {name: stored[name].astype(float) for name in stored.files}
    parameters = {}
    for name, record in text["parameters"].items():
        shape = tuple(record["shape"])
        if name not in draws or draws[name].shape[1:] != shape:
            got = f"of shape {draws[name].shape}" if name in draws else "none"
            raise ValueError(f"{case}: expected reference draws of {name} of shape (draws,) + {shape}, got {got}")
        mean, sd = (np.asarray(record[key], float).reshape(shape) for key in ("mean", "sd"))
        parameters[name] = Parameter(mean, sd, draws[name])
    return Reference(parameters, tuple(text.get("heavy_tailed", ())))


def store(folder: Path, case: str, draws: dict[str, np.ndarray], about: dict[str, Any], kept: int = 2000) -> None:
    """Writes a reference: moments of all draws, at most `kept` of them evenly spaced, and what `about` says."""
    (folder / case).mkdir(parents=True, exist_ok=True)
    parameters = {}
    for name, values in draws.items():
        moments = {"mean": values.mean(axis=0).tolist(), "sd": values.std(axis=0, ddof=1).tolist()}
        parameters[name] = {"shape": list(values.shape[1:]), **moments}
    text = json.dumps({**about, "parameters": parameters}, indent=1)
    (folder / case / "reference.json").write_text(text + "\n")
    count = len(next(iter(draws.values())))
    chosen = np.linspace(0, count - 1, min(kept, count)).round().astype(int)
    thinned = {name: values[chosen].astype(np.float32) for name, values in draws.items()}
    np.savez_compressed(folder / case / "reference_draws.npz", **thinned)
