"""Is what was given as optimizer an Optax transformation that a fit can use? What to write, where it is not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from autovi.model.digest import digest
from autovi.model.fingerprint import fingerprint

EXAMPLE = "optimizer=optax.{}(0.01)"


def check_optimizer(optimizer: Any) -> None:
    """Is this an Optax transformation?

    Raises:
        TypeError: it is none; the message says what it is and what to write.
    """
    if optimizer is None or isinstance(optimizer, optax.GradientTransformation):
        return
    said = next((text for kind in KINDS if (text := kind(optimizer))), None)
    raise TypeError(
        "optimizer: expected an optax.GradientTransformation, got "
        + (said or f"{type(optimizer).__name__}; write {EXAMPLE.format('adam')}")
    )


def optimizer_fingerprint(optimizer: optax.GradientTransformation) -> Any:
    """A hashable digest of what an optimizer does, so that `optax.adam(0.1)` made twice is the same.

    Raises:
        TypeError: one that needs more than gradients, state and parameters.
    """
    number = jnp.result_type(float)
    probe = {"a": jax.ShapeDtypeStruct((2,), number), "b": jax.ShapeDtypeStruct((), number)}
    try:
        return fingerprint([jax.make_jaxpr(lambda g, p: optimizer.update(g, optimizer.init(p), p))(probe, probe)]).key
    except TypeError as error:
        raise TypeError(
            f"optimizer: its update needs more than gradients, state and parameters ({error}); line searches and the "
            "like do not fit a stochastic loss"
        ) from error
    except (ValueError, KeyError):  # it looks the parameters up by name (optax.masked, optax.multi_transform)
        return digest(optimizer)


def _name(given: Any) -> str | None:
    if not isinstance(given, str):
        return None
    known = given if callable(getattr(optax, given.lower(), None)) else "adam"
    return f"the name {given!r}; write {EXAMPLE.format(known.lower())}"


def _number(given: Any) -> str | None:
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        return None
    rate = f"learning_rate={given} or optimizer=optax.adam({given})"
    return f"the number {given}; if that is the learning rate, write {rate}"


def _of_numpyro(given: Any) -> str | None:
    kind = type(given)
    if not kind.__module__.startswith("numpyro.optim"):
        return None
    known = kind.__name__.lower() if callable(getattr(optax, kind.__name__.lower(), None)) else "adam"
    return f"numpyro.optim.{kind.__name__}; write the one of Optax, {EXAMPLE.format(known)}"


def _not_called(given: Any) -> str | None:
    name = getattr(given, "__name__", "")
    if not name or getattr(optax, name, None) is not given:
        return None
    if "learning_rate" not in inspect.signature(getattr(optax, name)).parameters:
        return None
    return f"the function optax.{name}, which was not called; write {EXAMPLE.format(name)}"


def _schedule(given: Any) -> str | None:
    if not callable(given) or isinstance(given, type):
        return None
    try:
        rate = jax.eval_shape(given, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception:  # of whatever kind: no schedule
        return None
    if getattr(rate, "shape", None) != () or not jnp.issubdtype(rate.dtype, jnp.floating):
        return None
    return "a schedule of learning rates; write learning_rate=schedule or optimizer=optax.adam(schedule)"


KINDS: tuple[Callable[[Any], str | None], ...] = (_name, _number, _of_numpyro, _not_called, _schedule)
