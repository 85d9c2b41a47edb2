"""The discrete sites that are summed out together, read from the structure of a program: a network of their factors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Self

import jax
import jax.numpy as jnp

from autovi.analysis.structure import Structure
from autovi.elimination.elements import STEP, taken_apart
from autovi.elimination.eliminate import Intractable, eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.network import Network
from autovi.elimination.placed import Axes, Mixed, Placed
from autovi.elimination.semirings import Counted
from autovi.elimination.sweeps import Sweep
from autovi.model.lags import lagged
from autovi.model.sites import Site

SET_APART = "which then cannot be set all at once"
MOST_AXES = 6  # of a table that a sentence names


@dataclass(frozen=True)
class Cost:
    """What an elimination holds, in numbers for each particle: the `largest` table, with its axes, and all together."""

    order: tuple[str, ...]
    largest: int
    axes: tuple[tuple[str, int], ...]
    numbers: int

    @property
    def table(self) -> str:
        """The axes of the largest table in words."""
        named = [f"{a} {n}" if not a.startswith("%") else str(n) for a, n in self.axes]
        more = len(named) - MOST_AXES
        return " x ".join(named if more <= 0 else [*named[:MOST_AXES], f"{more} more"])


@dataclass(frozen=True)
class Together:
    """Sites that leave the guide together, with all `terms` that they are felt in. `dims` are the axes of elements of
    each site's batch dimensions, `scale` how many elements of the full plates one of theirs stands for."""

    sites: tuple[str, ...]
    terms: Mapping[str, Placed]
    dims: Mapping[str, tuple[str | None, ...]]
    scale: float

    @property
    def name(self) -> str:
        """What the term that takes the place of theirs is called."""
        return ", ".join(self.sites)

    def elements_of(self, site: str) -> tuple[str, ...]:
        """The axes of a site's elements."""
        return tuple(d for d in self.dims[site] if d is not None)

    def lengths(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """How many elements there are along each axis, where the sites have these shapes."""
        return {
            a: n for s in self.sites for a, n in zip(self.dims[s], shapes[s][: len(self.dims[s])], strict=True) if a
        }

    def resized(self, shapes: Mapping[str, tuple[int, ...]], scale: float) -> Self:
        """The same in a program with other numbers of elements."""
        return replace(self, scale=scale)


@dataclass(frozen=True)
class Group(Together):
    """Discrete sites of finite support that are summed out together, by tables. Where elements along an axis meet, they
    are variables of their own: the axis is in `split`, and the tables are those of `sweeps` (`elements.py`). `states`
    are what a scan carries as variables of their own (`model/states.py`), summed out with them."""

    network: Network
    cost: Cost
    split: frozenset[str] = frozenset()
    sweeps: tuple[Sweep, ...] = ()
    by_data: bool = False  # an index made of data stands in the way of knowing which elements meet
    states: tuple[str, ...] = ()

    @property
    def summed(self) -> tuple[str, ...]:
        """All that is summed out: sites and states."""
        return (*self.sites, *self.states)

    def resized(self, shapes: Mapping[str, tuple[int, ...]], scale: float) -> Self:
        network = replace(self.network, sizes={**self.network.sizes, **self.lengths(shapes)})
        return replace(self, scale=scale, network=network)


def felt_by(structure: Structure, site: str) -> set[str]:
    """The model's terms that depend on a site."""
    return {t for t in structure.downstream[site] if t.startswith("p:")}


def between(members: Collection[str], structure: Structure) -> set[str]:
    """The terms that depend on sites, but for the densities of these."""
    return set().union(*(felt_by(structure, s) for s in members)) - {f"p:{s}" for s in members}


def connected(sites: Iterable[str], structure: Structure) -> list[tuple[str, ...]]:
    """The sites in groups that share no term."""
    groups: list[tuple[list[str], set[str]]] = []
    for site in sites:
        terms = felt_by(structure, site)
        joined = [g for g in groups if g[1] & terms]
        groups = [g for g in groups if not g[1] & terms]
        groups.append(([*(n for g in joined for n in g[0]), site], terms.union(*(g[1] for g in joined))))
    return [tuple(members) for members, _ in groups]


def group_of(
    members: Collection[str], sites: Mapping[str, Site], structure: Structure, scale: float, budget: int
) -> Group:
    """The group that these sites, which share terms, make.

    Raises:
        Mixed: a term sees several elements of a site at once, which are not told apart, or too many of them.
        Intractable: elements are coupled through variables outside.
    """
    sizes = {s: len(sites[s].values or ()) for s in members}
    states = tuple(s for s in members if s in structure.states)
    drawn = tuple(s for s in members if s not in structure.states)
    try:
        network, terms, dims = network_of(members, sites, structure, sizes)
    except Mixed:
        if states or structure.summands is None or not between(members, structure) <= structure.summands.outputs.keys():
            raise
        return _of_elements(members, sites, structure, scale, budget)
    cost = cost_of(network, [(p.axes, t) for t, p in terms.items()])
    return Group(drawn, terms, dims, scale, network, cost, states=states)


def _of_elements(
    members: Collection[str],
    sites: Mapping[str, Site],
    structure: Structure,
    scale: float,
    budget: int,
) -> Group:
    """The group with elements as variables of their own: the cheapest of the ways in which they can be."""
    assert structure.summands is not None
    best: Group | None = None
    why: Intractable | None = None
    networks = taken_apart(members, sites, structure, lags_of(members, sites, structure), budget)
    while True:
        try:
            apart = next(networks, None)
        except Mixed:
            if best is None:
                raise
            apart = None
        if apart is None:
            break
        evaluated = sum(prod(s.shape) * prod(structure.summands.shape(p.output)) for s in apart.sweeps for p in s.parts)
        try:
            cost = cost_of(apart.network, [scope for s in apart.sweeps for scope in s.scopes], evaluated)
        except Intractable as error:
            why = error
            continue
        if best is None or cost.numbers < best.cost.numbers:
            where = (tuple(members), apart.terms, apart.dims, scale)
            best = Group(*where, apart.network, cost, apart.split, apart.sweeps, apart.by_data)
        # A chain of pairs or triples is as cheap along its axis as with its elements apart, and sooner compiled.
        if apart.time is not None and apart.reach <= 2 and cost.numbers <= budget:
            break
    if best is None:
        raise why or Intractable("their elements cannot be told apart")
    return best


def mixes(members: Collection[str], sites: Mapping[str, Site], structure: Structure) -> bool:
    """Do elements of one of these sites meet in a term?"""
    try:
        network_of(members, sites, structure, dict.fromkeys(members, 0))
    except Mixed:
        return True
    return False


def cost_of(network: Network, factors: Iterable[tuple[tuple[str, ...], str]], evaluated: int = 0) -> Cost:
    """The order in which variables are summed out, and what that holds. Nothing is computed. `factors` are the axes of
    tables and the terms that they are of, `evaluated` how many numbers are evaluated to make them, where that is
    more."""
    counted = Counted()
    listed = list(factors)
    shapes = [[network.sizes[a] for a in axes] for axes, _ in listed]

    def run(tables: list[jax.Array]) -> list[jax.Array]:
        made = [Factor(x, axes, frozenset({t})) for x, (axes, t) in zip(tables, listed, strict=True)]
        return [f.table for f in eliminated(network, made, counted)]

    jax.eval_shape(run, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes])
    held: dict[tuple[str, ...], int] = {}
    tables = [(axes, shape) for (axes, _), shape in zip(listed, shapes, strict=True)]
    for axes, shape in [*tables, *((axes, shape) for _, axes, shape, _ in counted.sums)]:
        held[axes] = max(held.get(axes, 0), prod(shape))
    widest = max(held, key=lambda axes: held[axes])
    order = tuple(dict.fromkeys(v for gone, *_ in counted.sums for v in gone if v in network.variables))
    numbers = max(evaluated, sum(map(prod, shapes))) + sum(prod(shape) * times for _, _, shape, times in counted.sums)
    sizes = dict.fromkeys(widest, 0) | {a: n for a, n in network.sizes.items() if a in widest}
    return Cost(order, held[widest], tuple(sizes.items()), numbers)


