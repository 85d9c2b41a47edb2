"""Cost terms as sums of parts: what a term adds up at its end becomes outputs of the program.

A factor over many discrete sites, such as the sum of a potential over the pairs of a chain, depends on all of them.
What it adds up does not: each entry of the array before the sum depends on two. The program is traced again with these
arrays as outputs "summand:0#p:y", all of whose entries together are the term.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from autovi.model.graph import Graph, Values, placeholder, trace
from autovi.model.side_by_side import read_atom
from autovi.model.traced import Traced

CALLS = ("jit", "pjit")


def in_summands(traced: Traced, terms: Collection[str]) -> Traced:
    """The program with what these terms add up as further outputs, in `Traced.summands`.

    The end of a term is followed back through sums, and through what multiplies, shifts, masks and reshapes them, as
    long as that is the same whatever the discrete sites are. A term that is no sum has none.

    Example:
        >>> def model():
        ...     with numpyro.plate("n", 5):
        ...         z = numpyro.sample("z", dist.Bernoulli(0.5))
        ...     numpyro.factor("pairs", jnp.sum(z[1:] == z[:-1]))
        >>> in_summands(trace_program(model, None, bind(model, None))[0], ["p:pairs"]).summands
        {'p:pairs': ('summand:0#p:pairs',)}
    """
    if not terms:
        return traced
    discrete = [n for n, s in traced.sites.samples.items() if s.discrete and not s.observed]
    names = [f"node:{n}" for n in (*discrete, *traced.states)]
    names += [n for n in traced.graph.inputs if n.startswith("node:") and "@" in n]
    graph = _opened(traced.graph, [traced.graph.inputs[n] for n in names if n in traced.graph.inputs])
    varying = graph.downstream([graph.inputs[n] for n in names if n in graph.inputs])
    found: dict[str, tuple[str, ...]] = {}

    def program() -> dict[str, Any]:
        made = _inputs(graph)
        graph.run_effects(made.__contains__, made.__getitem__)
        made |= graph.evaluate(graph.outputs.values(), made.__contains__, made.__getitem__)
        ends = _Ends(graph, made | graph.constants, varying)
        out = {o: read_atom(v, made | graph.constants) for o, v in graph.outputs.items()}
        for term in sorted(terms):
            parts = ends.finer(graph.outputs[term], ()) or []
            found[term] = tuple(f"summand:{i}#{term}" for i in range(len(parts)))
            dtype = graph.outputs[term].aval.dtype
            out |= {o: x.astype(dtype) for o, x in zip(found[term], parts, strict=True)}
        return out

    return replace(traced, graph=trace(program), summands={t: found[t] for t in terms})


def _inputs(graph: Graph) -> Values:
    return {v: placeholder(n, v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items()}


# --- the program without calls, so that what is inside of them can be read ---


def _opened(graph: Graph, moved: Collection[Any]) -> Graph:
    """The graph with the compiled functions inside of it written out, where they are downstream of some variables."""
    varying = graph.downstream(moved)

    def program() -> dict[str, Any]:
        made = _inputs(graph) | graph.constants
        _run(graph, graph.eqns, [v for v in graph.outputs.values() if not isinstance(v, Literal)], made, varying)
        return {o: read_atom(v, made) for o, v in graph.outputs.items()}

    return trace(program)


def _run(graph: Graph, eqns: Collection[Any], outvars: Collection[Any], made: Values, varying: Collection[Any]) -> None:
    """Evaluates equations, going into calls that see something `varying`, and adds what they make to `made`."""
    read = {v for e in eqns for v in e.invars if not isinstance(v, Literal)}.union(outvars)
    waiting: list[Any] = []

    def catch_up() -> None:
        used = dict.fromkeys(v for e in waiting for v in e.invars if not isinstance(v, Literal) and v in made)
        new = [v for e in waiting for v in e.outvars if v in read]
        part = ClosedJaxpr(graph.part(list(used), new, list(waiting)), [])
        made.update(zip(new, jaxpr_as_fun(part)(*(made[v] for v in used)), strict=True))
        waiting.clear()

    for eqn in eqns:
        among = [v in varying for v in eqn.invars if not isinstance(v, Literal)]
        if eqn.primitive.name not in CALLS or not any(among):
            waiting.append(eqn)
            continue
        catch_up()
        closed = eqn.params["jaxpr"]
        inner = closed.jaxpr
        inside = dict(zip(inner.invars, (read_atom(v, made) for v in eqn.invars), strict=True))
        inside |= zip(inner.constvars, closed.consts, strict=True)
        moved = [
            i for i, v in zip(inner.invars, eqn.invars, strict=True) if not isinstance(v, Literal) and v in varying
        ]
        ends = [v for v in inner.outvars if not isinstance(v, Literal)]
        _run(graph, inner.eqns, ends, inside, _below(inner.eqns, moved))
        made.update(zip(eqn.outvars, (read_atom(v, inside) for v in inner.outvars), strict=True))
    catch_up()


def _below(eqns: Collection[Any], moved: Collection[Any]) -> set[Any]:
    found = set(moved)
    for eqn in eqns:
        if any(v in found for v in eqn.invars if not isinstance(v, Literal)):
            found.update(eqn.outvars)
    return found


# --- what a term adds up ---


@dataclass(frozen=True)
class _Weight:
    """What is done to each entry after it is made: `apply(entries, array)`."""

    apply: Callable[[jax.Array, jax.Array], jax.Array]
    array: Any

    def moved(self, change: Callable[[jax.Array], jax.Array]) -> _Weight:
        return self if jnp.ndim(self.array) == 0 else replace(self, array=change(self.array))


Weights = tuple[_Weight, ...]
_multiply = lambda x, c: x * c  # noqa: E731
_divide = lambda x, c: x / c  # noqa: E731
_keep = lambda x, c: jnp.where(c, x, 0)  # noqa: E731


class _Ends:
    """Follows terms back. `made` are the values of all variables, `varying` those that depend on discrete sites."""

    def __init__(self, graph: Graph, made: Values, varying: Collection[Any]):
        self.graph, self.made, self.varying = graph, made, varying

    def value(self, atom: Any) -> jax.Array:
        return jnp.asarray(read_atom(atom, self.made))

    def varies(self, atom: Any) -> bool:
        return not isinstance(atom, Literal) and atom in self.varying

    def finer(self, atom: Any, weights: Weights) -> list[jax.Array] | None:
        """Arrays whose entries add up to the weighted ones of a variable; None of one that is no sum."""
        if not self.varies(atom) or (eqn := self.graph.maker(atom)) is None:
            return None
        rule = RULES.get(eqn.primitive.name)
        return None if rule is None else rule(self, eqn, weights)

    def whole(self, atom: Any, weights: Weights, shape: tuple[int, ...]) -> jax.Array:
        """The weighted entries of a variable, which operations take to be of a shape."""
        x = jnp.broadcast_to(self.value(atom), shape)
        for w in weights:
            x = w.apply(x, w.array)
        return x

    def either(self, atom: Any, weights: Weights) -> list[jax.Array]:
        found = self.finer(atom, weights)
        return [self.whole(atom, weights, atom.aval.shape)] if found is None else found

    def scaled(self, eqn: Any, atom: Any, weights: Weights) -> list[jax.Array] | None:
        """The same of the operand of an equation, unless that repeats its entries."""
        return self.finer(atom, weights) if atom.aval.shape == eqn.outvars[0].aval.shape else None

    def added(self, eqn: Any, weights: Weights) -> list[jax.Array] | None:
        """The same of a sum of two, whose parts may be sums of two: None if one of all alone varies, and is no sum."""
        parts, waiting = [], [(v, weights, s) for v, s in zip(eqn.invars, _signs(eqn), strict=True)][::-1]
        while waiting:
            atom, own, sign = waiting.pop()
            own = own if sign > 0 else (*own, MINUS)
            maker = self.graph.maker(atom) if self.varies(atom) else None
            same = atom.aval.shape == eqn.outvars[0].aval.shape
            if maker is not None and same and maker.primitive.name in SUMS:
                waiting += [(v, own, s) for v, s in zip(maker.invars, _signs(maker), strict=True)][::-1]
            else:
                parts.append((atom, own))
        return self.several(eqn, parts)

    def several(self, eqn: Any, parts: list[tuple[Any, Weights]]) -> list[jax.Array] | None:
        """The same of an equation whose result is the sum of some parts."""
        shape = eqn.outvars[0].aval.shape
        found = [self.finer(atom, weights) if atom.aval.shape == shape else None for atom, weights in parts]
        if all(f is None for f in found) and sum(self.varies(atom) for atom, _ in parts) < 2:
            return None
        zero = lambda atom: isinstance(atom, Literal) and not atom.val  # noqa: E731
        whole = [[] if zero(atom) else [self.whole(atom, weights, shape)] for atom, weights in parts]
        return [x for f, w in zip(found, whole, strict=True) for x in (w if f is None else f)]


SUMS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}  # the signs of what is added
MINUS = _Weight(_multiply, -1)


def _signs(eqn: Any) -> tuple[int, int]:
    return SUMS[eqn.primitive.name]


Rule = Callable[[_Ends, Any, Weights], list[jax.Array] | None]


def _reduce_sum(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    axes = eqn.params["axes"]
    return ends.either(eqn.invars[0], tuple(w.moved(lambda x: jnp.expand_dims(x, axes)) for w in weights))


def _added(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    return ends.added(eqn, weights)


def _neg(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    return ends.finer(eqn.invars[0], (*weights, MINUS))


def _mul(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    a, b = eqn.invars if ends.varies(eqn.invars[0]) else eqn.invars[::-1]
    return None if ends.varies(b) else ends.scaled(eqn, a, (*weights, _Weight(_multiply, ends.value(b))))


def _div(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    a, b = eqn.invars
    if not jnp.issubdtype(a.aval.dtype, jnp.inexact):  # whole numbers are rounded
        return None
    return None if ends.varies(b) else ends.scaled(eqn, a, (*weights, _Weight(_divide, ends.value(b))))


def _select(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    which, *cases = eqn.invars
    if ends.varies(which):
        return None
    place = ends.value(which).astype(int)
    return ends.several(eqn, [(v, (*weights, _Weight(_keep, place == k))) for k, v in enumerate(cases)])


def _reshaped(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    """The same entries in another shape, or of another type of numbers that holds them."""
    (x, *rest), (out,) = eqn.invars, eqn.outvars
    numbers = (
        jnp.issubdtype(x.aval.dtype, jnp.number) and jnp.promote_types(x.aval.dtype, out.aval.dtype) == out.aval.dtype
    )
    same = prod(x.aval.shape) == prod(out.aval.shape) and numbers
    if rest or not same:
        return None
    change = lambda w: jnp.broadcast_to(w, out.aval.shape).reshape(x.aval.shape)  # noqa: E731
    return ends.finer(x, tuple(w.moved(change) for w in weights))


def _transpose(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    order = [int(d) for d in eqn.params["permutation"]]
    back = [order.index(d) for d in range(len(order))]
    return ends.finer(eqn.invars[0], tuple(w.moved(lambda x: jnp.transpose(x, back)) for w in weights))


def _dot(ends: _Ends, eqn: Any, weights: Weights) -> list[jax.Array] | None:
    """Products that are added up whole: entry by entry."""
    (left, right), (batch_l, batch_r) = eqn.params["dimension_numbers"]
    a, b = map(ends.value, eqn.invars)
    if len(left) + len(batch_l) < a.ndim or len(right) + len(batch_r) < b.ndim:
        return None
    product = jnp.transpose(a, (*batch_l, *left)) * jnp.transpose(b, (*batch_r, *right))
    axes = tuple(range(len(batch_l), product.ndim))
    for w in (w.moved(lambda x: jnp.expand_dims(x, axes)) for w in weights):
        product = w.apply(product, w.array)
    return [product]


RULES: Mapping[str, Rule] = {
    "reduce_sum": _reduce_sum,
    "dot_general": _dot,
    **dict.fromkeys(SUMS, _added),
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "select_n": _select,
    "transpose": _transpose,
    **dict.fromkeys(["reshape", "squeeze", "broadcast_in_dim", "convert_element_type", "copy"], _reshaped),
}
