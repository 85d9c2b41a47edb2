"""Discrete elements that are felt by their sum: the distribution of a sum of independent ones.

z has many elements, each with few values 0, 1, ..., K - 1, and a term such as Normal(z.sum(), 1) depends on all of them
by their total alone. Given all else the elements are independent but for that term: the distribution of the sum of the
first n + 1 is that of the first n, shifted by each value of the next. N elements take N (K - 1) N K numbers where a
table of their configurations would have K^N. Elements are drawn backward, each given what is left of the total.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.costs import Aligned
from autovi.elimination.choosing import BUDGET, subsampled_below
from autovi.elimination.closed.base import Closed, Form, Found, Seen, Where
from autovi.elimination.elements import MAX_EVALUATED
from autovi.elimination.factors import Factor
from autovi.elimination.group import felt_by
from autovi.elimination.placed import Placed
from autovi.elimination.semirings import Largest, Summed
from autovi.model.graph import Graph
from autovi.model.sites import Site

COPIES = frozenset("convert_element_type copy".split())


class AddedUp(Form):
    """Finite sites of too many elements for a table, of which terms feel the sum over some dimensions."""

    on_request = False

    @classmethod
    def offers(cls, site: Any) -> bool:
        listed = site.values is not None and site.values == tuple(range(len(site.values)))
        return site.discrete and listed and bool(site.batch_shape) and not (site.event_shape or site.from_scan)

    @classmethod
    def find(cls, names: Collection[str], where: Where) -> Found:
        closed = tuple(c for n in names if (c := _of(n, where)) is not None)
        return Found(closed)


def _of(name: str, where: Where) -> Added | None:
    """The closed form of a site, if it has one."""
    graph, structure, site = where.traced.graph, where.structure, where.sites[name]
    if site.masked or f"mask:{name}" in graph.outputs or subsampled_below(name, structure) is not None:
        return None
    felt = {t: structure.downstream[name][t] for t in sorted(felt_by(structure, name) - where.unfelt)}
    felt[f"p:{name}"] = tuple(range(len(site.batch_shape)))
    many = [d for d, n in enumerate(site.batch_shape) if n > 1]
    whole = [t for t, aligned in felt.items() if any(aligned[d] is None for d in many)]
    if not whole or name in where.traced.lags:
        return None
    for over, totals in _sums(graph, graph.inputs[f"node:{name}"]).items():
        batched = {len(site.batch_shape) + p.dim for p in site.plates if p.subsampled}
        if batched & set(over):  # the sum is that of a batch alone
            continue
        apart = all(felt[t][d] is not None for t in whole for d in many if d not in over)
        if apart and _by_these_alone(graph, whole, name, totals) and _worth_it(site, over):
            return _made(name, felt, whole, over, where)
    return None


def _sums(graph: Graph, node: Any) -> dict[tuple[int, ...], list[Any]]:
    """The sums of a node's elements in a program, by the dimensions that they are over."""
    same: list[Any] = [node]
    found: dict[tuple[int, ...], list[Any]] = {}
    for v in same:  # which grows
        for eqn in graph.users(v):
            if eqn.primitive.name in COPIES:
                same.append(eqn.outvars[0])
            elif eqn.primitive.name == "reduce_sum":
                found.setdefault(tuple(eqn.params["axes"]), []).append(eqn.outvars[0])
    return found


def _by_these_alone(graph: Graph, terms: Collection[str], name: str, totals: Collection[Any]) -> bool:
    """Do terms depend on a site by its totals alone?"""
    known = {*graph.inputs.values(), *graph.constants, *totals}
    _, used = graph.needed([graph.outputs[t] for t in terms], known.__contains__)
    return graph.inputs[f"node:{name}"] not in used


