"""How often a program evaluates a cost: the evaluations carry a mark, and the marks that its results need are counted.

A mark changes no number. Two evaluations at the same value are one, as they are to XLA.
"""

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params

MARK = "population_count"  # an operation that nothing else here uses
SAME = ("stop_gradient", "copy", "copy_p", "reduce_sum", "broadcast_in_dim", "reshape", "convert_element_type")
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")


Mark = Callable[[jax.Array], jax.Array]


def plain(cost: jax.Array) -> jax.Array:
    """No mark: for what is timed."""
    return cost


@jax.custom_jvp
def marked(cost: jax.Array) -> jax.Array:
    """The same cost, marked as evaluated, and its derivative as well."""
    return cost + _zero(cost)


@marked.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (cost,), (tangent,) = primals, tangents
    return marked(cost), tangent * (1 + _zero(cost))


def _zero(cost: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(cost, {4: jnp.uint32, 8: jnp.uint64}[cost.dtype.itemsize])
    return 0 * jax.lax.population_count(bits).astype(cost.dtype)


def evaluations(program: Callable, *args: Any) -> float:
    """Numbers that are marked on the way to what `program(*args)` returns; of loops whose length is not known, of one
    turn."""
    jaxpr = jax.make_jaxpr(program)(*args)
    return _Numbering().marks(jaxpr.jaxpr)


class _Numbering:
    """Gives equal computations equal numbers, so that what is computed twice counts once."""

    def __init__(self) -> None:
        self.fresh = count()
        self.known: dict[Any, tuple[int, ...]] = {}
        self.made: dict[int, tuple[tuple[int, ...], float]] = {}  # number -> what it is made of, marks of its own

    def marks(self, jaxpr: Any) -> float:
        env = {v: next(self.fresh) for v in (*jaxpr.invars, *jaxpr.constvars)}
        todo, seen, total = self._results(jaxpr, env), set(), 0.0
        while todo:
            number = todo.pop()
            if number in seen or number not in self.made:
                continue
            sources, own = self.made[number]
            seen |= {n for n, (s, _) in self.made.items() if s is sources}  # all results of one equation
            total += own
            todo.extend(sources)
        return total

    def _results(self, jaxpr: Any, env: dict[Any, int]) -> list[int]:
        for eqn in jaxpr.eqns:
            sources = tuple(self._number(v, env) for v in eqn.invars)
            inner = list(jaxprs_in_params(eqn.params))
            if eqn.primitive.name in SAME and eqn.outvars[0].aval == getattr(eqn.invars[0], "aval", None):
                results = sources[:1]  # nothing is done to it
            elif eqn.primitive.name in CALLS and inner and len(inner[0].invars) == len(sources):
                consts = next((p.consts for p in eqn.params.values() if getattr(p, "jaxpr", None) is inner[0]), ())
                inside = dict(zip(inner[0].invars, sources, strict=True))
                inside |= {v: self._constant(c) for v, c in zip(inner[0].constvars, consts, strict=False)}
                results = tuple(self._results(inner[0], inside))
            else:
                results = self._equation(eqn, sources, inner)
            env |= dict(zip(eqn.outvars, results, strict=True))
        return [self._number(v, env) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, sources: tuple[int, ...], inner: list[Any]) -> tuple[int, ...]:
        key = (eqn.primitive.name, sources, str(eqn.params) if not inner else id(eqn))
        if key not in self.known:
            own = math.prod(eqn.outvars[0].aval.shape) if eqn.primitive.name == MARK else 0.0
            own += eqn.params.get("length", 1) * sum(_Numbering().marks(j) for j in inner)
            self.known[key] = tuple(next(self.fresh) for _ in eqn.outvars)
            self.made |= dict.fromkeys(self.known[key], (sources, own))
        return self.known[key]

    def _number(self, v: Any, env: dict[Any, int]) -> int:
        return self._constant(v.val) if isinstance(v, Literal) else env[v]

    def _constant(self, value: Any) -> int:
        key = ("constant", str(value), str(getattr(value, "dtype", type(value)))) if jnp.size(value) < 2 else id(value)
        return self.known.setdefault(key, (next(self.fresh),))[0]
