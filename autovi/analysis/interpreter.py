"""Abstract interpretation of a jaxpr: what each variable depends on, and how.

Four questions are answered for every pair of an output (a cost term) and a tracked input (the value of a
site): does the output depend on it at all; along which dimensions is it elementwise in it, so that a plate's
cost may be split by element; which operations on the way could make it jump; and which could have a derivative
that is not that of what they compute. Every answer errs on one side only: a dependence is never missed, an
alignment never claimed without proof, a jump or a derivative never overlooked (`jump_test.py` and
`slope_test.py` test the suspicions).

Each variable of the jaxpr carries, for every tracked input that reaches it, a path: the position map so far
and the names of the operations that could jump, or have another derivative.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.paths import NONE, Dependence, join_paths, moved, seen_later
from autovi.analysis.primitives import (
    CONTINUOUS,
    COPYING,
    INNER_PROGRAM,
    POLYNOMIAL_ALWAYS,
    SPREADING_NONFINITE,
    UNUSED,
    DimMap,
    Names,
    cancelled_shifts,
    position_maps,
)
from autovi.analysis.shifts import harmless_stops
from autovi.analysis.smooth_functions import is_smooth_function
from autovi.analysis.steps import read_at_the_step
from autovi.model.graph import scan_counts
from autovi.model.own_rules import has_known_rule, name_of


class Value(NamedTuple):
    """What is known of one variable. A value without paths does not depend on the tracked inputs."""

    paths: dict[str, Dependence] = {}
    polynomial: bool = True  # a polynomial in the tracked inputs, its coefficients free of them
    nonfinite: bool = False  # without a finite element, whatever the inputs


class MutableStateError(Exception):
    """The program writes to references, so that what a variable holds is not where it was defined."""


Handler = Callable[[Any, list[Value]], list[Value]]


# --- Running a jaxpr ---------------------------------------------------------------------------------------


def run(jaxpr: Any, args: list[Value], slices: Mapping[int, int] = MappingProxyType({})) -> list[Value]:
    """Interprets an open or closed jaxpr on abstract values. `slices` are equations that take the first operand's slice
    at the step of an enclosing loop, and the mark of that loop."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict(zip(jaxpr.invars, args, strict=True)) | {v: Value() for v in jaxpr.constvars}
    shifts, harmless = cancelled_shifts(jaxpr), harmless_stops(jaxpr)

    def read(atom: Any) -> Value:
        return _literal(atom) if isinstance(atom, Literal) else known[atom]

    for position, eqn in enumerate(jaxpr.eqns):
        if any(hasattr(v.aval, "inner_aval") for v in (*eqn.invars, *eqn.outvars)):
            raise MutableStateError
        operands = [read(v) for v in eqn.invars]
        if position in shifts:
            operands[0] = _map_paths(operands[0], lambda p: Dependence(p.aligned, later=p.later, rules=p.rules))
        if position in slices:
            results = [_map_moved(operands[0], partial(_sliced, slices[position]))]
        elif eqn.primitive.name == "stop_gradient" and position not in harmless:
            results = _with_rule(operands, "stop_gradient")
        else:
            results = HANDLERS.get(eqn.primitive.name, _primitive)(eqn, operands)
        known |= zip(eqn.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _literal(atom: Any) -> Value:
    value = np.asarray(atom.val)
    return Value(nonfinite=bool(is_inexact(atom) and value.size and not np.isfinite(value).any()))


def is_inexact(atom: Any) -> bool:
    """Is it of a floating or complex type?"""
    return jnp.issubdtype(getattr(atom.aval, "dtype", np.bool_), jnp.inexact)


def _map_paths(value: Value, change: Callable[[Dependence], Dependence], **fields: Any) -> Value:
    return value._replace(paths={n: change(p) for n, p in value.paths.items()}, **fields)


def _merge(*maps: dict[str, Dependence]) -> dict[str, Dependence]:
    merged = dict(maps[0]) if maps else {}
    for paths in maps[1:]:
        for name, path in paths.items():
            other = merged.setdefault(name, path)
            if other is not path:
                merged[name] = join_paths(other, path)
    return merged


def _with_rule(values: list[Value], name: str) -> list[Value]:
    """The values with the name of an operation whose derivative is its own matter."""
    return [_map_paths(v, lambda p: p._replace(rules=p.rules | {name})) for v in values]


def _join(a: Value, b: Value) -> Value:
    """What is known of a variable that may be either."""
    return Value(_merge(a.paths, b.paths), a.polynomial and b.polynomial, a.nonfinite and b.nonfinite)


def _join_lists(a: list[Value], b: list[Value]) -> list[Value]:
    return [_join(x, y) for x, y in zip(a, b, strict=True)]


def _settled(step: Callable[[list[Value]], list[Value]], carry: list[Value]) -> list[Value]:
    """The least carry that contains `carry` and its own image: alignments only get lost, names only added."""
    while (wider := _join_lists(carry, step(carry))) != carry:
        carry = wider
    return carry


# --- One equation ------------------------------------------------------------------------------------------


def _primitive(eqn: Any, args: list[Value]) -> list[Value]:
    polynomial = _is_polynomial(eqn, args)
    nonfinite = _is_nonfinite(eqn, args)
    outs = []
    for k, maps in enumerate(position_maps(eqn)):
        used = [(i, dims) for i, dims in zip(range(len(args)), maps, strict=True) if dims is not UNUSED]
        paths = _merge(*(_through(eqn, args, i, k, dims) for i, dims in used))
        out = Value(paths, polynomial, nonfinite)
        # Nowhere finite, it has no finite value to jump from: `inf * (x > 0)`.
        outs.append(_map_paths(out, _as_cutoffs) if nonfinite else out)
    return outs


def _as_cutoffs(path: Dependence) -> Dependence:
    return path._replace(jumps=NONE, cutoffs=path.jumps | path.cutoffs)


def _is_nonfinite(eqn: Any, args: list[Value]) -> bool:
    if eqn.primitive.name in ("add", "sub", "mul"):
        return any(a.nonfinite for a in args)
    copied = eqn.primitive.name in COPYING and is_inexact(eqn.outvars[0])
    return copied and all(a.nonfinite for a in args)


def _through(eqn: Any, args: list[Value], i: int, k: int, dims: DimMap) -> dict[str, Dependence]:
    """The paths of operand `i`, carried on to output `k`."""
    if not args[i].paths:
        return {}
    new = _jump(eqn, args, i, k)
    cutting = _is_cutoff(eqn, args, i)
    keeps = _keeps_nonfinite(eqn, i)
    # What is no floating number has the derivative 0, whatever was before.
    smooth = is_inexact(eqn.outvars[k])

    if keeps and smooth and not cutting and not new and dims == tuple(range(len(dims))):
        return args[i].paths  # nothing moves and nothing is added: most operations, of which a program has many

    def onward(path: Dependence) -> Dependence:
        onto = moved(path, lambda a: a if a < 0 else dims[a])
        onto = onto if smooth else onto._replace(rules=NONE)
        if cutting:
            return _as_cutoffs(onto)
        if keeps:
            return onto._replace(jumps=path.jumps | new)
        return onto._replace(jumps=path.jumps | path.cutoffs | new, cutoffs=NONE)

    return {name: onward(path) for name, path in args[i].paths.items()}


def _jump(eqn: Any, args: list[Value], i: int, k: int) -> Names:
    """Names the primitive if output `k` may jump where operand `i` is continuous."""
    name = eqn.primitive.name
    # What an operation does to an integer adds nothing: the jump was where the integer was made.
    if name in CONTINUOUS or not is_inexact(eqn.invars[i]):
        return NONE
    harmless = CONTINUOUS_IF.get(name)
    return NONE if harmless is not None and harmless(eqn, args, i, k) else frozenset({name})


def _all_polynomial(eqn: Any, args: list[Value], i: int, k: int) -> bool:
    # A polynomial that is not zero everywhere is zero almost nowhere, and is finite wherever its inputs are:
    # `x == c`, `isnan(x)`, `isfinite(x)` take one value almost everywhere. A clipped value can equal a bound
    # on a whole interval: for it, the comparison does jump.
    return all(a.polynomial for a in args)


def _polynomial_against_infinity(eqn: Any, args: list[Value], i: int, k: int) -> bool:
    return all(a.polynomial for a in args) and any(a.nonfinite for a in args)


def _leading_key(eqn: Any, args: list[Value], i: int, k: int) -> bool:
    # Sorted values are continuous; what is carried along jumps in the keys, where two of them change places.
    return i == k == 0 or i >= eqn.params["num_keys"]


CONTINUOUS_IF: dict[str, Callable[[Any, list[Value], int, int], bool]] = {
    **dict.fromkeys(["eq", "ne", "is_finite"], _all_polynomial),
    **dict.fromkeys(["lt", "le", "gt", "ge"], _polynomial_against_infinity),
    "convert_element_type": lambda eqn, args, i, k: is_inexact(eqn.outvars[k]),
    "scatter": lambda eqn, args, i, k: eqn.params.get("update_jaxpr") is None,  # `x.at[i].apply(f)` has one
    "sort": _leading_key,
    "top_k": lambda eqn, args, i, k: k == 0,
}


def _is_cutoff(eqn: Any, args: list[Value], i: int) -> bool:
    """Whether operand `i` is the predicate of a switch between one value and others that are never finite."""
    return eqn.primitive.name == "select_n" and i == 0 and sum(not a.nonfinite for a in args[1:]) == 1


def _keeps_nonfinite(eqn: Any, i: int) -> bool:
    """Whether the output is not finite wherever operand `i` is not and influences it."""
    name = eqn.primitive.name
    if name in ("div", "select_n"):
        return i == 0 if name == "div" else i > 0
    return name in SPREADING_NONFINITE and (name != "convert_element_type" or is_inexact(eqn.outvars[0]))


def _is_polynomial(eqn: Any, args: list[Value]) -> bool:
    if not any(a.paths for a in args):
        return True
    rule = POLYNOMIAL.get(eqn.primitive.name)
    return rule is not None and all(a.polynomial for a in args) and rule(eqn, args)


# --- Equations with programs inside ------------------------------------------------------------------------


def _call(param: str) -> Handler:
    return lambda eqn, args: run(eqn.params[param], args)


def _custom_rule(eqn: Any, args: list[Value]) -> list[Value]:
    """A function with a derivative of its own: what is inside of it has no say in that."""
    inner = [_map_paths(v, lambda p: p._replace(rules=NONE)) for v in args]
    outs = run(eqn.params[INNER_PROGRAM[eqn.primitive.name]], inner)
    before = _merge(*(v.paths for v in args))
    new = NONE if has_known_rule(eqn) else frozenset({name_of(eqn)})

    def onward(out: Value, atom: Any) -> Value:
        if not is_inexact(atom):
            return _map_paths(out, lambda p: p._replace(rules=NONE))
        paths = {n: p._replace(rules=before[n].rules | new) for n, p in out.paths.items()}
        return out._replace(paths=paths)

    return [onward(out, atom) for out, atom in zip(outs, eqn.outvars, strict=True)]


def _custom_jvp(eqn: Any, args: list[Value]) -> list[Value]:
    body = eqn.params["call_jaxpr"]
    outs = _custom_rule(eqn, args)
    before = _merge(*({n: Dependence((), p.jumps | p.cutoffs) for n, p in a.paths.items()} for a in args))

    def added(name: str, path: Dependence) -> Names:
        return path.jumps - before[name].jumps

    if not any(added(n, p) for out in outs for n, p in out.paths.items()) or not is_smooth_function(body):
        return outs
    return [
        out._replace(paths={n: p._replace(jumps=p.jumps - added(n, p)) for n, p in out.paths.items()}) for out in outs
    ]


def _controlled(outs: list[Value], controls: Iterable[Value]) -> list[Value]:
    """Values that a scalar chose (a branch, the number of steps): they depend on it at every position.

    Under `vmap` a `while` has a condition for each element, over the first dimensions of all that it carries: these are
    then elementwise in it.
    """
    chosen = _merge(*(c.paths for c in controls))
    if not chosen:
        return outs
    how = {n: p._replace(jumps=p.jumps | p.cutoffs, cutoffs=NONE, rules=NONE) for n, p in chosen.items()}
    return [Value(_merge(out.paths, how), polynomial=False) for out in outs]


def _cond(eqn: Any, args: list[Value]) -> list[Value]:
    index, *operands = args
    outs = reduce(_join_lists, (run(branch, operands) for branch in eqn.params["branches"]))
    return _controlled(outs, [index])


def _while(eqn: Any, args: list[Value]) -> list[Value]:
    p = eqn.params
    num_test, num_body = p["cond_nconsts"], p["body_nconsts"]
    test, body = args[:num_test], args[num_test : num_test + num_body]
    carry = _settled(lambda c: run(p["body_jaxpr"], [*body, *c]), args[num_test + num_body :])
    return _controlled(carry, run(p["cond_jaxpr"], [*test, *carry]))


def _scan(eqn: Any, args: list[Value]) -> list[Value]:
    body = eqn.params["jaxpr"]
    num_consts, num_carry = scan_counts(eqn)
    consts, rest = args[:num_consts], args[num_consts:]
    init, stacked = rest[:num_carry], rest[num_carry:]
    marks = (a for v in args for q in v.paths.values() for a in (*q.aligned, *(s.axis for s in q.since if s)))
    step = min([a for a in marks if a is not None], default=0)
    step = min(step, 0) - 1  # a mark of this loop's own: "aligned with the step"
    slices = [_map_moved(v, lambda a: step if a == 0 else a - (a > 0)) for v in stacked]
    at_step = {} if eqn.params["reverse"] else dict.fromkeys(read_at_the_step(eqn), step)

    def carried(carry: list[Value]) -> list[Value]:
        outs = run(body, [*consts, *carry, *slices], at_step)[:num_carry]
        return [_map_paths(v, lambda p: seen_later(p, step, eqn.params["reverse"])) for v in outs]

    carry = _settled(carried, init)
    outs = run(body, [*consts, *carry, *slices], at_step)[num_carry:]
    last = [_map_paths(v, lambda p: seen_later(p, step, True)) for v in carry]
    return [*last, *(_map_moved(v, lambda a: 0 if a == step else a + (a >= 0)) for v in outs)]


def _sliced(step: int, dimension: int) -> int:
    return step if dimension == 0 else dimension


def _map_moved(value: Value, change: Callable[[int], int | None]) -> Value:
    return _map_paths(value, lambda p: moved(p, change))


HANDLERS: dict[str, Handler] = {
    **{name: _call(param) for name, param in INNER_PROGRAM.items()},
    **dict.fromkeys(["custom_vjp_call", "custom_vjp_call_jaxpr"], _custom_rule),
    "custom_jvp_call": _custom_jvp,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}

# --- Which equations make polynomials of polynomials ---------------------------------------------------


def _always(eqn: Any, args: list[Value]) -> bool:
    return True


def _later_operands_free(eqn: Any, args: list[Value]) -> bool:
    return not any(a.paths for a in args[1:])


POLYNOMIAL: dict[str, Callable[[Any, list[Value]], bool]] = {
    **dict.fromkeys(POLYNOMIAL_ALWAYS, _always),
    **dict.fromkeys(["div", "dynamic_slice", "gather"], _later_operands_free),
    "convert_element_type": lambda eqn, args: is_inexact(eqn.invars[0]) and is_inexact(eqn.outvars[0]),
    "integer_pow": lambda eqn, args: eqn.params["y"] >= 0,
    "select_n": lambda eqn, args: not args[0].paths,
}
