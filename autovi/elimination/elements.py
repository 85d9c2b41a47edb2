"""Sites whose own elements meet in terms: each element is a variable of its own, in the factors that depend on it.

Terms are taken apart into what they add up (`model/summands.py`), and the entries of that into those that depend on the
same elements (`analysis/elementwise.py`): a chain in one array has a factor for each pair of neighbours. Along the
dimensions in which no two elements meet, sites keep axes of elements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from autovi.analysis.structure import Structure
from autovi.analysis.summands import Summands
from autovi.elimination.colours import swept
from autovi.elimination.network import Network
from autovi.elimination.placed import Axes, Dim, Mixed, Placed
from autovi.elimination.sweeps import Element, Named, Part, Sweep, element_name
from autovi.model.lags import lagged
from autovi.model.sites import Site

MAX_ELEMENTS = 300  # of one site that are variables of their own
MAX_CHAINED = 5_000  # of one site that are looked at one by one
MAX_EVALUATED = 50_000  # configurations of elements that meet: each is an evaluation of what they are felt in
MANY = 1_024  # configurations from which on evaluations, of networks say, are what takes the time
MAX_NUMBERS = 5_000_000  # of one particle that so many evaluations may compute of a term: about half a second a step
MIN_CHAINED = 8  # steps of a chain, of which fewer are as soon compiled one by one
MAX_REACH = 4  # steps between elements of a chain that meet
STEP = 0  # the dimension of steps, of sites in a scan


@dataclass(frozen=True)
class Apart:
    """The network of single elements of some sites, and how its tables are evaluated; as in `Group`."""

    network: Network
    terms: Mapping[str, Placed]
    dims: Mapping[str, tuple[str | None, ...]]
    split: frozenset[str]
    sweeps: tuple[Sweep, ...]
    time: str | None = None  # the axis of a chain among them
    reach: int = 0  # how many steps apart elements of it meet
    by_data: bool = False  # an index made of data stands in the way, so that more may seem to meet than do


def taken_apart(
    members: Collection[str],
    sites: Mapping[str, Site],
    structure: Structure,
    lags: Mapping[str, int],
    budget: int,
) -> Iterator[Apart]:
    """The networks of these sites' elements: as chains, where they can be, and with all elements apart.

    Raises:
        Mixed: elements meet that cannot be told apart, or too many of them.
    """
    assert structure.summands is not None
    return _Elements(tuple(members), sites, structure, structure.summands, lags, budget).networks()


class _Elements:
    def __init__(
        self,
        members: tuple[str, ...],
        sites: Mapping[str, Site],
        structure: Structure,
        summands: Summands,
        lags: Mapping[str, int],
        budget: int,
    ):
        self.members, self.sites, self.structure, self.summands = members, sites, structure, summands
        self.lags, self.budget = lags, budget
        self.site_of = {lagged(s, k): s for s in members for k in range(lags[s] + 1)}
        self.reached = {v: structure.reached_from(v) for v in self.site_of}
        for s in members:  # its own, though it may be the same at all values
            self.reached[s] = {f"p:{s}": tuple(range(len(sites[s].batch_shape)))} | dict(self.reached[s])
        self.terms = tuple(dict.fromkeys(t for by in self.reached.values() for t in by))
        self.axes = Axes()
        self.mixed = self._joined()
        self.split = {s: self._split(s) for s in members}

    # --- axes of elements, and dimensions along which elements meet ---

    def outputs(self, term: str) -> tuple[str, ...]:
        """What a term adds up; itself, if it is no sum."""
        return self.summands.outputs.get(term) or (term,)

    def aligned(self, output: str, term: str) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        """The variables that an output depends on, and where it has their dimensions."""
        for v in self.site_of:
            if output == term and term in self.reached[v]:
                yield v, self.reached[v][term]
            elif v in self.summands.aligned.get(output, {}):
                yield v, self.summands.aligned[output][v]

    def _joined(self) -> set[Dim]:
        """Joins dimensions that are the same, and returns those along which elements meet."""
        meet = []
        for term in self.terms:
            for output in dict.fromkeys((*self.outputs(term), term)):
                for v, aligned in self.aligned(output, term):
                    site = self.sites[self.site_of[v]]
                    for d, e in enumerate(aligned):
                        if site.batch_shape[d] == 1:
                            continue
                        if e is not None:
                            self.axes.join((site.name, d), (output, e), site.batch_shape[d])
                        elif output in self.outputs(term):
                            meet.append((site.name, d))
        for where, rank in self._ranks():
            known = [self.axes.top((where, d)) for d in range(rank) if self.axes.known((where, d)) is not None]
            meet += [dim for dim in known if known.count(dim) > 1]
        return {self.axes.top(dim) for dim in meet}

    def _ranks(self) -> Iterator[tuple[str, int]]:
        yield from ((s, len(self.sites[s].batch_shape)) for s in self.members)
        yield from ((o, len(self.summands.shape(o))) for t in self.terms for o in (*self.outputs(t), t))

    def _split(self, name: str) -> tuple[int, ...]:
        """The dimensions of a site along which its elements are told apart."""
        site = self.sites[name]
        many = [d for d, n in enumerate(site.batch_shape) if n > 1]
        found = tuple(d for d in many if self.axes.top((name, d)) in self.mixed)
        if STEP in found and self.lags[name]:
            raise Mixed(name, "its steps meet in a term otherwise than by the scan's carry")
        for plate in site.plates:
            if plate.subsampled and len(site.batch_shape) + plate.dim in found:
                raise Mixed(name, f"elements of the subsampled plate {plate.name!r} meet in a term")
        count = prod(site.batch_shape[d] for d in found)
        if count > MAX_CHAINED:
            raise Mixed(name, f"its {count:,} elements meet in terms, and at most {MAX_CHAINED:,} are told apart")
        return found

    def axis(self, where: str, dim: int) -> str | None:
        """The axis of elements along a dimension of a site or a term; None where there is none."""
        apart = self.axes.known((where, dim)) is None or self.axes.top((where, dim)) in self.mixed
        return None if apart else self.axes.name((where, dim))

    # --- which elements meet ---

    def networks(self) -> Iterator[Apart]:
        """Everything together: as chains along each axis of elements that can be one, and with all elements apart."""
        numbered = [(v, i) for v in self.site_of for i in range(prod(self._shape(v)))]
        place = {element: i for i, element in enumerate(numbered)}
        sets = {}
        for v in self.site_of:
            own = [1 << place[v, i] for i in range(prod(self._shape(v)))]
            sets[v] = np.array(own, object).reshape(self._shape(v))
        every = dict.fromkeys(o for t in self.terms for o in (*self.outputs(t), t))
        felt = self.summands.felt(sets, every)
        full = {o: self._full(o, s) for o, s in felt.sets.items()}
        parts = [self._part(o, t, full[o], numbered) for t in self.terms for o in self._chosen(t, full)]
        self.by_data = felt.by_data
        self._check(parts)
        for chain, reach in self._chains(parts):
            yield self._with(parts, numbered, chain, reach)
        count, site = max((prod(self._shape(s)), s) for s in self.members)
        if count > MAX_ELEMENTS:
            raise Mixed(site, f"its {count:,} elements meet, and at most {MAX_ELEMENTS} are told apart but in chains")
        if self._densest(parts, numbered) > self.budget:
            raise Mixed(site, f"so many of its elements meet that a table would have over {self.budget:,} numbers")
        yield self._with(parts, numbered)

    def _densest(self, parts: list[Part], numbered: list[Element]) -> int:
        """What the largest table has at least, in whichever order elements are summed out: that of an element and its
        neighbours among some elements, each of which has no fewer there (the degeneracy of the graph)."""
        meets: dict[Element, set[Element]] = {e: set() for e in numbered}
        for scope in {frozenset(scope) for part in parts for scope in part.scopes}:
            for e in scope:
                meets[e] |= scope - {e}
        values = {e: len(self.sites[self.site_of[e[0]]].values or ()) for e in numbered}
        most = 1
        while meets:
            least = min(meets, key=lambda e: len(meets[e]))
            most = max(most, min(values.values()) ** (1 + len(meets[least])))
            for e in meets.pop(least):
                meets[e].discard(least)
        return most

    def _chains(self, parts: list[Part]) -> Iterator[tuple[Dim, int]]:
        """The dimensions along which elements meet with those a few steps away alone, and how many."""
        if any(self.lags.values()):
            return
        for top in sorted(self.mixed):
            along = {s: [d for d in self.split[s] if self.axes.top((s, d)) == top] for s in self.members}
            if all(len(ds) <= 1 for ds in along.values()) and self.axes.lengths[self.axes.name(top)] >= MIN_CHAINED:
                reach = self._reach(parts, self._steps(top))
                if reach <= MAX_REACH:
                    yield top, reach

    def _steps(self, top: Dim) -> dict[Element, int]:
        """Where along a dimension each element stands."""
        found: dict[Element, int] = {}
        for v, s in self.site_of.items():
            for d in [d for d in self.split[s] if self.axes.top((s, d)) == top]:
                places = np.indices(self._shape(v))[d].reshape(-1)
                found |= {(v, i): int(p) for i, p in enumerate(places)}
        return found

    def _reach(self, parts: list[Part], steps: Mapping[Element, int]) -> int:
        """How many steps apart elements are at most that meet."""
        at = [[steps[e] for e in scope if e in steps] for part in parts for scope in part.scopes]
        return max((max(a) - min(a) for a in at if a), default=0)

    def _shape(self, variable: str) -> tuple[int, ...]:
        """Of an array with an entry for each element that is told apart."""
        name = self.site_of[variable]
        return tuple(n if d in self.split[name] else 1 for d, n in enumerate(self.sites[name].batch_shape))

    def _name(self, variable: str, number: int, chain: Dim | None) -> str:
        name = self.site_of[variable]
        at = np.unravel_index(number, self._shape(variable)) if self._shape(variable) else ()
        apart = [d for d in self.split[name] if chain is None or self.axes.top((name, d)) != chain]
        return element_name(name, [int(at[d]) for d in apart]) + variable.removeprefix(name)

    def _full(self, output: str, sets: np.ndarray | None) -> np.ndarray:
        """The set of each cell of an output, over the dimensions that are no axes of elements."""
        shape = self.summands.shape(output)
        outer = [d for d in range(len(shape)) if self.axis(output, d) is not None]
        inner = [n for d, n in enumerate(shape) if d not in outer]
        if sets is None:
            return np.zeros(inner, object)
        merged = np.bitwise_or.reduce(sets, axis=tuple(outer)) if outer else sets
        return np.broadcast_to(np.asarray(merged, object), inner)

    def _chosen(self, term: str, sets: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """What a term adds up, unless its own entries depend on no more elements each."""
        parts = self.outputs(term)
        mixes = any(
            e is None and self.sites[self.site_of[v]].batch_shape[d] > 1 and d not in self.split[self.site_of[v]]
            for v, aligned in self.aligned(term, term)
            for d, e in enumerate(aligned)
        )
        most = lambda o: max((int(s).bit_count() for s in sets[o].reshape(-1).tolist()), default=0)  # noqa: E731
        return parts if mixes or most(term) > max(map(most, parts)) else (term,)

    def _part(self, output: str, term: str, sets: np.ndarray, numbered: list[Element]) -> Part:
        cells: dict[int, list[int]] = {}
        for cell, elements in enumerate(sets.reshape(-1).tolist()):
            cells.setdefault(int(elements), []).append(cell)
        scopes = [tuple(numbered[i] for i in _bits(elements)) for elements in cells]
        dims = tuple(self.axis(output, d) for d in range(len(self.summands.shape(output))))
        return Part(output, term, dims, tuple(scopes), tuple(np.array(c) for c in cells.values()))

    def _check(self, parts: list[Part]) -> None:
        """Do few enough elements meet in each factor?"""
        for part in parts:
            size = lambda scope: prod(len(self.sites[self.site_of[v]].values or ()) for v, _ in scope)  # noqa: E731
            scope = max(part.scopes, key=size)
            numbers = size(scope) * prod(self.summands.shape(part.output))
            few = len(scope) <= 2 or size(scope) <= MANY or numbers <= MAX_NUMBERS  # pairs are as dear in any chain
            if size(scope) <= MAX_EVALUATED and few:
                continue
            site = max(self.members, key=lambda s: sum(self.site_of[v] == s for v, _ in scope))
            count = sum(self.site_of[v] == site for v, _ in scope)
            unknown = (
                "; an index that picks elements is made of data, so that which of them meet is not known before: make "
                "it a NumPy array that the model closes over"
            )
            told = f"over {10**15:,}" if size(scope) > 10**15 else f"{size(scope):,}"
            what = f"{count:,} of its elements meet in the term {part.term!r}, and have {told} configurations"
            if size(scope) <= MAX_EVALUATED:
                what = f"{what}, in which {numbers:,} numbers would be evaluated"
            raise Mixed(site, what + (unknown if self.by_data else ""))

    def _with(self, parts: list[Part], numbered: list[Element], chain: Dim | None = None, reach: int = 0) -> Apart:
        names = {e: self._name(*e, chain) for e in numbered}
        lengths = {**self.axes.lengths}
        time, named = None, Named(names)
        if chain is not None:
            time = self.axes.name(chain)
            named = Named(names, self._steps(chain), time, lengths[time])
        sizes = {v: len(self.sites[s].values or ()) for v, s in self.site_of.items()}
        sweeps = swept(parts, {v: self._shape(v) for v in self.site_of}, named, sizes)
        dims: dict[str, tuple[str | None, ...]] = {}
        split: dict[str, int] = {}
        for s in self.members:
            site = self.sites[s]
            apart = [d for d in self.split[s] if self.axes.top((s, d)) != chain]
            split |= {f"%{s}.{d}": site.batch_shape[d] for d in apart}
            own = [f"%{s}.{d}" if d in apart else self.axes.name((s, d)) for d in range(len(site.batch_shape))]
            dims[s] = tuple(None if n == 1 else a for n, a in zip(site.batch_shape, own, strict=True))
        placed = {
            t: Placed(
                tuple(v for v in self.reached if t in self.reached[v]),
                tuple(self.axis(t, e) for e in range(len(self.structure.shapes[t]))),
            )
            for t in self.terms
        }
        network = self._network(numbered, named, dims, {**lengths, **split}, sweeps)
        return Apart(network, placed, dims, frozenset(split), sweeps, time, reach, self.by_data)

    def _network(
        self,
        numbered: list[Element],
        named: Named,
        dims: Mapping[str, tuple[str | None, ...]],
        lengths: Mapping[str, int],
        sweeps: tuple[Sweep, ...],
    ) -> Network:
        felt: dict[str, int] = {}
        for scope in (scope for sweep in sweeps for part in sweep.parts for scope in part.scopes):
            step = named.step(scope) or 0
            for e in scope:
                lag = step - named.steps.get(e, step)
                felt[named.names[e]] = max(lag, felt.get(named.names[e], 0))
        values: dict[str, int] = {}
        elements: dict[str, frozenset[str]] = {}
        lags: dict[str, int] = {}
        time: dict[str, str] = {}
        backward: set[str] = set()
        for v, i in numbered:
            site = self.site_of[v]
            if v != site:
                continue
            name, own = named.names[v, i], enumerate(dims[site])
            outer = (a for d, a in own if a is not None and (a == named.time or d not in self.split[site]))
            elements[name] = frozenset(outer)
            lag, axis = (self.lags[site], dims[site][STEP]) if self.lags[site] else (felt.get(name, 0), named.time)
            if lag and axis is not None:
                lags[name], time[name] = lag, axis
                backward |= {name} if self.lags[site] and site in self.structure.backward else set()
            values |= {lagged(name, k): len(self.sites[site].values or ()) for k in range(lag + 1)}
        return Network({**lengths, **values}, elements, lags, time, frozenset(backward))


def _bits(elements: int) -> Iterator[int]:
    while elements:
        lowest = elements & -elements
        yield lowest.bit_length() - 1
        elements ^= lowest
