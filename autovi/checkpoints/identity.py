"""Which fit a checkpoint belongs to: everything that decides its steps, and the first difference in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import jax

from autovi.model.inputs import Inputs
from autovi.result.saving import choices_of, program_of
from autovi.result.without_data import digest_of
from autovi.run.engine import Engine

Identity = dict[str, str]  # what, as a sentence names it -> a digest, or the value itself where it is short


def identity_of(engine: Engine, inputs: Inputs, asked: Mapping[str, Any]) -> Identity:
    """What decides the steps of a fit: model, data, plan, versions, precision, device, and what was `asked`."""
    program = program_of(engine)
    versions = {f"the version of {p}": program[p] for p in ("autovi", "jax", "numpyro")}
    settings = {s: program[s] for s in ("jax_enable_x64", "jax_default_prng_impl")}
    device = jax.devices()[0]
    return {
        **versions,
        **settings,
        "the device": f"{device.platform} {device.device_kind}",
        "the model (what it computes, or a value that it reads besides its arguments)": program["digest"],
        **{f"data: {name}": digest_of(array) for name, array in inputs.arrays.items()},
        **{f"data: {name}": said(value) for name, value in inputs.static},
        "the plan": said(choices_of(engine.program.plan)),
        "num_particles": str(engine.num_particles),
        **{name: said(value) for name, value in asked.items()},
    }


def difference(kept: Mapping[str, str], now: Identity) -> str:
    """What differs first, in words; empty where nothing does."""
    for name in (*now, *(n for n in kept if n not in now)):
        if kept.get(name) != now.get(name):
            pair = [_short(identity.get(name)) for identity in (kept, now)]
            told = "" if None in pair else f" (it was {pair[0]}, and is {pair[1]})"
            return f"{name}{told}"
    return ""


def _short(value: str | None) -> str | None:
    """A value as it is told; None of a digest, which says nothing."""
    if value is None:
        return "not there"
    return None if len(value) > 60 else value


def said(value: Any) -> str:
    """A value as text that is the same in each process: arrays by their digest, functions by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {digest_of(jax.random.key_data(value))}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {said(v)}" for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))) + "}"
    if isinstance(value, tuple | list | set | frozenset):
        parts = [said(v) for v in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if is_dataclass(value) and not isinstance(value, type):
        own = {f: getattr(value, f) for f in asdict(value)}
        return f"{type(value).__name__}({said(own)})"
    if hasattr(value, "__array__"):
        return digest_of(value)
    return getattr(value, "__qualname__", type(value).__qualname__)
