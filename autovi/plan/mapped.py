"""A plan -> the same plan with fixed maps before its joint blocks, and another family behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from autovi.analysis.centring import Moves
from autovi.estimators import Estimator
from autovi.families import Family
from autovi.plan.choices import Choice
from autovi.plan.plan import Block, Plan


def mappable(block: Block) -> bool:
    """Can a fixed map of the unconstrained values stand before the block?"""
    return block.flat and block.family is not None and block.family.unconstrained


def with_maps(plan: Plan, directions: Mapping[str, int] = MappingProxyType({})) -> Plan:
    """The plan with a map before every block that can have one; `directions` of the blocks in whose map are some."""
    mapped = lambda b: replace(b, map=True, directions=directions.get(b.name, 0))  # noqa: E731
    return replace(plan, blocks=tuple(mapped(b) if mappable(b) else b for b in plan.blocks))


def with_family(
    plan: Plan, block: str, sites: tuple[str, ...], family: Family, estimator: Estimator, why: str, num_particles: int
) -> Plan:
    """The plan with another family, estimator and order of the sites at one block, whose sites say why."""
    changed_block = lambda b: replace(b, sites=sites, family=family, estimator=estimator)  # noqa: E731
    blocks = tuple(changed_block(b) if b.name == block else b for b in plan.blocks)
    changed = lambda c: replace(c, family=family.name, estimator=estimator.name, why=why)  # noqa: E731
    choices = tuple(_with_sentence(changed(c), plan.noncentred) if c.block == block else c for c in plan.choices)
    return replace(plan, blocks=blocks, choices=choices, num_particles=max(num_particles, plan.num_particles))


def with_order(plan: Plan, sites: Mapping[str, Sequence[str]]) -> Plan:
    """The plan with the sites of its blocks in these orders."""
    blocks = tuple(replace(b, sites=tuple(sites[b.name])) if b.name in sites else b for b in plan.blocks)
    return replace(plan, blocks=blocks)


def with_coordinates(plan: Plan, moves: Mapping[str, Moves]) -> Plan:
    """The plan with these sites in partly non-centred coordinates."""
    scales = tuple(dict.fromkeys(name for m in moves.values() for name in m.scale))
    choices = tuple(_with_sentence(c, moves) for c in plan.choices)
    return replace(plan, choices=choices, noncentred=dict(moves), scales=scales)


def _with_sentence(choice: Choice, moves: Mapping[str, Moves]) -> Choice:
    """The row that says in which coordinates the site is."""
    return replace(choice, why=f"{choice.why}; {moves[choice.site].sentence}") if choice.site in moves else choice
