"""Sites with their families and estimators -> the blocks in which they are drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from autovi.estimators import Estimator
from autovi.estimators.base import Facts
from autovi.families import Family
from autovi.model.sites import Plate, Site
from autovi.plan.plan import Block

JOINT = "joint"  # the block of all continuous sites that share one distribution


@dataclass(frozen=True)
class Row:
    """What was chosen for a site, and why."""

    site: str
    family: Family | None
    estimator: Estimator
    why: str
    alone: bool  # the site must have a block of its own
    facts: Facts


def blocks_of(rows: list[Row], nodes: Mapping[str, Site]) -> tuple[Block, ...]:
    """Sites that are drawn together: those of a plate's elements, and all others, with one family and one pathwise
    estimator. A joint family takes the elements of a subsampled plate one at a time, and a conditional one all."""
    alone, flat, by_element = [], defaultdict(list), defaultdict(list)
    for row in rows:
        family, site = row.family, nodes[row.site]
        own = (row.site,) if row.estimator.alone else ()
        if row.estimator.marginalizes:
            alone.append(Block(row.site, (row.site,), family, row.estimator))
        elif family is not None and family.joint and (family.conditional or site.subsampled):
            by_element[(family, row.estimator, site.batch_shape, site.plates, own)].append(row)
        elif family is not None and (family.joint or (family.name == "normal" and not row.alone)):
            flat[(family, row.estimator, own)].append(row)
        else:
            alone.append(Block(row.site, (row.site,), family, row.estimator))
    blocks = list(alone)
    several = len([members for members in flat.values() if not members[0].alone]) > 1
    for (family, estimator, _), members in flat.items():
        named = f"{JOINT}_{family.name}" if several else JOINT
        blocks.append(Block(_name(members, named, blocks, rows), _sites(members), family, estimator, flat=True))
    common = tuple(blocks)
    for (family, estimator, _, plates, _), members in by_element.items():
        parents = _parents(members[0].site, plates, common, nodes) if family.conditional else ()
        name = _name(members, "_".join([JOINT, *(p.name for p in plates)]), blocks, rows)
        block = Block(name, _sites(members), family, estimator, by_element=True, parents=parents)
        blocks.append(block)
    return tuple(blocks)


def _sites(members: list[Row]) -> tuple[str, ...]:
    return tuple(r.site for r in members)


def _parents(
    site: str, plates: tuple[Plate, ...], blocks: tuple[Block, ...], nodes: Mapping[str, Site]
) -> tuple[str, ...]:
    """The blocks that the elements of these plates have in common."""
    apart = lambda block: all(p not in plates for s in block.sites for p in nodes[s].plates)  # noqa: E731
    found = tuple(b.name for b in blocks if b.flat and apart(b))
    if not found:
        raise ValueError(
            f"site {site!r}: a conditional family is drawn given the normal sites outside of its plates, and there are "
            "none; valid: normal, full_rank, low_rank"
        )
    return found


def _name(members: list[Row], several: str, blocks: list[Block], rows: list[Row]) -> str:
    """The name of a block: its site's, or `several` where there are more."""
    taken = {b.name for b in blocks}
    if len(members) == 1:
        return _untaken(members[0].site, taken)
    return _untaken(several, taken | {r.site for r in rows})


def _untaken(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
