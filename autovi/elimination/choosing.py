"""Which discrete sites are summed out: as many as can be, within a budget, and why not the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod

from autovi.analysis.structure import Structure
from autovi.elimination.eliminate import Intractable
from autovi.elimination.group import Group, Together, connected, felt_by, group_of
from autovi.elimination.placed import Mixed
from autovi.model.sites import Site
from autovi.numbers import how_many

BUDGET = 50_000_000  # numbers of one particle that the tables of a group may hold


@dataclass(frozen=True)
class Eliminations:
    """The `groups` of sites that are summed out together, by tables or in `closed` form, and why others are `left`."""

    tables: tuple[Group, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    closed: tuple[Together, ...] = ()

    @property
    def groups(self) -> tuple[Together, ...]:
        """Those of both kinds."""
        return (*self.closed, *self.tables)

    @property
    def in_elements(self) -> bool:
        """Are there sites whose elements are told apart, by the parts of terms?"""
        return any(isinstance(g, Group) and g.sweeps for g in self.groups)

    @property
    def sites(self) -> frozenset[str]:
        """All that are summed out."""
        return frozenset(s for g in self.groups for s in g.sites)


def choose_eliminations(
    sites: Mapping[str, Site],
    structure: Structure,
    candidates: Collection[str],
    scales: Mapping[str, float],
    wanted: Collection[str] = (),
    budget: int = BUDGET,
) -> Eliminations:
    """The groups that the candidates make, without those that cannot be summed out, or not together with the others.
    Those `wanted` are left out last. What scans carry as variables of their own is summed out with the sites that it is
    made of; where one of these is left out, the scan is to be taken apart again."""
    left: dict[str, str] = {}
    groups: list[Group] = []
    sites = {**sites, **structure.states}
    waiting = connected([*candidates, *structure.states], structure)
    while waiting:
        members, *waiting = waiting
        if structure.states.keys() >= set(members):
            continue
        made = _made(members, sites, structure, scales, wanted, budget)
        if isinstance(made, Group):
            groups.append(made)
            continue
        site, why = made
        if site in structure.states:
            site = _least([m for m in members if m not in structure.states], sites, wanted)
        left[site] = why
        waiting = [*connected([m for m in members if m != site], structure), *waiting]
    return Eliminations(tuple(groups), left)


def _made(
    members: Collection[str],
    sites: Mapping[str, Site],
    structure: Structure,
    scales: Mapping[str, float],
    wanted: Collection[str],
    budget: int,
) -> Group | tuple[str, str]:
    """The group of these sites; or a site that has to be left out of it, and why."""
    for site in members:
        if (why := subsampled_below(site, structure)) is not None:
            return site, why
    try:
        group = group_of(members, sites, structure, scales.get(next(iter(members)), 1.0), budget)
    except Mixed as error:
        return error.site, str(error)
    except Intractable as error:
        return _least(members, sites, wanted), f"summed out together, {error}"
    if group.cost.largest <= budget and group.cost.numbers <= 10 * budget:
        return group
    what = f"a table of {how_many(group.cost.largest, 'number')} ({group.cost.table}) for each particle"
    if len(members) == 1:
        return group.sites[0], f"summing it out would take {what}"
    dearest = [a for a, _ in group.cost.axes if a in sites] or list(members)
    return _least(dearest, sites, wanted), f"summed out with {_others(members)}, it would take {what}"


def _least(members: Collection[str], sites: Mapping[str, Site], wanted: Collection[str]) -> str:
    """The site that an estimator has least to do with: of the fewest elements and values."""
    return min(members, key=lambda s: (s in wanted, prod(sites[s].batch_shape), len(sites[s].values or ()), s))


def _others(members: Collection[str]) -> str:
    return f"{how_many(len(members) - 1, 'other')}"


def subsampled_below(site: str, structure: Structure) -> str | None:
    """A subsampled plate with terms that depend on a site outside of it."""
    own = structure.plates[f"p:{site}"]
    for term in felt_by(structure, site):
        for plate in structure.plates[term]:
            if plate.subsampled and plate not in own:
                where = f"the term {term!r} is in the subsampled plate {plate.name!r}"
                return f"{where}, and the logarithm of a sum cannot be subsampled"
    return None