def _worth_it(site: Site, over: tuple[int, ...]) -> bool:
    """Are there too many configurations for a table, and few enough sums?"""
    count, values = prod(site.batch_shape[d] for d in over), len(site.values or ())
    held = count * (count * (values - 1) + 1) * values * (prod(site.batch_shape) // count)
    return count * np.log(values) > np.log(MAX_EVALUATED) and held <= BUDGET


def _made(name: str, felt: dict[str, Aligned], whole: Collection[str], over: tuple[int, ...], where: Where) -> Added:
    site = where.sites[name]
    own = tuple(None if d in over or n == 1 else f"%{name}.{d}" for d, n in enumerate(site.batch_shape))
    terms = {}
    for t, aligned in felt.items():
        dims: list[str | None] = [None] * len(where.structure.shapes[t])
        for d, e in enumerate(aligned):
            if e is not None and own[d] is not None:
                dims[e] = own[d]
        terms[t] = Placed((name,), tuple(dims))
    scale, values = where.scales.get(name, 1.0), len(site.values or ())
    return Added((name,), terms, {name: own}, scale, over, tuple(whole), tuple(felt.items()), values)


@dataclass(frozen=True)
class Added(Closed):
    """A site whose sum over the dimensions `over` is felt by the terms `whole`; `aligned` is how all terms that feel it
    are along its dimensions, of which those other than `whole` are element by element."""

    over: tuple[int, ...]
    whole: tuple[str, ...]
    aligned: tuple[tuple[str, Aligned], ...]
    num_values: int

    @property
    def said(self) -> str:
        felt = ", ".join(repr(t.removeprefix("p:")) for t in self.whole)
        return f"its elements are independent given their sum, by which {felt} depends on them"

    def log_sums(self, seen: Seen) -> list[Factor]:
        return [Factor(self.scale * self._log_sum(seen), self.elements_of(self.sites[0]), frozenset(self.terms))]

    def probabilities(self, seen: Seen) -> dict[str, jax.Array]:
        (name,) = self.sites
        flat = jnp.zeros((self.num_values, *seen.shape(name)))
        return {name: jax.grad(lambda more: jnp.sum(self._log_sum(seen, more)))(flat)}

    def drawn(self, rng_key: jax.Array, seen: Seen) -> dict[str, jax.Array]:
        return self._chosen(seen, Summed().total, jax.random.categorical, rng_key)

    def most_likely(self, seen: Seen) -> dict[str, jax.Array]:
        best = lambda key, logits, axis: jnp.argmax(logits, axis)  # noqa: E731
        return self._chosen(seen, Largest().total, best, jax.random.key(0))

    def _log_sum(self, seen: Seen, more: Any = 0.0) -> jax.Array:
        """The log of the sum over all configurations, by the elements that are not added up."""
        messages, _ = self._messages(self._weights(seen, more), Summed().total)
        return Summed().total(messages + self._at_sums(seen), (0,))

    def _weights(self, seen: Seen, more: Any = 0.0) -> jax.Array:
        """The log weights of the values of each element, but for the terms of sums, `[N, K, *others]`."""
        (name,) = self.sites
        shape = seen.shape(name)
        alone = {t: a for t, a in self.aligned if t not in self.whole}

        def at(value: jax.Array) -> jax.Array:
            terms = seen.terms(list(alone), {name: jnp.full(shape, value)})
            return jnp.asarray(sum(jnp.broadcast_to(_onto(terms[t], alone[t]), shape) for t in alone)) / self.scale

        weights = jax.vmap(at)(jnp.arange(self.num_values)) + more
        weights = jnp.moveaxis(weights, [1 + d for d in self.over], range(len(self.over)))
        counts = weights.shape[: len(self.over)]
        return weights.reshape(prod(counts), self.num_values, *self._rest(shape))

    def _rest(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths of a site's dimensions that are not added up, those of one element left out."""
        return tuple(n for n, d in zip(shape, self.dims[self.sites[0]], strict=True) if d is not None)

    def _at_sums(self, seen: Seen) -> jax.Array:
        """The terms of sums at each sum `[sums, *others]`: at the configurations whose first elements are largest."""
        (name,) = self.sites
        shape, most = seen.shape(name), self.num_values - 1
        counts = [shape[d] for d in self.over]
        own = dict(self.aligned)

        def at(total: jax.Array) -> jax.Array:
            elements = jnp.clip(total - most * jnp.arange(prod(counts)), 0, most).reshape(counts)
            value = jnp.expand_dims(elements, [d for d in range(len(shape)) if d not in self.over])
            terms = seen.terms(self.whole, {name: jnp.broadcast_to(value, shape)})
            found = sum(jnp.broadcast_to(_onto(terms[t], own[t]), self._one_sum(shape)) for t in self.whole)
            return jnp.asarray(found).reshape(self._rest(shape)) / self.scale

        return jax.vmap(at)(jnp.arange(prod(counts) * most + 1))

    def _one_sum(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(1 if d is None else n for n, d in zip(shape, self.dims[self.sites[0]], strict=True))

    def _messages(self, weights: jax.Array, total: Callable) -> tuple[jax.Array, jax.Array]:
        """The log weight of each sum `[sums, *others]` of all elements, and of those before each."""
        sums = len(weights) * (self.num_values - 1) + 1
        start = jnp.full((sums, *weights.shape[2:]), -jnp.inf, weights.dtype).at[0].set(0.0)

        def step(message: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
            return total(jnp.stack([_shifted(message, v) + own[v] for v in range(self.num_values)]), (0,)), message

        return jax.lax.scan(step, start, weights)

    def _chosen(self, seen: Seen, total: Callable, choose: Callable, rng_key: jax.Array) -> dict[str, jax.Array]:
        """The elements, the last first, each given what the others are to add up to."""
        (name,) = self.sites
        weights = self._weights(seen)
        whole, before = self._messages(weights, total)
        keys = jax.random.split(rng_key, len(weights) + 1)
        end = choose(keys[0], whole + self._at_sums(seen), axis=0)

        def step(left: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
            key, own, message = now
            logits = [jnp.take_along_axis(_shifted(message, v), left[None], 0)[0] for v in range(self.num_values)]
            value = choose(key, jnp.stack(logits) + own, axis=0)
            return left - value, value

        _, values = jax.lax.scan(step, end, (keys[1:], weights, before), reverse=True)
        shape = seen.shape(name)
        counts = [shape[d] for d in self.over]
        rest = [shape[d] for d in range(len(shape)) if d not in self.over]
        return {name: jnp.moveaxis(values.reshape(*counts, *rest), range(len(counts)), self.over)}


def _shifted(message: jax.Array, by: int) -> jax.Array:
    """The weights of sums that are larger by a value."""
    if by == 0:
        return message
    return jnp.concatenate([jnp.full_like(message[:by], -jnp.inf), message[:-by]])


def _onto(term: jax.Array, aligned: Aligned) -> jax.Array:
    """A term added up over all but the dimensions of a site, in their order, of size 1 where it has none."""
    kept = [e for e in aligned if e is not None]
    summed = jnp.sum(term, tuple(e for e in range(term.ndim) if e not in kept))
    moved = jnp.transpose(summed, [sorted(kept).index(e) for e in kept])
    return jnp.expand_dims(moved, [d for d, e in enumerate(aligned) if e is None])
