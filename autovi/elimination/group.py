"""The discrete sites that are summed out together, read from the structure of a program: a network of their factors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp

from autovi.analysis.structure import Structure
from autovi.elimination.eliminate import eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.network import Network
from autovi.elimination.semirings import Counted
from autovi.model.lags import lagged
from autovi.model.sites import Site

STEP = 0  # the dimension of steps, of sites in a scan


class Mixed(ValueError):
    """A site's elements cannot be told apart in a term; `site` is whose."""

    def __init__(self, site: str, message: str):
        super().__init__(message)
        self.site = site


@dataclass(frozen=True)
class Placed:
    """A cost term: the variables that it depends on, and the axis of elements of each of its dimensions (None: it is
    summed over this one)."""

    variables: tuple[str, ...]
    dims: tuple[str | None, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of its table."""
        return (*self.variables, *(d for d in self.dims if d is not None))


@dataclass(frozen=True)
class Cost:
    """What an elimination holds, in numbers for each particle: the `largest` table, with its axes, and all together."""

    order: tuple[str, ...]
    largest: int
    axes: tuple[tuple[str, int], ...]
    numbers: int


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


@dataclass(frozen=True)
class Group(Together):
    """Discrete sites of finite support that are summed out together, by tables."""

    network: Network
    cost: Cost

    def axes_of(self, site: str) -> tuple[str, ...]:
        """The axes of a table over one site's values."""
        return (site, *self.elements_of(site))


def felt_by(structure: Structure, site: str) -> set[str]:
    """The model's terms that depend on a site."""
    return {t for t in structure.downstream[site] if t.startswith("p:")}


def connected(sites: Iterable[str], structure: Structure) -> list[tuple[str, ...]]:
    """The sites in groups that share no term."""
    groups: list[tuple[list[str], set[str]]] = []
    for site in sites:
        terms = felt_by(structure, site)
        joined = [g for g in groups if g[1] & terms]
        groups = [g for g in groups if not g[1] & terms]
        groups.append(([*(n for g in joined for n in g[0]), site], terms.union(*(g[1] for g in joined))))
    return [tuple(members) for members, _ in groups]


def group_of(members: Collection[str], sites: Mapping[str, Site], structure: Structure, scale: float) -> Group:
    """The group that these sites, which share terms, make.

    Raises:
        Mixed: a term sees several elements of a site at once.
        Intractable: elements are coupled through variables outside.
    """
    sizes = {s: len(sites[s].values or ()) for s in members}
    network, terms, dims = network_of(members, sites, structure, sizes)
    return Group(tuple(members), terms, dims, scale, network, cost_of(network, terms))


def cost_of(network: Network, terms: Mapping[str, Placed]) -> Cost:
    """The order in which variables are summed out, and what that holds. Nothing is computed."""
    counted = Counted()
    shapes = {t: [network.sizes[a] for a in placed.axes] for t, placed in terms.items()}

    def run(tables: dict[str, jax.Array]) -> list[jax.Array]:
        factors = [Factor(tables[t], placed.axes, frozenset({t})) for t, placed in terms.items()]
        return [f.table for f in eliminated(network, factors, counted)]

    jax.eval_shape(run, {t: jax.ShapeDtypeStruct(shape, jnp.float32) for t, shape in shapes.items()})
    held = {p.axes: prod(shapes[t]) for t, p in terms.items()}
    for _, axes, shape, _ in counted.sums:
        held[axes] = max(held.get(axes, 0), prod(shape))
    widest = max(held, key=lambda axes: held[axes])
    order = tuple(dict.fromkeys(v for gone, *_ in counted.sums for v in gone if v in network.variables))
    numbers = sum(map(prod, shapes.values())) + sum(prod(shape) * times for _, _, shape, times in counted.sums)
    sizes = dict.fromkeys(widest, 0) | {a: n for a, n in network.sizes.items() if a in widest}
    return Cost(order, held[widest], tuple(sizes.items()), numbers)


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
    # One step sees nothing of the steps before.
    lags = {s: structure.lags.get(s, 0) if sites[s].batch_shape[:1] != (1,) else 0 for s in members}
    reached = {lagged(s, k): structure.reached_from(lagged(s, k)) for s in members for k in range(lags[s] + 1)}
    for s in members:  # its own, though it may be the same at all values
        own = {f"p:{s}": tuple(range(len(sites[s].batch_shape)))}
        reached[s] = own | dict(reached[s])
    site_of = {lagged(s, k): s for s in members for k in range(lags[s] + 1)}
    axes = _Axes()
    for variable, terms in reached.items():
        site = sites[site_of[variable]]
        for term, aligned in terms.items():
            for d, e in enumerate(aligned):
                if site.batch_shape[d] == 1 or site.name in whole:
                    continue
                if e is None:
                    raise Mixed(site.name, f"the term {term!r} mixes its elements")
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
    )
    return network, placed, dims


def _check_apart(
    dims: Mapping[str, tuple[str | None, ...]], placed: Mapping[str, Placed], site_of: Mapping[str, str]
) -> None:
    for site, own in dims.items():
        named = [d for d in own if d is not None]
        if len(set(named)) < len(named):
            raise Mixed(site, "its elements along two dimensions meet")
    for term, where in placed.items():
        named = [d for d in where.dims if d is not None]
        if len(set(named)) < len(named):
            raise Mixed(site_of[where.variables[0]], f"the term {term!r} mixes elements along two dimensions")


class _Axes:
    """Dimensions of sites and terms, joined where they are the same elements."""

    def __init__(self) -> None:
        self._above: dict[tuple[str, int], tuple[str, int]] = {}
        self._length: dict[tuple[str, int], int] = {}

    def join(self, one: tuple[str, int], other: tuple[str, int], length: int) -> None:
        """Says that two dimensions are the same."""
        top = self._top(one)
        self._above[self._top(other)] = top
        self._length[top] = length

    def _top(self, dim: tuple[str, int]) -> tuple[str, int]:
        while self._above.setdefault(dim, dim) != dim:
            dim = self._above[dim]
        return dim

    def known(self, dim: tuple[str, int]) -> str | None:
        """The name of a dimension; None of one that is no site's."""
        return self.name(dim) if dim in self._above else None

    def name(self, dim: tuple[str, int]) -> str:
        """What a dimension and all that are joined with it are called."""
        where, place = self._top(dim)
        return f"%{where}.{place}"

    @property
    def lengths(self) -> dict[str, int]:
        """How many elements each has."""
        return {self.name(d): self._length[self._top(d)] for d in self._above if self._top(d) in self._length}
