"""Which sites are to be summed out of the model, from what was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from autovi.analysis.structure import Structure
from autovi.elimination.choosing import Eliminations, choose_eliminations
from autovi.elimination.group import Group, felt_by
from autovi.estimators import Estimator, Marginalize
from autovi.estimators.base import MAX_VALUES
from autovi.model.sites import Site, Sites
from autovi.model.traced import Traced
from autovi.model.unlinked import unlink, unlinked_at
from autovi.numbers import how_many
from autovi.objectives import Objective
from autovi.plan.grouping import names
from autovi.plan.requests import as_estimator, overrides_of


def summable(
    sites: Sites, guide_sites: Sites | None, asked: Mapping[str, Estimator], objective: Objective
) -> list[str]:
    """The discrete sites that leave the guide if they can: those for which nothing else is asked."""
    if objective.refuses(Marginalize()) is not None:
        return []
    outside = {n: s for n, s in sites.latents.items() if guide_sites is None or n not in guide_sites.latents}
    listed = [n for n, s in outside.items() if s.discrete and s.values is not None and len(s.values) <= MAX_VALUES]
    return [n for n in listed if n not in asked or asked[n].marginalizes]


def ancestral_of(
    sites: Sites, structure: Structure, guide_sites: Sites | None, asked: Collection[str]
) -> tuple[str, ...]:
    """The missing observations that nothing but their own density depends on: their posterior given all else is that
    density, so that log p and log q of an exact q would cancel."""
    if guide_sites is not None:
        return ()
    own = lambda n: {f"p:{n}", f"q:{n}"}  # noqa: E731
    alone = [n for n in sites.missing if set(structure.downstream[n]) <= own(n) and not sites.samples[n].from_scan]
    return tuple(n for n in alone if n not in asked)


def asked_for(estimators: Mapping[str, Any] | None, nodes: Mapping[str, Site]) -> dict[str, Estimator]:
    """Site -> the estimator that is asked for, by the argument or at the site."""
    return {n: as_estimator(n, what) for n, what in overrides_of(estimators, nodes, "estimator", "estimators").items()}


def eliminations_of(
    sites: Sites,
    structure: Structure,
    guide_sites: Sites | None,
    asked: Mapping[str, Estimator],
    objective: Objective,
    scales: Mapping[str, float],
    linked: Mapping[str, str] | None = None,
) -> Eliminations:
    """The sites that are summed out, and why others are not: of those `linked` the steps of their scan are not known
    to stand side by side."""
    kept, candidates = dict(linked or {}), []
    ancestral = ancestral_of(sites, structure, guide_sites, asked)
    for name in summable(sites, guide_sites, asked, objective):
        if name in kept or name in ancestral:
            continue
        why = _bound(name, sites, structure, guide_sites, asked)
        if why is None:
            candidates.append(name)
        else:
            kept[name] = why
    wanted = [n for n in candidates if n in asked]
    found = choose_eliminations(sites.samples, structure, candidates, scales, wanted)
    return Eliminations(found.groups, {**kept, **found.left})


def _bound(
    name: str, sites: Sites, structure: Structure, guide_sites: Sites | None, asked: Mapping[str, Estimator]
) -> str | None:
    """Why a site cannot leave the guide, whatever it would take."""
    if name in structure.chained:
        return "its draw at each step of the scan depends on the steps before"
    below = next((n for n in structure.downstream if structure.below(n, name)), None)
    if below is not None:
        return f"the guide draws {below!r} given it, so it cannot leave the guide"
    terms = felt_by(structure, name)
    for other, estimator in asked.items():
        if estimator.integrates and other in structure.downstream and felt_by(structure, other) & terms:
            return f"it shares a cost term with {other!r}, which is enumerated"
    return None


ROOM = 100  # columns for the names of sites in a sentence


def told_of_group(site: str, group: Group) -> str:
    """What the plan says of the sites that one is summed out with, and of what that holds."""
    others = [n for n in group.sites if n != site]
    if not others and not group.network.lags:
        return ""
    cost = group.cost
    along = " x ".join(str(n) if axis.startswith("%") else f"{axis} {n}" for axis, n in cost.axes)
    together = f", together with {names(list(map(repr, others)), ROOM)}" if others else ""
    order = names([v for v in cost.order if "@" not in v or v in group.sites], ROOM) if others else ""
    steps = "step by step" if group.network.lags else ""
    how = "; ".join(filter(None, [steps, f"in the order {order}" if order else ""]))
    held = f"the largest table has {how_many(cost.largest, 'number')} ({along})"
    return f"{together} ({f'{how}; ' if how else ''}{held})"


def unlinkable(traced: Traced, names: Collection[str]) -> tuple[Traced, dict[str, str]]:
    """The program with the scans of as many of these sites as can be as maps over steps, and why others cannot."""
    linked = {name: why for name in names if (why := _not_unlinked(traced, [name])) is not None}
    left = [n for n in names if n not in linked]
    why = _not_unlinked(traced, left) if left else None
    if why is not None:
        return traced, linked | dict.fromkeys(left, why)
    return unlinked_at(traced, left), linked


def _not_unlinked(traced: Traced, names: Collection[str]) -> str | None:
    found = unlink(traced, names)
    if isinstance(found, str):
        return found
    if found.left_out:
        which = found.left_out[0].removeprefix("value:")
        return f"the deterministic site {which!r} is made of the values at all steps of the scan"
    return None
