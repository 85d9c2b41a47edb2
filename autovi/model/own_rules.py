"""Functions with a derivative of their own (`jax.custom_jvp`, `jax.custom_vjp`): whose are they?

A traced program holds such a function as one operation, whose derivative it does not show. Those of JAX, of NumPyro and
of autovi's own densities are known to be right. Where a function and its rule were written decides, never its name.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpyro
from jax.extend.core import ClosedJaxpr, Jaxpr
from numpyro.distributions import util

from autovi.distributions import deviance, formulas

# With the separator at the end: a folder beside JAX's may have a name that begins as its own.
_KNOWN = tuple(f" at {Path(str(module.__file__)).parent}{os.sep}" for module in (jax, numpyro, formulas))
# JAX's helpers, such as `custom_gradient` and `defjvps`: what they define says what somebody else's function says.
_HELPERS = "custom_derivatives"
# The parameters of an operation that hold its rules.
_RULES = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd")
# Functions of the libraries whose rules were made by `defjvps`.
_MADE_BY_HELPER = {
    jax.nn: ("relu", "relu6", "log1mexp"),
    jax.scipy.special: ("wofz", "erfcx", "dawsn", "logit", "poch", "hyp1f1", "hyp2f1"),
    util: ("log1mexp",),
    formulas: ("softplus", "bernoulli_sum"),
    deviance: ("gamma_remainder",),
}


def is_custom(eqn: Any) -> bool:
    """Is the equation a call of a function with a derivative of its own?"""
    return eqn.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call"))


def has_known_rule(eqn: Any) -> bool:
    """Are the function and its derivative those of JAX or NumPyro, such as `jax.nn.relu`, or of a density of autovi's?

    A rule of the user's for a function of JAX's is not known. Nor is what does not say where it was written.
    """
    source = _source(_body(eqn))
    if not _is_known(source):
        return False
    rules = [_source(eqn.params[name]) for name in _RULES if name in eqn.params]
    # Inside of a function of the libraries that is given another derivative stands that function.
    made = source.partition(" at ")[2] in _made_by_helper() and not _holds_custom(_body(eqn))
    return bool(rules) and all(_is_known(rule) or (made and _HELPERS in rule) for rule in rules)


def name_of(eqn: Any) -> str:
    """What the function is called, with its kind: "f (custom_jvp)"."""
    return f"{_source(_body(eqn)).partition(' at ')[0] or 'a function'} ({eqn.primitive.name[: len('custom_jvp')]})"


def _body(eqn: Any) -> Any:
    return next((p for p in eqn.params.values() if isinstance(p, ClosedJaxpr | Jaxpr)), None)


def _source(item: Any) -> str:
    """Where a function was written: "name at file:line"."""
    info = getattr(getattr(item, "jaxpr", item), "debug_info", None)
    return getattr(info, "func_src_info", None) or ""


def _is_known(source: str) -> bool:
    return any(folder in source for folder in _KNOWN) and _HELPERS not in source


@cache
def _made_by_helper() -> frozenset[str]:
    """Where the functions of `_MADE_BY_HELPER` were written."""
    named = [getattr(module, name, None) for module, names in _MADE_BY_HELPER.items() for name in names]
    codes = [getattr(inspect.unwrap(fn), "__code__", None) for fn in named if fn is not None]
    return frozenset(f"{code.co_filename}:{code.co_firstlineno}" for code in codes if code is not None)


def _holds_custom(body: Any) -> bool:
    return any(is_custom(eqn) or any(map(_holds_custom, _inside(eqn))) for eqn in getattr(body, "jaxpr", body).eqns)


def _inside(eqn: Any) -> Iterator[Any]:
    return (p for p in eqn.params.values() if isinstance(p, ClosedJaxpr | Jaxpr))
