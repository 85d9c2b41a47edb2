"""A traced program cut open: inputs and outputs have names, and any part of it can be evaluated on its own.

A program is traced once, with a *placeholder* wherever a value is chosen from outside (a site, a parameter, the indices
of a plate). The placeholders become inputs. What is downstream of one of them is then a part of the graph that can be
evaluated again with another value there, everything else as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun

Values = dict[Any, Any]  # variable of the program -> its array

_placeholder_p = Primitive("placeholder")
_placeholder_p.def_abstract_eval(lambda *, name, shape, dtype: jax.core.ShapedArray(shape, dtype))


def placeholder(name: str, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Inside `trace`: an array that becomes the input `name` of the graph."""
    return _placeholder_p.bind(name=name, shape=tuple(shape), dtype=dtype)


def trace(fn: Callable[..., dict[str, Any]], *args: Any) -> Graph:
    """The graph of `fn(*args)`, whose result is a flat dict of arrays.

    Its inputs are the placeholders by their names and the leaves of `args` by their paths, such as "0['x']".
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    inputs = dict(zip(leaf_inputs(*args), jaxpr.invars, strict=True))
    eqns = []
    for eqn in jaxpr.eqns:
        if eqn.primitive is _placeholder_p:
            inputs[eqn.params["name"]] = eqn.outvars[0]
        else:
            eqns.append(eqn)
    # A NumPy array that the function closes over is copied: JAX keeps what it makes of an array by the array's identity
    # for as long as a program holds it, and would hand the one of this precision to a program of another.
    own = lambda v, c: np.array(c, v.aval.dtype) if isinstance(c, np.ndarray) else c  # noqa: E731
    constants = {v: own(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}
    closed = ClosedJaxpr(jaxpr, list(constants.values()))
    return Graph(closed, eqns, constants, inputs, dict(zip(sorted(shapes), jaxpr.outvars, strict=True)))


def leaf_inputs(*args: Any) -> dict[str, Any]:
    """The leaves of the arguments of a traced function by the names of their inputs."""
    return {_path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(args)}


def _path_name(path: Any) -> str:
    first, *rest = path
    return f"{first.idx}{jax.tree_util.keystr(tuple(rest))}"


class Graph:
    """Equations between named inputs and named outputs. `closed` is the program as it was traced."""

    def __init__(self, closed: ClosedJaxpr, eqns: list[Any], constants: Values, inputs: dict, outputs: dict):
        self.closed, self.eqns, self.constants = closed, eqns, constants
        self.inputs: dict[str, Any] = inputs
        self.outputs: dict[str, Any] = outputs

    def lift_traced(self, name_of: Callable[[str], str]) -> dict[str, Any]:
        """Makes inputs of the constants that a transformation of JAX's traces, named by `name_of("closed:0")`, and
        returns them by what it is given. A compiled program cannot hold them."""
        traced = [v for v, c in self.constants.items() if isinstance(c, jax.core.Tracer)]
        closed = {f"closed:{i}": self.constants.pop(v) for i, v in enumerate(traced)}
        self.inputs |= {name_of(name): v for name, v in zip(closed, traced, strict=True)}
        return closed

    @cached_property
    def _made_by(self) -> dict[Any, int]:
        return {var: i for i, eqn in enumerate(self.eqns) for var in eqn.outvars}

    @cached_property
    def _used_by(self) -> dict[Any, list[int]]:
        users: dict[Any, list[int]] = {}
        for i, eqn in enumerate(self.eqns):
            for var in eqn.invars:
                if not isinstance(var, Literal):
                    users.setdefault(var, []).append(i)
        return users

    def maker(self, var: Any) -> Any:
        """The equation that makes a variable; None of inputs and constants."""
        i = self._made_by.get(var)
        return None if i is None else self.eqns[i]

    def is_read(self, var: Any) -> bool:
        """Does an equation, or an output, read a variable?"""
        return var in self._used_by or var in self._outvars

    def apply(self, eqn: Any, values: Values) -> Values:
        """What one equation makes, and does, with these values of what it reads."""
        used = list(dict.fromkeys(v for v in eqn.invars if not isinstance(v, Literal)))
        made = [v for v in eqn.outvars if self.is_read(v)]
        done = jaxpr_as_fun(ClosedJaxpr(self.part(used, made, [eqn]), []))(*(values[v] for v in used))
        return dict(zip(made, done, strict=True))

    def users(self, var: Any) -> list[Any]:
        """The equations that a variable goes into."""
        return [self.eqns[i] for i in self.positions(var)]

    def positions(self, var: Any) -> list[int]:
        """Where in `eqns` the equations are that a variable goes into."""
        return list(dict.fromkeys(self._used_by.get(var, ())))

    def shape(self, output: str) -> tuple[int, ...]:
        """The shape of an output."""
        return tuple(self.outputs[output].aval.shape)

    def downstream(self, variables: Iterable[Any]) -> set[Any]:
        """These variables and all that depend on them."""
        found, todo = set(variables), list(variables)
        while todo:
            for i in self._used_by.get(todo.pop(), ()):
                new = [v for v in self.eqns[i].outvars if v not in found]
                found.update(new)
                todo.extend(new)
        return found

    def needed(self, wanted: Iterable[Any], known: Callable[[Any], bool]) -> tuple[list[int], list[Any]]:
        """The equations that lead from known variables to the wanted ones, in order, and the known ones they use."""
        equations: set[int] = set()
        used: dict[Any, None] = {}
        todo = [v for v in wanted if not isinstance(v, Literal)]
        while todo:
            var = todo.pop()
            if known(var):
                used[var] = None
            elif (i := self._made_by.get(var)) is None:
                raise KeyError(f"input {self._name(var)!r} of the program has no value")
            elif i not in equations:
                equations.add(i)
                todo.extend(v for v in self.eqns[i].invars if not isinstance(v, Literal))
        return sorted(equations), list(used)

    def _name(self, var: Any) -> str:
        return next((name for name, v in self.inputs.items() if v is var), str(var))

    def evaluate(
        self,
        wanted: Iterable[Any],
        known: Callable[[Any], bool],
        read: Callable[[Any], Any],
    ) -> Values:
        """Every variable on the way from known ones to the wanted ones, those included, by `read(var)` of the known."""
        wanted = [v for v in wanted if not isinstance(v, Literal)]
        known_too = lambda var: known(var) or var in self.constants  # noqa: E731
        equations, used = self.needed(wanted, known_too)
        eqns = [self.eqns[i] for i in equations]
        made = [v for eqn in eqns for v in eqn.outvars if v in self._used_by or v in self._outvars]
        values = [read(v) if known(v) else self.constants[v] for v in used]
        results = dict(zip(made, jaxpr_as_fun(ClosedJaxpr(self.part(used, made, eqns), []))(*values), strict=True))
        return {**dict(zip(used, values, strict=True)), **results}

    def part(self, inputs: list[Any], outputs: list[Any], eqns: list[Any]) -> Jaxpr:
        """Some of the equations as a program of their own."""
        return self.closed.jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=eqns)

    @cached_property
    def _outvars(self) -> set[Any]:
        return {v for v in self.outputs.values() if not isinstance(v, Literal)}

    @cached_property
    def effectful(self) -> list[int]:
        """The equations that do something besides computing, such as printing, and compute nothing that is read: others
        do it as they are evaluated."""
        read = lambda eqn: any(v in self._used_by or v in self._outvars for v in eqn.outvars)  # noqa: E731
        return [i for i, eqn in enumerate(self.eqns) if eqn.effects and not read(eqn)]

    def run_effects(self, known: Callable[[Any], bool], read: Callable[[Any], Any]) -> None:
        """Does what the program does besides computing, from known variables on."""
        if not self.effectful:
            return
        wanted = [v for i in self.effectful for v in self.eqns[i].invars]
        values = self.evaluate(wanted, known, read)
        used = [v for v in dict.fromkeys(wanted) if not isinstance(v, Literal)]
        part = self.part(used, [], [self.eqns[i] for i in self.effectful])
        jaxpr_as_fun(ClosedJaxpr(part, []))(*(values[v] for v in used))

    def numbers(self, wanted: Iterable[Any], known: Callable[[Any], bool]) -> int:
        """How many numbers the equations on the way compute: what evaluating that part holds at most."""
        equations, _ = self.needed(wanted, lambda var: known(var) or var in self.constants)
        return sum(v.aval.size for i in equations for v in self.eqns[i].outvars if hasattr(v.aval, "size"))


def like_traced(rng_key: jax.Array, var: Any) -> jax.Array:
    """A key of the kind that the program was traced with."""
    if rng_key.dtype == var.aval.dtype:
        return rng_key
    return jax.random.key(jax.random.bits(rng_key, dtype=jnp.uint32))


def scan_counts(eqn: Any) -> tuple[int, int]:
    """Numbers of constants and of carried values, by rank: outside, only what is sliced has a dimension more.

    (The parameters that say so differ between versions of JAX.)
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def same_rank(outside: Any, inside: Any) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(o.aval.shape) == len(i.aval.shape) for o, i in pairs)

    num_carry = same_rank(eqn.outvars, body.outvars)
    return same_rank(eqn.invars, body.invars) - num_carry, num_carry
