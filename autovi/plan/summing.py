"""Which sites are to be summed out of the model, from what was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from autovi.analysis.structure import Structure
from autovi.elimination.choosing import Eliminations, choose_eliminations
from autovi.elimination.closed import FORMS, Found, Where
from autovi.elimination.group import Group, Together, between, connected, felt_by, mixes
from autovi.estimators import Estimator, Marginalize
from autovi.estimators.base import MAX_VALUES
from autovi.model.sites import Site, Sites
from autovi.model.summands import in_summands
from autovi.model.traced import Traced
from autovi.model.unlinked import unlink, unlinked_at
from autovi.numbers import how_many
from autovi.objectives import Objective
from autovi.plan.grouping import names
from autovi.plan.requests import as_estimator, overrides_of

NO_FORMS = Found()


def summable(
    sites: Sites, guide_sites: Sites | None, asked: Mapping[str, Estimator], objective: Objective
) -> list[str]:
    """The discrete sites that leave the guide if they can: those for which nothing else is asked."""
    if objective.refuses(Marginalize()) is not None:
        return []
    drawn = {} if guide_sites is None else guide_sites.latents
    # What a guide function draws is summed out where that is asked for.
    outside = {n: s for n, s in sites.latents.items() if n not in drawn or (n in asked and asked[n].marginalizes)}
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


def taken_apart(traced: Traced, structure: Structure, sites: Sites, names: Collection[str]) -> Traced:
    """The program with what terms add up, where these sites share terms in which elements of one of them meet."""
    groups = [g for g in connected(names, structure) if mixes(g, sites.samples, structure)]
    terms = set().union(*(between(g, structure) for g in groups)) - {f"p:{n}" for n in structure.states}
    return in_summands(traced, sorted(terms))


def eliminations_of(
    sites: Sites,
    structure: Structure,
    guide_sites: Sites | None,
    asked: Mapping[str, Estimator],
    objective: Objective,
    scales: Mapping[str, float],
    linked: Mapping[str, str] | None = None,
    closed: Found = NO_FORMS,
) -> Eliminations:
    """The sites that are summed out, and why others are not: of those `linked` the steps of their scan are not known
    to stand side by side. `closed` are those that are summed out in closed form."""
    kept, candidates = {**(linked or {}), **closed.left}, []
    ancestral = ancestral_of(sites, structure, guide_sites, asked)
    taken = {t: form.name for form in closed.closed for t in form.terms}
    for name in summable(sites, guide_sites, asked, objective):
        if name in kept or name in ancestral:
            continue
        if beside := next((taken[t] for t in sorted(felt_by(structure, name)) if t in taken), None):
            kept[name] = f"it shares a cost term with {beside!r}, which is summed out in closed form"
            continue
        why = _bound(name, sites, structure, guide_sites, asked)
        if why is None:
            candidates.append(name)
        else:
            kept[name] = why
    wanted = [n for n in candidates if n in asked]
    found = choose_eliminations(sites.samples, structure, candidates, scales, wanted)
    kept = {n: why for n, why in kept.items() if all(n not in form.sites for form in closed.closed)}
    return Eliminations(found.tables, {**kept, **found.left}, closed.closed)


def integrable(
    sites: Sites,
    guide_sites: Sites | None,
    asked: Mapping[str, Estimator],
    objective: Objective,
    families: Collection[str] = (),
) -> dict[str, list[str]]:
    """Closed form -> the sites that may leave the guide by it: those for which it is asked, or nothing else. For those
    in `families` a family is asked for."""
    if objective.refuses(Marginalize()) is not None:
        return {}
    drawn = {} if guide_sites is None else guide_sites.latents
    # What a guide function draws is summed out where that is asked for.
    outside = {n: s for n, s in sites.latents.items() if n not in drawn or (n in asked and asked[n].marginalizes)}
    wanted = {n for n in outside if n in asked and asked[n].marginalizes}
    free = {n for n in outside if n not in asked and n not in families and guide_sites is None}
    return {
        name: [n for n, s in outside.items() if form.offers(s) and n in (wanted if form.on_request else wanted | free)]
        for name, form in FORMS.items()
    }


def closed_forms(
    traced: Traced,
    sites: Sites,
    structure: Structure,
    asked: Mapping[str, Estimator],
    objective: Objective,
    offered: Mapping[str, list[str]],
) -> Found:
    """The closed forms of a program, of the sites that `integrable` has, and why those for which `marginalize` is asked
    have none."""
    guide_sites, closed = traced.guide_sites, []
    left: dict[str, str] = {}
    unfelt = frozenset(f"p:{n}" for n in ancestral_of(sites, structure, guide_sites, asked))
    where = Where(traced, sites.samples, structure, traced.scales, unfelt)
    finite = summable(sites, guide_sites, asked, objective)
    for name, candidates in offered.items():
        found = FORMS[name].find(candidates, where)
        for form in found.closed:
            why = _beside(form, structure, asked, finite)
            if why is None:
                closed.append(form)
            else:
                left |= dict.fromkeys(form.sites, why)
        left |= found.left
    return Found(tuple(closed), {n: why for n, why in left.items() if n in asked})


def _beside(
    form: Together, structure: Structure, asked: Mapping[str, Estimator], finite: Collection[str]
) -> str | None:
    """Why a closed form has to give way to another site that shares a term with it."""
    for other in structure.downstream:
        if other in form.sites or not felt_by(structure, other) & set(form.terms):
            continue
        if other in asked and asked[other].integrates:
            return f"it shares a cost term with {other!r}, which is enumerated"
        if not asked.keys() & set(form.sites) and other in finite:
            return f"it shares a cost term with {other!r}, which is summed out"
        if any(structure.below(other, n) for n in form.sites):
            return f"the guide draws {other!r} given it, so it cannot leave the guide"
    return None


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


def told_of_group(site: str, group: Together) -> str:
    """What the plan says of the sites that one is summed out with, and of what that holds."""
    if not isinstance(group, Group):
        return ""
    others = [n for n in group.summed if n != site]
    if not (others or group.network.lags or group.sweeps):
        return ""
    cost = group.cost
    together = f", together with {names(list(map(repr, others)), ROOM)}" if others else ""
    apart = others or group.split
    order = names([v for v in cost.order if "@" not in v or v in group.sites], ROOM) if apart else ""
    steps = "step by step" if group.network.lags else "element by element" if group.split else ""
    how = "; ".join(filter(None, [steps, f"in the order {order}" if order else ""]))
    held = f"the largest table has {how_many(cost.largest, 'number')} ({cost.table})"
    more = "; an index made of data picks elements, so that any of them may meet" if group.by_data else ""
    return f"{together} ({f'{how}; ' if how else ''}{held}{more})"


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
    return found if isinstance(found, str) else None
