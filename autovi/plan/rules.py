"""Sites -> Plan: ordered rules, each with the sentence that explains it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from autovi.analysis.structure import Structure
from autovi.distributions.table import row_of
from autovi.elimination.choosing import Eliminations
from autovi.estimators import ESTIMATORS, Estimator
from autovi.estimators.base import Facts
from autovi.families import FAMILIES, Family
from autovi.families.base import MAX_DENSE
from autovi.model.matching import guide_nodes
from autovi.model.sites import CIRCULAR, Site, Sites
from autovi.objectives import OBJECTIVES, Objective
from autovi.plan.bias import TOLD, not_allowed
from autovi.plan.blocks import Row, blocks_of
from autovi.plan.choices import Choice
from autovi.plan.coupling import coupled_sites, told
from autovi.plan.doubts import Doubts
from autovi.plan.facts import candidates, facts_of
from autovi.plan.plan import Block, Plan
from autovi.plan.requests import as_estimator, as_family, check_arguments, overrides_of
from autovi.plan.summing import ancestral_of, asked_for, eliminations_of, told_of_group

GUIDES = ("auto", "mean_field", "low_rank", "full_rank", "flow")
FULL_RANK_LIMIT = MAX_DENSE  # unconstrained dimensions of a joint normal
WITH_BASELINE = "with a leave-one-out baseline"
CHAINED = "its draw at each step of the scan depends on the steps before, so that it cannot be set to other values"
OWN = "own"  # in a rule: the family that the table of distributions names
ENUMERATION_BUDGET = 50_000_000  # numbers per particle that the branches of one site may hold


@dataclass(frozen=True)
class Context:
    """What the family rules look at besides the site."""

    guide: str
    free_dimensions: int  # unconstrained dimensions that a joint block would have
    broken: Collection[str]  # sites in which a cost jumps, or its derivative is wrong
    conjugate: Collection[str] = ()  # sites whose posterior was found to be in the family of their prior
    own_asked: Collection[str] = ()  # sites for which an estimator is asked for that only their own family has


FamilyRule = tuple[Callable[[Site, Context], bool], str, str]

FAMILY_RULES: tuple[FamilyRule, ...] = (
    (lambda s, c: s.support == "boolean", "bernoulli", "a yes-or-no site"),
    (lambda s, c: s.values is not None, "categorical", "a site with finitely many values"),
    (lambda s, c: s.support == "permutation", "plackett_luce", "permutations"),
    (lambda s, c: s.support == "permutation matrix", "plackett_luce_matrix", "permutation matrices"),
    (lambda s, c: s.is_count and s.gradients.own_family is not None, OWN, "counts without a bound, as its prior's"),
    (lambda s, c: s.is_count, "poisson", "counts without a bound"),
    (
        lambda s, c: bool(s.gradients.not_pathwise) and s.gradients.own_family is not None,
        OWN,
        "zero has a probability of its own, as in its prior",
    ),
    (
        lambda s, c: s.name in c.own_asked,
        OWN,
        "the family of its own prior, for which the estimator is that was asked for",
    ),
    (
        lambda s, c: c.guide == "auto" and s.name in c.conjugate and not s.subsampled,
        OWN,
        "exact: its posterior is in the family of its prior, found from the structure",
    ),
    (
        lambda s, c: c.guide == "auto" and s.support == CIRCULAR and s.gradients.own_family is not None,
        OWN,
        "an angle in the family of its own prior, since the real line would cut the circle open",
    ),
    (lambda s, c: s.name in c.broken, "normal", "apart from the others, so that its score sees its own cost only"),
    (lambda s, c: c.guide == "mean_field", "normal", "guide='mean_field' asks for independent normals"),
    (lambda s, c: s.subsampled, "normal", "one element of a subsampled plate at a time, so no joint covariance"),
    (
        lambda s, c: s.masked,
        "normal",
        "masked elements must not tie to others, so no joint covariance",
    ),
    (lambda s, c: c.guide == "low_rank", "low_rank", "guide='low_rank' asks for a joint normal of low rank"),
    (lambda s, c: c.guide == "flow", "flow", "guide='flow' asks for a flow over all continuous sites"),
    (lambda s, c: c.guide == "full_rank", "full_rank", "guide='full_rank' asks for one joint normal"),
    (
        lambda s, c: c.free_dimensions <= FULL_RANK_LIMIT,
        "full_rank",
        "jointly normal with the other continuous sites on the unconstrained scale",
    ),
    (
        lambda s, c: True,
        "normal",
        f"normal on the unconstrained scale; over {FULL_RANK_LIMIT} dimensions, so mean field",
    ),
)


def make_plan(
    sites: Sites,
    structure: Structure,
    *,
    guide: str = "auto",
    guide_sites: Sites | None = None,
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | None = None,
    allow_bias: bool = False,
    num_particles: int | None = None,
    doubts: Doubts | None = None,
    objective: Objective | None = None,
    conjugate: Collection[str] = (),
    eliminations: Eliminations | None = None,
) -> Plan:
    """The plan for a model: with the engine's own guide, or with a guide function (`guide_sites`).

    `families` and `estimators` map site names or globs to entries of the two tables, and win over `infer={"autovi":
    ...}`; biased estimators only with `allow_bias`. `doubts` says in which sites a cost was found to jump, to have
    another derivative than its slope or not to be periodic, or could not be tested. `eliminations` are the sites that
    are summed out (None: all that can be).

    Raises:
        ValueError: a name that is no site or no table entry, or a choice that would be wrong at its site; the message
            names the site, says why and lists what is valid.
    """
    check_arguments(families, estimators, num_particles)
    nodes = sites.latents if guide_sites is None else guide_nodes(sites, guide_sites)
    asked_families = overrides_of(families, nodes, "family", "families")
    asked_estimators = overrides_of(estimators, nodes, "estimator", "estimators")
    if guide_sites is not None and asked_families:
        raise ValueError(f"families: a guide function brings its own distributions, for {sorted(asked_families)} too")
    ancestral = ancestral_of(sites, structure, guide_sites, {*asked_families, *asked_estimators})
    nodes = {n: site for n, site in nodes.items() if n not in ancestral}
    doubts = doubts or Doubts()
    jumps, slopes = doubts.jumping(asked_estimators), doubts.sloping(asked_estimators)
    own = _own_asked(nodes, asked_estimators)
    breaks = (jumps, slopes, doubts.aperiodic)
    objective = objective or OBJECTIVES["elbo"]()
    under = (objective, allow_bias, num_particles)
    wanted = asked_for(estimators, nodes)
    if eliminations is None:
        eliminations = eliminations_of(sites, structure, guide_sites, wanted, objective, {})
    families_of: dict[str, tuple[Family, str]] = {}
    if guide_sites is None:
        families_of = _choose_families(nodes, asked_families, guide, {*jumps, *slopes}, conjugate, own, eliminations)
    rows = _choose_estimators(nodes, families_of, wanted, structure, breaks, guide_sites, under, eliminations)
    rows = [replace(r, why=r.why + doubts.dared(r)) for r in rows]
    facts = {r.site: doubts.known(r.site, r.facts) for r in rows}
    blocks = blocks_of(rows, nodes)
    marginal = {b.name: b for b in blocks if b.estimator.marginalizes}
    blocks = tuple(b for b in blocks if b.name not in marginal)
    block_of = {s: b.name for b in [*blocks, *marginal.values()] for s in b.sites}
    drawn = {s for b in blocks for s in b.sites} if guide_sites is None else set()
    discrete = [n for n, site in nodes.items() if n in drawn and site.discrete]
    coupled = coupled_sites(discrete, nodes, structure)
    rows = [replace(r, why=f"{r.why}; {told(r.site, coupled[r.site])}") if r.site in coupled else r for r in rows]
    parents = {s: b.parents for b in blocks for s in b.sites}
    found = {r.site: _choice(nodes[r.site], r, block_of[r.site], parents.get(r.site, ())) for r in rows}
    found |= {n: _from_model(sites.samples[n]) for n in ancestral}
    choices = tuple(found[n] for n in ([n for n in sites.latents if n in found] if guide_sites is None else found))
    particles = _particles(blocks, num_particles, objective)
    named = guide if guide_sites is None else "function"
    also: dict[str, Any] = {"ancestral": ancestral, "coupled": coupled, "facts": facts}
    return Plan(choices, blocks, marginal, named, particles, groups=eliminations.groups, **also)


def _from_model(site: Site) -> Choice:
    shape = site.full(site.batch_shape) + site.event_shape
    why = "missing observations on which nothing else depends: drawn from the model, given all else"
    return Choice(site.name, site.distribution, site.support, shape, "exact", "ancestral", None, why, site.name)


# --- families ------------------------------------------------------------------------------------------------------


def _choose_families(
    nodes: Mapping[str, Site],
    asked: Mapping[str, Any],
    guide: str,
    broken: Collection[str],
    conjugate: Collection[str],
    own_asked: Collection[str],
    eliminations: Eliminations,
) -> dict[str, tuple[Family, str]]:
    if guide not in GUIDES:
        raise ValueError(
            f"guide: unknown name {guide!r}; expected one of {list(GUIDES)}, a guide function or an AutoGuide"
        )
    gone = {*asked, *eliminations.sites}
    context = Context(guide, 0, broken, conjugate, own_asked)
    could = [s for n, s in nodes.items() if n not in gone and _rule(s, context)[1] == "full_rank"]
    context = replace(context, free_dimensions=sum(s.size for s in could))
    return {n: _family(s, asked.get(n), context) for n, s in nodes.items()}


def _own_asked(nodes: Mapping[str, Site], asked: Mapping[str, Any]) -> set[str]:
    """The sites for which an estimator is asked for that their prior's own family has, and normals have not."""
    found = set()
    for name, what in asked.items():
        own = nodes[name].gradients.own_family
        estimator = as_estimator(name, what).name
        if own is not None and estimator in FAMILIES[own].estimators and estimator not in FAMILIES["normal"].estimators:
            found.add(name)
    return found


