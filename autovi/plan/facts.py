"""What the structure of a program says of a site when an estimator is chosen for it."""

from __future__ import annotations

from collections.abc import Mapping

from autovi.analysis.structure import Structure
from autovi.distributions.table import Known
from autovi.elimination.choosing import Eliminations
from autovi.elimination.closed import Closed
from autovi.elimination.group import Together
from autovi.estimators.base import Facts
from autovi.families.base import Family, NoiseFamily
from autovi.model.sites import CIRCULAR, Site


def facts_of(
    site: Site,
    distribution: str,
    gradients: Known,
    nodes: Mapping[str, Site],
    structure: Structure,
    jumps: str | None,
    slope: str | None,
    aperiodic: str | None,
    conditional: bool,
    scored: str | None,
    family: Family | None,
    eliminations: Eliminations,
) -> Facts:
    """The facts of one node. `conditional` says that some family of the guide is drawn given other blocks, `scored` is
    as in `Facts`, `family` is the node's own (None: a guide function's)."""
    if gradients.periodic and site.support != CIRCULAR:
        aperiodic = "its angle is transformed, so that what lies across -pi and pi is not known"
    return Facts(
        gradients,
        num_values=None if site.values is None else len(site.values),
        entangled=_entangled(site, structure),
        shared=_shared(site, structure, eliminations),
        kept=eliminations.left.get(site.name),
        closed=next((told_of_closed(g) for g in eliminations.closed if site.name in g.sites), None),
        jumps=jumps,
        slope=slope,
        aperiodic=aperiodic,
        chained=site.name in structure.chained,
        distribution=distribution,
        curved=isinstance(family, NoiseFamily),
        not_linear=structure.not_linear.get(site.name, Facts.not_linear),
        mixed=structure.mixed.get(site.name),
        tied=_tied(site, nodes, structure, conditional),
        scored=scored,
        event_shape=site.event_shape,
    )


def told_of_closed(closed: Together) -> str:
    """What the plan says of a closed form."""
    assert isinstance(closed, Closed)
    return f"summed out in closed form: {closed.said}"


def candidates(family: Family | None, facts: Facts, absent: bool = False) -> tuple[str, ...]:
    """The entries of the table that a family admits, or the distribution of a guide function's site."""
    if absent or facts.closed is not None:
        return ("marginalize",)
    if family is not None:
        return family.estimators
    pathwise = (facts.gradients.pathwise,) if facts.gradients.pathwise else ()
    others = ("enumerate", "score", "marginalize", "rsvi", "g_rep")
    return (*others, *pathwise) if facts.gradients.reserved else (*pathwise, *others)


def _tied(site: Site, nodes: Mapping[str, Site], structure: Structure, conditional: bool) -> str | None:
    """Why a site is not independent of the others in the guide."""
    if conditional and not site.discrete:
        return "a family of the guide is drawn given other blocks"
    for n in nodes:
        above, below = (n, site.name) if structure.below(site.name, n) else (site.name, n)
        if n != site.name and structure.below(below, above):
            return f"the guide draws {below!r} given {above!r}"
    return None


def _entangled(site: Site, structure: Structure) -> str | None:
    for term, aligned in structure.downstream[site.name].items():
        for d, e in enumerate(aligned):
            if e is None and site.batch_shape[d] > 1:
                return f"the term {term!r} mixes its elements, which then cannot be set all at once"
    return None


def _shared(site: Site, structure: Structure, eliminations: Eliminations) -> tuple[str, ...]:
    """The sites that are summed out and have a term in common with this one."""
    beside = {n for term in structure.downstream[site.name] for n in structure.upstream[term]}
    return tuple(n for n in sorted(beside & eliminations.sites) if n != site.name)
