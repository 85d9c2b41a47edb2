"""Programs whose `while` loops end after so many steps: what is tried at arbitrary values must not run for ever.

A compiled program cannot be interrupted. So its loops count their steps, all of them together, those of nested loops
too, and stop when there are no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from autovi.analysis.primitives import INNER_PROGRAM
from autovi.compiling import LIGHT_WORK, compiler_options, work_of
from autovi.model.graph import scan_counts


class UnboundedError(Exception):
    """A loop is inside an operation that is not understood; the message names the operation."""


def has_loops(jaxpr: Any) -> bool:
    """Is there a `while` in the program, at any depth?"""
    return any(eqn.primitive.name == "while" or _holds_loops(eqn) for eqn in _open(jaxpr).eqns)


def options_of(jaxpr: Any, runs: float = 1.0) -> dict[str, Any]:
    """Options for the compiler of a program that runs so often: quick ones where that is little work in all. How long
    its loops take is not known: never quick ones."""
    work = work_of(jaxpr, runs)
    return compiler_options(max(LIGHT_WORK, work) if has_loops(jaxpr) else work)


def run_once(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, compiled for this one run: as little as the work deserves."""
    program = jax.jit(fn).trace(*args)
    return program.lower().compile(options_of(program.jaxpr))(*args)


def bounded(program: ClosedJaxpr) -> Callable[..., tuple[list[Any], Array]]:
    """`run(steps, *arguments)`: the outputs of `program`, and whether its loops ended within `steps` steps together.

    If not, the outputs are those of loops that were left early. `steps` is traced: one compiled program serves for all
    numbers. Without derivatives: a function with a derivative of its own is replaced by its body.

    Raises:
        UnboundedError: a loop is out of reach.
    """

    def run(steps: Any, *arguments: Any) -> tuple[list[Any], Array]:
        outs, left = _run(program.jaxpr, program.consts, jnp.asarray(steps, jnp.int32), arguments)
        return outs, left > 0

    return run


def call_bounded(fn: Callable[..., Any], steps: Any, *arguments: Any) -> tuple[Any, Array]:
    """`fn(*arguments)` with at most `steps` steps of its loops, and whether they ended."""
    program, shapes = jax.make_jaxpr(fn, return_shape=True)(*arguments)
    outs, ended = bounded(program)(steps, *jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shapes), outs), ended


def work(jaxpr: Any) -> int:
    """How many numbers one evaluation makes, every `while` loop going round once."""
    total = 0
    for eqn in _open(jaxpr).eqns:
        own = sum(prod(getattr(v.aval, "shape", ())) for v in eqn.outvars)
        inner = sum(work(p) for param in eqn.params.values() for p in _programs(param))
        total += own + inner * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
    return total


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _programs(item: Any) -> Iterator[Any]:
    if isinstance(item, ClosedJaxpr | Jaxpr):
        yield item
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _programs(part)


def _holds_loops(eqn: Any) -> bool:
    return any(has_loops(inner) for param in eqn.params.values() for inner in _programs(param))


def _run(jaxpr: Any, consts: Any, left: Array, args: Any) -> tuple[list[Any], Array]:
    """The outputs of a jaxpr, and how many of the `left` steps are left; none if some loop did not end."""
    known = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        name = eqn.primitive.name
        if name in INNER_PROGRAM:
            outs, left = _call(eqn.params[INNER_PROGRAM[name]], left, operands)
        elif name == "while" or _holds_loops(eqn):
            if name not in WITH_LOOPS:
                raise UnboundedError(name)
            outs, left = WITH_LOOPS[name](eqn, left, operands)
        else:
            outs = eqn.primitive.bind(*operands, **eqn.params)
            outs = outs if eqn.primitive.multiple_results else [outs]
        known |= zip(eqn.outvars, outs, strict=True)
    return [read(v) for v in jaxpr.outvars], left


def _call(inner: Any, left: Array, args: Any) -> tuple[list[Any], Array]:
    return _run(_open(inner), getattr(inner, "consts", ()), left, args)


def _while(eqn: Any, left: Array, args: list[Any]) -> tuple[list[Any], Array]:
    p = eqn.params
    num_test, num_body = p["cond_nconsts"], p["body_nconsts"]
    test, body, init = args[:num_test], args[num_test : num_test + num_body], args[num_test + num_body :]

    # The condition is computed in the body, where the steps of its own loops can be counted.
    def wanted(left: Array, carry: list[Any]) -> tuple[Array, Array, list[Any]]:
        (more,), left = _call(p["cond_jaxpr"], left, [*test, *carry])
        return left, more, carry

    def step(state: tuple[Array, Array, list[Any]]) -> tuple[Array, Array, list[Any]]:
        left, more, carry = state
        new, left = _call(p["body_jaxpr"], jnp.maximum(left - 1, 0), [*body, *carry])
        return wanted(left, [_where(more, n, c) for n, c in zip(new, carry, strict=True)])

    def goes_on(state: tuple[Array, Array, list[Any]]) -> Array:
        return (state[0] > 0) & jnp.any(state[1])

    left, _, carry = jax.lax.while_loop(goes_on, step, wanted(left, list(init)))
    return carry, left


def _where(more: Array, new: Any, old: Any) -> Any:
    """A loop under `vmap` has a condition for each element, over its first dimensions: those that are done stay."""
    return jnp.where(more.reshape(more.shape + (1,) * (new.ndim - more.ndim)), new, old) if more.ndim else new


def _scan(eqn: Any, left: Array, args: list[Any]) -> tuple[list[Any], Array]:
    p = eqn.params
    num_consts, num_carry = scan_counts(eqn)
    consts, init, stacked = args[:num_consts], args[num_consts : num_consts + num_carry], args[num_consts + num_carry :]

    def step(state: tuple[Array, list[Any]], slices: list[Any]) -> tuple[tuple[Array, list[Any]], list[Any]]:
        left, carry = state
        outs, left = _call(p["jaxpr"], left, [*consts, *carry, *slices])
        return (left, outs[:num_carry]), outs[num_carry:]

    (left, carry), outs = jax.lax.scan(step, (left, list(init)), list(stacked), p["length"], reverse=p["reverse"])
    return [*carry, *outs], left


def _cond(eqn: Any, left: Array, args: list[Any]) -> tuple[list[Any], Array]:
    index, *operands = args
    branches = [lambda left, *rest, b=branch: _call(b, left, rest) for branch in eqn.params["branches"]]
    return jax.lax.switch(jnp.asarray(index, jnp.int32), branches, left, *operands)


def _linear_solve(eqn: Any, left: Array, args: list[Any]) -> tuple[list[Any], Array]:
    """The solver alone (conjugate gradients, say): the other programs of the equation are for its derivatives."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    return _call(programs.solve, left, [*args[before : before + lengths.solve], *args[sum(lengths) :]])


WITH_LOOPS = {"while": _while, "scan": _scan, "cond": _cond, "custom_linear_solve": _linear_solve}
