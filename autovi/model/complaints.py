"""What is said of an exception that a model or a guide raises as it is traced: which argument or site, what to do, and
the user's own line."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import jax
from numpyro import plate
from numpyro.distributions import Distribution

from autovi.model.agreement import ShapeError
from autovi.model.concrete import asks_for_number, remedy
from autovi.model.execution import SiteError
from autovi.model.leaves import DataError
from autovi.model.parameters import wrong_parameters
from autovi.model.places import Spot, cause_of, code, places_of, spots_of, with_places

SAID = (TypeError, ValueError, AssertionError, IndexError)  # JAX's and NumPyro's own complaints
LEAKS = (jax.errors.UnexpectedTracerError,)
SHAPE_WORDS = ("shape", "broadcast", "dimension", "rank", "axis", "size")


@dataclass(frozen=True)
class Circumstances:
    """Of what a message may tell: what was run, on which arguments, and how far it came.

    Attributes:
        what: "model" or "guide".
        function: that function.
        arguments: of the function, positional and by name.
        seen: the latent sites that were reached.
        lengths: of the plates that `batch_size` subsamples.
        lengths_said: which arguments have unequal lengths, in a sentence.
    """

    what: str
    function: Callable
    arguments: tuple[tuple, Mapping[str, Any]]
    seen: Collection[str] = ()
    lengths: Mapping[str, int] | None = None
    lengths_said: str = ""


def complain(error: Exception, about: Circumstances) -> NoReturn:
    """Raises what is to be said of an exception. One of a kind that is nobody's complaint stays as it is, with a note.

    Raises:
        ValueError: the argument or the site, what was expected, what to do, and the user's line at the end.
    """
    if isinstance(error, ShapeError):
        raise ValueError(with_places(f"{error.said}{about.lengths_said}", error.place)) from cause_of(error)
    if isinstance(error, SiteError | DataError):
        raise ValueError(str(error)) from cause_of(error)
    places = places_of(error)
    if (said := _sentence(error, about)) is not None:
        raise ValueError(with_places(said, *places)) from cause_of(error)
    note = f"raised by the {about.what}; {_reached(about)}"
    error.add_note(with_places(note, *places))
    raise error


def _sentence(error: Exception, about: Circumstances) -> str | None:
    for kind in KINDS:
        if (said := kind(error, about)) is not None:
            return said
    return None


# --- kinds of exceptions ----------------------------------------------------------------------------------------------


def _of_nothing(error: Exception, about: Circumstances) -> str | None:
    """None where a value is needed."""
    if "None" not in str(error) or not isinstance(error, TypeError | AttributeError | ValueError | Warning):
        return None
    arguments = _absent(about)
    found: list[tuple[str, str]] = []
    for spot in reversed(spots_of(error)):
        path = spot.path()
        found += [(name, code(path[0])) for name in spot.names(path[0], type(None))] if path else []
    name, expression = next((f for f in found if f[0] in arguments), found[0] if found else ("", ""))
    if name not in arguments and len(arguments) == 1:
        name = arguments[0]
    if name in arguments:
        at = f" in `{expression}`" if expression else ""
        return (
            f"{name}: the argument {name!r} of the {about.what} is None, and the {about.what} needs a value of it{at}; "
            f"pass it with the data, or write the {about.what} so that it does without: "
            f"`... if {name} is not None else None`"
        )
    if name:
        return f"{about.what}: `{name}` is None, where `{expression}` needs a value ({str(error).rstrip('.')})"
    return None


def _of_a_number(error: Exception, about: Circumstances) -> str | None:
    return f"{about.what}: {remedy(error)}" if asks_for_number(error) else None


def _of_an_array(error: Exception, about: Circumstances) -> str | None:
    """What a Series or a NumPy array has and a traced array has not."""
    found = re.search(r"Tracer'?(?: object)? has no attribute '?(\w+)", str(error))
    if not isinstance(error, AttributeError) or found is None:
        return None
    spots = spots_of(error)
    path = spots[-1].path() if spots else []
    asked = f"`{code(path[0])}`" if path else f"`.{found[1]}`"
    return (
        f"{about.what}: {asked} asks for {found[1]!r}, which a JAX array does not have, and data are JAX arrays in a "
        f"{about.what}, categories their codes; leave it out (.values, .to_numpy(), .cat.codes), or prepare it before "
        "the fit"
    )


def _of_a_leak(error: Exception, about: Circumstances) -> str | None:
    """Sites inside of a function that JAX transforms."""
    if not isinstance(error, LEAKS):
        return None
    last = list(about.seen)[-1:]
    sites = f", such as {last[0]!r}" if last else ""
    return (
        f"{about.what}: a value made inside of a function that JAX transforms (jax.jit, jax.vmap, jax.lax.scan) was "
        f"kept beyond it; sites{sites} must not be inside of one: call the plain function, write numpyro.plate for "
        "jax.vmap, and numpyro.contrib.control_flow.scan for jax.lax.scan"
    )


def _of_parameters(error: Exception, about: Circumstances) -> str | None:
    """A distribution that refuses its parameters."""
    if not isinstance(error, ValueError):
        return None
    wrong = next(filter(None, map(wrong_parameters, _makers(error.__traceback__, Distribution))), None)
    return None if wrong is None else f"{_whose(error, about)}: {wrong}"


def _of_plates(error: Exception, about: Circumstances) -> str | None:
    """A condition of NumPyro's plates, which it says without words."""
    plates = _makers(error.__traceback__, plate)
    if not (isinstance(error, AssertionError) and not str(error) and plates):
        return None
    return (
        f"plate {plates[0].name!r}: NumPyro needs {_assertion(error)}; see its arguments size, subsample_size and dim"
    )