def _rule(site: Site, context: Context) -> FamilyRule:
    return next(r for r in FAMILY_RULES if r[0](site, context))


def _family(site: Site, asked: Any, context: Context) -> tuple[Family, str]:
    if site.distribution == "Delta":
        raise ValueError(
            f"site {site.name!r} (Delta): it has one value only, so there is nothing to fit; write it as "
            "numpyro.deterministic"
        )
    if asked is not None:
        family, why = as_family(site.name, asked), "asked for"
    else:
        rule = _rule(site, context)
        name = site.gradients.own_family if rule[1] == OWN else rule[1]
        assert name is not None
        family, why = FAMILIES[name](), rule[2]
    reason = family.refuses(site)
    if family.joint and site.masked:
        reason = "not all of its elements count under its mask, which a joint family cannot follow"
    if reason is not None:
        valid = [n for n, f in FAMILIES.items() if f().refuses(site) is None and not (f.joint and site.masked)]
        remedy = "none, so write a guide function"
        if site.discrete and site.event_shape and site.support == "integer interval":
            remedy = "none; a numpyro.plate in place of to_event would make its elements sites of finite support"
        raise ValueError(
            f"site {site.name!r} ({site.distribution}): family {family.name!r} does not fit, since {reason}; "
            f"valid: {valid or remedy}"
        )
    return family, why


