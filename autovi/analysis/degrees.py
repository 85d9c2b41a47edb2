"""Of what degree a cost term is in some inputs: whether it is a quadratic in them, read from the graph.

Every equation is followed; what is not known to make polynomials of polynomials makes something of no degree. So a
degree that is found is a bound that holds everywhere, and not only where it was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.primitives import INNER_PROGRAM
from autovi.model.graph import Graph, scan_counts

Degree = float  # a whole number, or `inf` of what is no polynomial
MOST = 8  # beyond it a degree is not told from infinity, so that going through the steps of a loop ends

Rule = Callable[[Any, list[Degree]], Degree]


def degrees(graph: Graph, outputs: Iterable[str], variables: Collection[Any]) -> dict[str, Degree]:
    """Output -> its degree in these variables together; 0 where it does not depend on them.

    Example:
        >>> graph = trace(lambda: {"p": placeholder("x", (), float) ** 2 * placeholder("y", (), float)})
        >>> degrees(graph, ["p"], [graph.inputs["x"]])
        {'p': 2}
    """
    known: dict[Any, Degree] = dict.fromkeys(variables, 1)
    for eqn in graph.eqns:
        known |= zip(eqn.outvars, _of_equation(eqn, [_read(known, v) for v in eqn.invars]), strict=True)
    return {o: _read(known, graph.outputs[o]) for o in outputs}


def _read(known: Mapping[Any, Degree], atom: Any) -> Degree:
    return 0 if isinstance(atom, Literal) else known.get(atom, 0)


def _of_program(jaxpr: Any, args: list[Degree]) -> list[Degree]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        known |= zip(eqn.outvars, _of_equation(eqn, [_read(known, v) for v in eqn.invars]), strict=True)
    return [_read(known, v) for v in jaxpr.outvars]


def _of_equation(eqn: Any, args: list[Degree]) -> list[Degree]:
    if not any(args):
        return [0] * len(eqn.outvars)
    name = eqn.primitive.name
    # A function with a derivative of its own need not have that of what it computes.
    if name in INNER_PROGRAM and not name.startswith("custom"):
        return _of_program(eqn.params[INNER_PROGRAM[name]], args)
    if name == "scan":
        return _of_scan(eqn, args)
    degree = RULES[name](eqn, args) if name in RULES else inf
    return [degree if degree <= MOST else inf] * len(eqn.outvars)


def _of_scan(eqn: Any, args: list[Degree]) -> list[Degree]:
    """Degrees of what is carried grow until they stay."""
    num_shared, num_carry = scan_counts(eqn)
    shared, carry, rows = args[:num_shared], args[num_shared:][:num_carry], args[num_shared + num_carry :]
    while True:
        made = _of_program(eqn.params["jaxpr"], [*shared, *carry, *rows])
        wider = [max(a, b) for a, b in zip(carry, made, strict=False)]
        if wider == carry:
            return [*carry, *made[num_carry:]]
        carry = wider


def _highest(eqn: Any, args: list[Degree]) -> Degree:
    return max(args)


def _added(eqn: Any, args: list[Degree]) -> Degree:
    return sum(args)


def _first_alone(eqn: Any, args: list[Degree]) -> Degree:
    """Of operations that are linear in the first operand, the others being places or divisors."""
    return inf if any(args[1:]) else args[0]


def _cast(eqn: Any, args: list[Degree]) -> Degree:
    floats = (jnp.issubdtype(v.aval.dtype, jnp.floating) for v in (*eqn.invars, *eqn.outvars))
    return args[0] if all(floats) else inf


def _power(eqn: Any, args: list[Degree]) -> Degree:
    return eqn.params["y"] * args[0] if eqn.params["y"] >= 0 else inf


def _is_number(eqn: Any, args: list[Degree]) -> Degree:
    """Whether a polynomial of finite numbers is a finite number is no question: it is."""
    left, right = eqn.invars
    if left is right and max(args) < inf:
        return 0
    bound = next((v.val for v in eqn.invars if isinstance(v, Literal)), 0.0)
    return 0 if max(args) < inf and np.ndim(bound) == 0 and not np.isfinite(bound) else inf


RULES: dict[str, Rule] = {
    **dict.fromkeys(["eq", "ne"], _is_number),
    "is_finite": lambda eqn, args: inf if args[0] == inf else 0,
    **dict.fromkeys(
        "add add_any broadcast_in_dim concatenate copy cumsum neg pad reduce_sum reshape rev slice split squeeze "
        "expand_dims sub transpose tile stack optimization_barrier".split(),
        _highest,
    ),
    **dict.fromkeys(["mul", "dot_general"], _added),
    **dict.fromkeys(["div", "dynamic_slice", "gather"], _first_alone),
    "convert_element_type": _cast,
    "dynamic_update_slice": lambda eqn, args: inf if any(args[2:]) else max(args[:2]),
    "integer_pow": _power,
    **dict.fromkeys(["scatter", "scatter-add"], lambda eqn, args: inf if args[1] else max(args[0], args[2])),
    "select_n": lambda eqn, args: inf if args[0] else max(args[1:]),
    "square": lambda eqn, args: 2 * args[0],
    "triangular_solve": lambda eqn, args: inf if args[0] else args[1],
}