def _of_others(error: Exception, about: Circumstances) -> str | None:
    if not isinstance(error, SAID):
        return None
    text = str(error).strip().split("\n")[0].rstrip(".") or _assertion(error)
    said = f"{_whose(error, about)}: it cannot be run on these data, {_reached(about)}: {text}"
    if not any(word in str(error).lower() for word in SHAPE_WORDS):
        return said
    plates = f" that indexes its data (batch_size makes {about.lengths} of the plates)" if about.lengths else ""
    return (
        f"{said}. If shapes do not fit, a numpyro.plate of the right size{plates} around the site is the usual remedy"
        f"{about.lengths_said}"
    )


KINDS: tuple[Callable[[Exception, Circumstances], str | None], ...] = (
    _of_nothing,
    _of_a_leak,
    _of_a_number,
    _of_an_array,
    _of_parameters,
    _of_plates,
    _of_others,
)


# --- what is found out ------------------------------------------------------------------------------------------------


def _reached(about: Circumstances) -> str:
    seen = list(about.seen)
    return f"the last site reached was {seen[-1]!r}" if seen else "before any latent site"


def _absent(about: Circumstances) -> list[str]:
    """The arguments that are None."""
    args, kwargs = about.arguments
    try:
        bound = inspect.signature(about.function).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):
        return [name for name, value in kwargs.items() if value is None]
    bound.apply_defaults()
    return [name for name, value in bound.arguments.items() if value is None]


def _assertion(error: Exception) -> str:
    """The condition of an assertion without words, and what its names stood for."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    spot = None if step is None else Spot(step)
    condition = next((node.test for node in spot.path() if isinstance(node, ast.Assert)), None) if spot else None
    if spot is None or condition is None:
        return "a condition that does not hold"
    values = {n: spot.value(ast.Name(n)) for n in spot.names(condition, object)}
    stood = ", ".join(f"{name} is {value!r}" for name, value in values.items() if not callable(value))
    return f"`{code(condition)}`, which does not hold" + (f" ({stood})" if stood else "")


def _makers(step: TracebackType | None, kind: type) -> list[Any]:
    """The objects of a class whose methods an error passed through, the innermost first."""
    found = []
    while step is not None:
        item = step.tb_frame.f_locals.get("self")
        found += [item] if isinstance(item, kind) else []
        step = step.tb_next
    return found[::-1]


def _whose(error: Exception, about: Circumstances) -> str:
    """The site, or the plate, that was being made by a call of numpyro.sample("name", ...), else the function."""
    spots = spots_of(error)
    for node in spots[-1].path() if spots else ():
        if not isinstance(node, ast.Call) or not node.args:
            continue
        made_by = spots[-1].value(node.func)
        if str(getattr(made_by, "__module__", "")).startswith("numpyro.primitives"):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                return f"{'plate' if made_by is plate else 'site'} {first.value!r}"
    return about.what