# --- estimators ----------------------------------------------------------------------------------------------------


def _choose_estimators(
    nodes: Mapping[str, Site],
    families: Mapping[str, tuple[Family, str]],
    wanted: Mapping[str, Estimator],
    structure: Structure,
    breaks: tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]],
    guide_sites: Sites | None,
    under: tuple[Objective, bool, int | None],
    eliminations: Eliminations,
) -> list[Row]:
    jumps, slopes, aperiodic = breaks
    groups = {s: group for group in eliminations.groups for s in group.sites}
    conditional = any(family.conditional for family, _ in families.values())
    rows: dict[str, Row] = {}
    below = {n: [m for m in nodes if structure.below(m, n)] for n in nodes}
    # What is drawn given a site is known before the site.
    for n, site in sorted(nodes.items(), key=lambda item: len(below[item[0]])):
        absent = guide_sites is not None and n not in guide_sites.latents
        said = "not in the guide function" if absent else f"as the {under[0].drawn_by} draws it"
        family, family_why = families.get(n, (None, said))
        distribution = site.distribution if family is None else family.distribution_name
        gradients = site.gradients if family is None else row_of(distribution)
        scored = next((m for m in below[n] if m not in rows or rows[m].estimator.has_surrogate), None)
        where = jumps.get(n), slopes.get(n), aperiodic.get(n), conditional, scored, family, eliminations
        facts = facts_of(site, distribution, gradients, nodes, structure, *where)
        estimator, why = _estimator(site, wanted.get(n), candidates(family, facts, absent), facts, *under)
        if estimator.marginalizes:
            why = f"{why}{told_of_group(n, groups[n])}"
        alone = site.masked or site.subsampled or estimator.alone
        said = why if facts.closed is not None else f"{family_why}; {why}"
        rows[n] = Row(n, family, estimator, said, alone, facts)
    return [rows[n] for n in nodes]


