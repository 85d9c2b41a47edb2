"""Discrete sites that meet in a cost term: q takes them for independent of each other, which the posterior is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from autovi.analysis.structure import Structure
from autovi.model.sites import Site
from autovi.plan.grouping import names

ROOM = 100  # columns for the names of sites in a message


def coupled_sites(discrete: Collection[str], nodes: Mapping[str, Site], structure: Structure) -> dict[str, list[str]]:
    """Discrete site of the guide -> those that it meets, itself among them where its own elements meet."""
    found: dict[str, list[str]] = {}
    for name in discrete:
        meets = {
            other
            for term in structure.downstream[name]
            for other in structure.upstream[term]
            if other in discrete and other != name
        }
        if _elements_meet(nodes[name], structure):
            meets.add(name)
        if meets:
            found[name] = sorted(meets)
    return found


def _elements_meet(site: Site, structure: Structure) -> bool:
    below = structure.downstream[site.name].values()
    return any(e is None and n > 1 for aligned in below for e, n in zip(aligned, site.batch_shape, strict=True))


def told(name: str, meets: list[str]) -> str:
    """What the plan says of a site."""
    others = ", ".join(map(repr, (n for n in meets if n != name)))
    what = f"it meets {others} in a cost term" if others else "its elements meet in a cost term"
    return f"mean field, as {what} and q has them independent: probabilities may be far off"


def warning(coupled: Mapping[str, list[str]]) -> str:
    """What a fit says: empty where no discrete sites meet."""
    if not coupled:
        return ""
    which = names([repr(name) for name in coupled], ROOM)
    return f"discrete site(s) {which}: independent in q of what they meet (mean field), so probabilities may be far off"
