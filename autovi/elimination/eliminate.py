"""Sums all variables out of a network: innermost elements first, products over their axes outside.

Tensor variable elimination (Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush and Goodman, 2019, "Tensor Variable
Elimination for Plated Factor Graphs", algorithm 1), with chains along an axis of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from autovi.elimination.chain import chained, summed_over_steps
from autovi.elimination.factors import Factor, contracted, without
from autovi.elimination.network import Network
from autovi.elimination.semirings import Semiring


class Intractable(ValueError):
    """The elements of an axis are coupled to each other through variables that have elements along it too."""


def eliminated(network: Network, factors: Sequence[Factor], semiring: Semiring, lanes: int = 1) -> list[Factor]:
    """Factors over axes of elements alone, whose sum is the log of the sum over all configurations. `lanes` particles
    are side by side, where memory counts.

    Raises:
        Intractable: it cannot be done element by element; the message says what is coupled.
    """
    return swept(network, factors, partial(_summed_out, semiring=semiring, lanes=lanes))


def swept(network: Network, factors: Sequence[Any], summed_out: Callable[[Network, list[Any], set[str]], Any]) -> Any:
    """The same of factors of any kind, which have `axes` and can be `added_up` over those of elements.

    `summed_out(network, factors, local)` is the product of some factors of a level without the variables among `local`,
    which have elements along all axes of the level.
    """
    left, done = list(factors), []
    while left:
        level = max((network.level(f.axes) for f in left), key=lambda axes: (len(axes), sorted(axes)))
        here = [f for f in left if network.level(f.axes) == level]
        left = [f for f in left if network.level(f.axes) != level]
        local = {v for f in here for v in network.of(f.axes) if network.elements[v] == level}
        for component in _components(network, here, local):
            made = summed_out(network, component, local)
            outer = network.of(made.axes)
            if not outer:
                done.append(made)
                continue
            kept = frozenset().union(*(network.elements[v] for v in outer))
            if kept == level:
                inside = sorted({v for f in component for v in network.of(f.axes)})
                raise Intractable(f"{', '.join(map(repr, inside))} are coupled across elements, along several axes")
            left.append(made.added_up(network.level(made.axes) - kept))
    return done


def _components(network: Network, factors: Sequence[Any], local: Collection[str]) -> list[list[Any]]:
    """The factors in groups that share no variable of this level."""
    groups: list[tuple[set[str], list[Any]]] = []
    for factor in factors:
        variables = set(network.of(factor.axes)) & set(local)
        joined = [g for g in groups if g[0] & variables]
        groups = [g for g in groups if not g[0] & variables]
        merged = variables.union(*(g[0] for g in joined)), [*(f for g in joined for f in g[1]), factor]
        groups.append(merged)
    return [members for _, members in groups]


def _summed_out(
    network: Network, factors: Sequence[Factor], local: Collection[str], semiring: Semiring, lanes: int
) -> Factor:
    """One group of factors without the variables of its level."""
    there, chains, time = chains_among(network, factors, local)
    if time is None:
        return contracted([_whole(network, f) for f in factors], there, semiring)
    inside = there - chains
    own = [f for f in factors if inside & set(network.of(f.axes))]
    steps = [f for f in factors if not inside & set(network.of(f.axes))]
    backward = network.backward.issuperset(chains)
    steps += _within_steps(own, inside, time, backward, semiring) if own else []
    return chained(network, steps, sorted(chains), time, semiring, lanes)


def _within_steps(
    factors: Sequence[Factor], inside: Collection[str], time: str, backward: bool, semiring: Semiring
) -> list[Factor]:
    """The factors without the variables that are felt in their own step alone. What is the same at all steps but the
    first is held once."""
    left = summed_over_steps([f._replace(first=()) for f in factors], inside, semiring)
    firsts = []
    for step in range(max(len(f.first) for f in factors)):
        here = [_at_first(f, time, step, backward) for f in factors]
        firsts.append(summed_over_steps(here, inside, semiring))
    axes = [without(f.axes, {time}) for f in left]
    tables = [tuple(of[i].along(a) for of in firsts) for i, a in enumerate(axes)]
    return [f._replace(first=of) for f, of in zip(left, tables, strict=True)]


def _at_first(factor: Factor, time: str, step: int, backward: bool) -> Factor:
    """A factor at one of the first steps."""
    if step < len(factor.first):
        return Factor(factor.first[step], without(factor.axes, {time}), factor.sources)
    return factor.at(time, -1 - step if backward else step) if time in factor.axes else factor


def _whole(network: Network, factor: Factor) -> Factor:
    named = [a for a in factor.axes if a in network.variables]
    if not factor.first:
        return factor.whole(network.sizes)
    backward = any(network.variables[a] in network.backward for a in named)
    return factor.whole(network.sizes, network.time_of(named), backward)


def chains_among(
    network: Network, factors: Sequence[Any], local: Collection[str]
) -> tuple[set[str], set[str], str | None]:
    """The variables among `local` that some factors have, those of them that are chains, and the axis of their steps.

    Raises:
        Intractable: the chains do not go along one axis one way, or something that is not summed out yet couples them.
    """
    there = {v for f in factors for v in network.of(f.axes) if v in local}
    chains = {v for v in there if network.lags.get(v, 0)}
    if not chains:
        return there, chains, None
    axes = {network.time[v] for v in chains}
    if len(axes) > 1:
        raise Intractable(f"{', '.join(map(repr, sorted(chains)))} are chains along several axes")
    (time,) = axes
    if chains & network.backward and not chains <= network.backward:
        raise Intractable(f"{', '.join(map(repr, sorted(chains)))} are chains in opposite directions")
    outside = {v for f in factors for v in network.of(f.axes) if v not in local and time in network.elements[v]}
    if outside:
        raise Intractable(
            f"{', '.join(map(repr, sorted(chains)))} are chains for each element, coupled by "
            f"{', '.join(map(repr, sorted(outside)))}, which all of them share at a step"
        )
    return there, chains, time
