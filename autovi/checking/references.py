"""Which estimators are right at a block of a plan, and which of them can check another one there."""

from __future__ import annotations

from dataclasses import fields, replace
from math import prod

from autovi.estimators import ESTIMATORS, Disarm, Enumerate, Estimator, Explicit, Implicit, MeasureValued, Score
from autovi.objectives import Objective
from autovi.plan.facts import candidates
from autovi.plan.plan import Block, Plan
from autovi.plan.rules import ENUMERATION_BUDGET
from autovi.program.program import Program

# What an estimator is compared with: the first of them that is right at the site, and another kind. What is exact comes
# first, then what has least noise.
REFERENCES: tuple[Estimator, ...] = (
    Enumerate(),
    Explicit(),
    Implicit(),
    Score(),
    MeasureValued(),
    Disarm(),
    Score(baseline="none"),
)


def label(estimator: Estimator) -> str:
    """An estimator as a table shows it: its name, with what of its options is not the default.

    >>> label(Score()), label(Score(baseline="none")), label(ESTIMATORS["arms"](evaluations=8))
    ('score', 'score (none)', 'arms (evaluations=8)')
    """
    try:
        usual: Estimator | None = type(estimator)()
    except TypeError:  # of one's own, with options that have no default
        usual = None
    changed = [f.name for f in fields(estimator) if getattr(usual, f.name, None) != getattr(estimator, f.name)]
    said = [str(estimator.baseline_name) if n == "baseline" else f"{n}={getattr(estimator, n)}" for n in changed]
    return f"{estimator.name} ({', '.join(said)})" if said else estimator.name


def refusal(program: Program, block: Block, estimator: Estimator, allow_bias: bool) -> str | None:
    """Why an estimator would be wrong at a block with everything else as it is; None where nothing is known against it.

    That its gradient can be traced there is for the caller to try.
    """
    plan, objective = program.plan, program.objective
    if estimator.biased and not allow_bias:
        return "it is biased, and allow_bias=True is not said"
    if estimator.marginalizes:
        return "it would take the site out of the guide"
    if estimator.min_particles > plan.num_particles:
        return f"it needs at least {estimator.min_particles} particles, and a step has {plan.num_particles}"
    if estimator.integrates and len(block.sites) > 1:
        return "the block has several sites"
    there = (_at(plan, block, site, estimator, objective) for site in block.sites)
    return next(filter(None, there), None) or _above(program, block, estimator)


def _above(program: Program, block: Block, estimator: Estimator) -> str | None:
    """Why an estimator of a block above would be wrong with this one, through whose draw no gradient flows."""
    if not estimator.has_surrogate:
        return None
    for other in program.plan.blocks:
        for site in other.sites if program.is_below(block.name, other.name) else ():
            reason = other.estimator.refuses(replace(program.plan.facts[site], scored=block.name))
            if reason is not None:
                return f"then {other.estimator.name!r} would be wrong at site {site!r}, since {reason}"
    return None


def _at(plan: Plan, block: Block, site: str, estimator: Estimator, objective: Objective) -> str | None:
    facts = plan.facts[site]
    reason = estimator.refuses(facts) or objective.refuses(estimator)
    known = type(estimator) in ESTIMATORS.values() and not estimator.on_request
    admitted = candidates(block.family, facts)
    if reason is None and known and estimator.name not in admitted:
        reason = f"its distribution admits {list(admitted)} only"
    return reason


def references(program: Program, block: Block, estimator: Estimator) -> list[Estimator]:
    """What can check an estimator at a block, the best first; none where no other one is right."""
    return [
        reference
        for reference in REFERENCES
        if is_independent(reference, estimator)
        and refusal(program, block, reference, allow_bias=False) is None
        and not (reference.integrates and _is_dear(program, block))
    ]


def is_independent(reference: Estimator, estimator: Estimator) -> bool:
    """Would the two be wrong in different ways? Two pathwise ones would not."""
    if reference.pathwise and estimator.pathwise:
        return False
    if type(reference) is type(estimator):
        return reference.baseline_name != estimator.baseline_name and reference.baseline_name == "none"
    return True


def _is_dear(program: Program, block: Block) -> bool:
    numbers = program.num_values(block.name) * prod(program.node_site(block.name).batch_shape)
    return numbers > ENUMERATION_BUDGET


def swapped(plan: Plan, block: str, estimator: Estimator) -> Plan:
    """The plan with another estimator at one block, q being the same."""
    blocks = tuple(replace(b, estimator=estimator) if b.name == block else b for b in plan.blocks)
    return replace(plan, blocks=blocks)
