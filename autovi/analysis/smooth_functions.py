"""Functions written with comparisons, between pieces that meet: continuous, whatever the operations inside say.

A function with its own derivative appears in a traced program as a call with a body. Only a name says which Python
function it was, and anybody can take a name. So the body decides: it is trusted if it is, operation by operation, what
one of the functions here becomes when it is traced on arguments of the same types. A user's function of the same name
is not trusted then. One of another name with the same body is trusted, rightly: it has the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpyro.distributions.util import log1mexp

SMOOTH_FUNCTIONS: tuple[tuple[Callable[..., Any], int], ...] = (  # with their number of arguments
    (jnp.logaddexp, 2),
    (jnp.logaddexp2, 2),
    (jax.scipy.special.xlogy, 2),
    (jax.scipy.special.xlog1py, 2),
    (jax.scipy.special.log_ndtr, 1),
    (jax.nn.log1mexp, 1),
    (log1mexp, 1),
)
CUSTOM_DERIVATIVE = "custom_jvp_call"


def is_smooth_function(body: ClosedJaxpr) -> bool:
    """Is `body`, that of a function with its own derivative, the body of one of `SMOOTH_FUNCTIONS`?"""
    types = tuple((tuple(v.aval.shape), v.aval.dtype, bool(v.aval.weak_type)) for v in body.jaxpr.invars)
    double = bool(jax.config.read("jax_enable_x64"))
    candidates = (fn for fn, count in SMOOTH_FUNCTIONS if count == len(types))
    return any(_same(body, known) for fn in candidates for known in _bodies(fn, types, double))


@cache
def _bodies(fn: Callable[..., Any], types: tuple[tuple[Any, Any, bool], ...], double: bool) -> tuple[ClosedJaxpr, ...]:
    """What `fn` becomes on arguments of these types, in this precision; nothing where it does not take them."""
    arguments = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]
    try:
        return tuple(_custom_bodies(jax.make_jaxpr(fn)(*arguments).jaxpr))
    except (TypeError, ValueError):
        return ()


def _custom_bodies(jaxpr: Jaxpr) -> Iterator[ClosedJaxpr]:
    """The bodies of the outermost functions with their own derivatives, also inside nested functions."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == CUSTOM_DERIVATIVE:
            yield eqn.params["call_jaxpr"]
        elif isinstance(inner := eqn.params.get("jaxpr"), ClosedJaxpr):
            yield from _custom_bodies(inner.jaxpr)


def _same(a: Any, b: Any) -> bool:
    """Are two jaxprs, or two parameters of equations, the same but for the names of variables and functions?"""
    if isinstance(a, ClosedJaxpr):
        return (
            isinstance(b, ClosedJaxpr)
            and len(a.consts) == len(b.consts)
            and all(map(_same_number, a.consts, b.consts))
            and _same_program(a.jaxpr, b.jaxpr)
        )
    if isinstance(a, Jaxpr):
        return isinstance(b, Jaxpr) and _same_program(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


def _same_number(a: Any, b: Any) -> bool:
    return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b, equal_nan=True)


def _same_program(a: Jaxpr, b: Jaxpr) -> bool:
    place: dict[Any, Any] = {}  # a's variables -> b's

    def bind(left: Any, right: Any) -> bool:
        if len(left) != len(right):
            return False
        place.update(zip(left, right, strict=True))
        return all(
            x.aval.shape == y.aval.shape and x.aval.dtype == y.aval.dtype for x, y in zip(left, right, strict=True)
        )

    def reads(x: Any, y: Any) -> bool:
        if isinstance(x, Literal) or isinstance(y, Literal):
            return isinstance(x, Literal) and isinstance(y, Literal) and _same_number(x.val, y.val)
        return place.get(x) is y

    def all_read(left: Any, right: Any) -> bool:
        return len(left) == len(right) and all(map(reads, left, right))

    def same_equation(x: Any, y: Any) -> bool:
        return (
            x.primitive is y.primitive
            and all_read(x.invars, y.invars)
            and _same_parameters(x.primitive.name, x.params, y.params)
            and bind(x.outvars, y.outvars)
        )

    if not (bind(a.constvars, b.constvars) and bind(a.invars, b.invars) and len(a.eqns) == len(b.eqns)):
        return False
    return all(map(same_equation, a.eqns, b.eqns)) and all_read(a.outvars, b.outvars)


# What an equation's parameters say besides what is computed: names, and how derivatives are taken.
BESIDES = frozenset({"name", "weak_type", "jvp_jaxpr_fun", "ctx_mesh"})


def _same_parameters(primitive: str, a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a.keys() - BESIDES)