def lags_of(members: Collection[str], sites: Mapping[str, Site], structure: Structure) -> dict[str, int]:
    """How many steps back sites are felt. One step sees nothing of the steps before."""
    return {s: structure.lags.get(s, 0) if sites[s].batch_shape[:1] != (1,) else 0 for s in members}


def network_of(
    members: Collection[str],
    sites: Mapping[str, Site],
    structure: Structure,
    sizes: Mapping[str, int],
    whole: Collection[str] = (),
) -> tuple[Network, dict[str, Placed], dict[str, tuple[str | None, ...]]]:
    """The network of some sites, where their terms stand in it, and the axes of their elements.

    `sizes` are the sites' numbers of values. All elements of a site that is `whole` are taken as one.

    Raises:
        Mixed: a term sees several elements of a site at once that is not whole.
    """
    lags = lags_of(members, sites, structure)
    reached = {lagged(s, k): structure.reached_from(lagged(s, k)) for s in members for k in range(lags[s] + 1)}
    for s in members:  # its own, though it may be the same at all values
        own = {f"p:{s}": tuple(range(len(sites[s].batch_shape)))}
        reached[s] = own | dict(reached[s])
    site_of = {lagged(s, k): s for s in members for k in range(lags[s] + 1)}
    axes = Axes()
    for variable, terms in reached.items():
        site = sites[site_of[variable]]
        for term, aligned in terms.items():
            for d, e in enumerate(aligned):
                if site.batch_shape[d] == 1 or site.name in whole:
                    continue
                if e is None:
                    raise Mixed(site.name, f"the term {term!r} mixes its elements, {SET_APART}")
                axes.join((site.name, d), (term, e), site.batch_shape[d])
    dims: dict[str, tuple[str | None, ...]] = {
        s: tuple(axes.name((s, d)) if n > 1 and s not in whole else None for d, n in enumerate(sites[s].batch_shape))
        for s in members
    }
    placed = {
        t: Placed(
            tuple(v for v in reached if t in reached[v]),
            tuple(axes.known((t, e)) for e in range(len(structure.shapes[t]))),
        )
        for t in dict.fromkeys(t for by in reached.values() for t in by)
    }
    _check_apart(dims, placed, site_of)
    values = {v: sizes[s] for v, s in site_of.items()}
    chained = [s for s in members if lags[s]]
    time = {s: axis for s in chained if (axis := dims[s][STEP]) is not None}
    network = Network(
        {**values, **axes.lengths},
        {s: frozenset(d for d in dims[s] if d is not None) for s in members},
        {s: lags[s] for s in time},
        time,
        structure.backward.intersection(time),
    )
    return network, placed, dims


def _check_apart(
    dims: Mapping[str, tuple[str | None, ...]], placed: Mapping[str, Placed], site_of: Mapping[str, str]
) -> None:
    for site, own in dims.items():
        named = [d for d in own if d is not None]
        if len(set(named)) < len(named):
            raise Mixed(site, f"its elements along two dimensions meet, {SET_APART}")
    for term, where in placed.items():
        named = [d for d in where.dims if d is not None]
        if len(set(named)) < len(named):
            raise Mixed(
                site_of[where.variables[0]], f"the term {term!r} mixes elements along two dimensions, {SET_APART}"
            )