def _estimator(
    site: Site,
    wanted: Estimator | None,
    admitted: tuple[str, ...],
    facts: Facts,
    objective: Objective,
    allow_bias: bool,
    num_particles: int | None,
) -> tuple[Estimator, str]:
    def refusal(estimator: Estimator) -> str | None:
        chained = CHAINED if facts.chained and not estimator.sequential else None
        return estimator.refuses(facts) or chained or objective.refuses(estimator)

    known_ones = {n: objective.taken(ESTIMATORS[n](), num_particles) for n in admitted}
    valid = {n: estimator for n, estimator in known_ones.items() if refusal(estimator) is None}
    if wanted is not None:
        reason = refusal(wanted)
        known = type(wanted) in ESTIMATORS.values() and not wanted.on_request
        if reason is None and known and wanted.name not in admitted:
            reason = f"its distribution admits {list(admitted)} only"
        there = {n: kind() for n, kind in ESTIMATORS.items() if kind.on_request and (allow_bias or not kind.biased)}
        named = sorted({*valid, *(n for n, estimator in there.items() if refusal(estimator) is None)})
        if reason is not None:
            raise ValueError(
                f"site {site.name!r} ({site.distribution}): estimator {wanted.name!r} would be wrong, since {reason}; "
                f"valid: {named or 'none'}"
            )
        if wanted.biased and not allow_bias:
            raise not_allowed(site.name, site.distribution, wanted.name, named)
        though = facts.gradients.reserved if wanted.pathwise else None
        because = f"though {though}" if though else facts.closed
        said = f"estimator asked for{f', {because}' if because else ''}"
        return wanted, f"{said}; {TOLD}" if wanted.biased else said
    for name, estimator in valid.items():
        sentence = _sentence(name, site, facts, estimator.baseline_name)
        if sentence is not None:
            return estimator, sentence
    reasons = "; ".join(f"{n}: {refusal(ESTIMATORS[n]())}" for n in admitted)
    raise ValueError(f"site {site.name!r} ({site.distribution}): no estimator is right for it ({reasons})")


def _sentence(name: str, site: Site, facts: Facts, baseline: str | None) -> str | None:
    """Why the first valid estimator is taken; None when it is valid but too dear."""
    if facts.closed is not None:
        return facts.closed
    if name == "marginalize":
        return f"its {facts.num_values} values are summed out exactly, so it needs no gradient"
    if name == "enumerate":
        assert facts.num_values is not None
        if facts.num_values * prod(site.batch_shape) > ENUMERATION_BUDGET:
            return None
        return f"its {facts.num_values} values are enumerated exactly, without noise"
    if name == "score":
        because = facts.jumps or facts.slope or (facts.aperiodic if facts.gradients.periodic else None)
        because = because or facts.gradients.reserved
        if facts.gradients.discrete:
            dear = "going through its values for all its elements would hold too many numbers"
            because = facts.kept or ESTIMATORS["enumerate"]().refuses(facts) or dear
        own = "without a baseline, which takes two samples or a state" if baseline == "none" else WITH_BASELINE
        return f"the score function {own}{f', since {because}' if because else ''}"
    if name == "enumerate_gate":
        return "its gate is gone through exactly, and what is behind it is pathwise"
    how = {"implicit": "implicit reparameterization", "sticking": "explicit reparameterization without the score of q"}
    return f"{how.get(name, 'explicit reparameterization')}, since the cost is smooth in it"


# --- the plan ---------------------------------------------------------------------------------------------------------


def _choice(site: Site, row: Row, block: str, parents: tuple[str, ...]) -> Choice:
    family = row.family.name if row.family is not None else "guide"
    shape = site.full(site.batch_shape) + site.event_shape
    estimator = row.estimator
    if estimator.marginalizes:
        family = "exact"
    return Choice(
        site.name,
        site.distribution,
        site.support,
        shape,
        family,
        estimator.name,
        estimator.baseline_name,
        f"{row.why}; drawn given {', '.join(map(repr, parents))}" if parents else row.why,
        block,
    )


def _particles(blocks: tuple[Block, ...], asked: int | None, objective: Objective) -> int:
    needed = max([b.estimator.min_particles for b in blocks], default=1)
    if asked is None:
        wished = [b.estimator.num_particles for b in blocks]
        wanted = max([Estimator.num_particles, needed, objective.min_particles, *wished])
        return -(-wanted // objective.group_size) * objective.group_size
    if asked < needed:
        who = next(b for b in blocks if b.estimator.min_particles == needed)
        raise ValueError(
            f"{objective.counted}: {asked} is too few for site {who.sites[0]!r}, whose baseline "
            f"{who.estimator.baseline_name!r} needs at least {needed}; set it, or baseline 'moving_average'"
        )
    if asked < objective.min_particles:
        raise ValueError(
            f"{objective.counted}: {asked} is too few for objective {objective.name!r}, which needs at least "
            f"{objective.min_particles}"
        )
    if asked % objective.group_size:
        raise ValueError(
            f"{objective.counted}: expected a multiple of {objective.group_size}, which objective {objective.name!r} "
            f"takes together, got {asked}"
        )
    return int(asked)
