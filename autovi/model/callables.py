"""Is what stands for a model or a guide a plain function of NumPyro's? What to pass, where it is not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
from numpyro.infer.autoguide import AutoGuide

from autovi.model.libraries import is_of_jax


def check_function(function: Any, what: str) -> None:
    """Is this a function whose sites can be seen when it is called?

    Args:
        function: what the user gave.
        what: "model", "guide" or "fn", which the message names.

    Raises:
        TypeError: it is none; the message says what it is and what to pass.
    """
    for part in _parts(function):
        if said := next((text for kind in KINDS if (text := kind(part, what))), None):
            raise TypeError(f"{what}: expected a plain NumPyro function, got {said}")
    if not callable(function):
        kind = "" if what == "fn" else f"{what} "
        raise TypeError(f"{what}: expected a NumPyro {kind}function, got {type(function).__name__}")


def _parts(function: Any) -> list[Any]:
    """A function and what it wraps, as `functools.partial` and NumPyro's handlers do."""
    parts = [function]
    while True:
        last = parts[-1]
        inner = last.func if isinstance(last, functools.partial) else None
        if inner is None and _module(type(last)).startswith("numpyro.handlers"):
            inner = getattr(last, "fn", None)
        if inner is None:
            return parts
        parts.append(inner)


def _transformed(function: Any, what: str) -> str | None:
    """A function that JAX made of the user's: jax.jit and the like."""
    kind = type(function)
    if isinstance(function, FunctionType):
        if not (makers := _makers(function)):
            return None
        name = next((made for made in makers if hasattr(jax, made)), makers[-1])
    elif is_of_jax(kind) and not isinstance(function, functools.partial):  # jax.tree_util.Partial is one
        name = {"PjitFunction": "jit"}.get(kind.__name__, kind.__name__)
    else:
        return None
    plain = getattr(function, "__name__", None)
    named = f"`{plain}` itself, " if isinstance(plain, str) else ""
    remedy = {"jit": "autovi compiles it", "vmap": "numpyro.plate is what makes elements"}.get(name)
    return (
        f"one under jax.{name}, in which its sites cannot be seen; pass the plain function, {named}without jax.{name}"
        + (f" ({remedy})" if remedy else "")
    )


def _makers(function: Any) -> list[str]:
    """The functions of JAX that wrapped this one, the outermost first. A context of JAX's transforms nothing."""
    # JAX gives its wrappers the name and module of what they wrap; the namespace in which they were made stays JAX's.
    if not isinstance(function, FunctionType):
        return []
    if str(function.__globals__.get("__name__", "")).split(".")[0] not in ("jax", "jaxlib"):
        return []
    name = function.__code__.co_qualname.split(".")[0]
    if isinstance(function.__globals__.get(name), type):
        return []
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    return [name, *(made for part in inside for made in _makers(part))]


def _class(function: Any, what: str) -> str | None:
    if not isinstance(function, type):
        return None
    name = function.__name__
    if issubclass(function, AutoGuide):
        return f"the class {name}; pass an instance made for the model, {what}={name}(model)"
    return f"the class {name}; pass a function, or an instance of {name} that has __call__"


def _kind_of_function(function: Any, what: str) -> str | None:
    called = function if inspect.isroutine(function) else getattr(function, "__call__", None)  # noqa: B004
    for is_kind, name, remedy in (
        (inspect.isgeneratorfunction, "a generator function", "write its sites without `yield`"),
        (inspect.iscoroutinefunction, "an async function", "write it with `def`"),
        (inspect.isasyncgenfunction, "an async function", "write it with `def`"),
    ):
        if called is not None and is_kind(called):
            return f"{name}, whose body does not run when it is called; {remedy}"
    return None


def _of_numpyro(function: Any, what: str) -> str | None:
    """An object that NumPyro made of a model: an algorithm, or a guide in the place of the model."""
    if not _module(type(function)).startswith("numpyro.infer"):
        return None
    name = type(function).__name__
    if isinstance(function, AutoGuide):
        return f"the guide {name}; pass the model itself, and the guide as guide=" if what == "model" else None
    return f"an object of numpyro.infer, {name}; pass the {what} function that it was made of"


def _fit(function: Any, what: str) -> str | None:
    return f"a Fit; pass its function, fit.{what}" if type(function).__name__ == "Fit" and _ours(function) else None


def _ours(item: Any) -> bool:
    return _module(type(item)).startswith("autovi.")


def _module(kind: type) -> str:
    return str(getattr(kind, "__module__", ""))


KINDS: tuple[Callable[[Any, str], str | None], ...] = (_transformed, _class, _kind_of_function, _of_numpyro, _fit)
