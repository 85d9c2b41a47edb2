"""Everything before the first step: from model, data and options to an engine, kept for the next fit like it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from autovi.analysis.batches import check_rows_factor
from autovi.analysis.centring import Moves, candidates
from autovi.analysis.conjugacy import find_conjugate
from autovi.analysis.counted import masked_in_part, masked_sites, partly_masked
from autovi.analysis.discontinuities import find_jumps, untested_jumps
from autovi.analysis.indices import check_indices
from autovi.analysis.periodicity import find_aperiodic, untested_angles
from autovi.analysis.slopes import find_false_slopes, untested_slopes
from autovi.analysis.structure import Structure, analyse_structure
from autovi.elimination.choosing import Eliminations
from autovi.families import FAMILIES
from autovi.families.base import Params
from autovi.ladder.rungs import why_not
from autovi.model.callables import check_function
from autovi.model.digest import digest
from autovi.model.execution import ONE_AT_A_TIME, check_keys
from autovi.model.guides import another_model, as_guide_function
from autovi.model.inputs import Inputs, bind, check_allowed
from autovi.model.matching import guide_nodes
from autovi.model.repeatable import GlobalDraws, check_same_again
from autovi.model.sites import Sites
from autovi.model.target import Target
from autovi.model.targets import as_target, trace_program
from autovi.model.traced import Traced
from autovi.model.unlinked import unlinked_at
from autovi.objectives import Objective
from autovi.plan.bias import check_allow_bias
from autovi.plan.doubts import Doubts
from autovi.plan.mapped import mappable, with_coordinates
from autovi.plan.plan import Plan
from autovi.plan.requests import as_objective, check_arguments, overrides_of
from autovi.plan.rules import GUIDES, make_plan
from autovi.plan.summing import asked_for, closed_forms, eliminations_of, integrable, summable, taken_apart, unlinkable
from autovi.process import computing
from autovi.program.elements import check_in_parts
from autovi.program.program import Program
from autovi.program.reading import read_outputs
from autovi.run.between import traced_for
from autovi.run.cache import CACHE, environment, sorted_items
from autovi.run.checks import check_count
from autovi.run.engine import Engine
from autovi.run.optimizer import Optimizer
from autovi.run.transformations import check_optimizer, optimizer_fingerprint


@dataclass(frozen=True)
class Options:
    """What a plan is made of besides model and data."""

    guide: Any = "auto"
    families: Mapping[str, Any] | None = None
    estimators: Mapping[str, Any] | None = None
    num_particles: int | None = None
    batch_size: int | Mapping[str, int] | None = None
    optimizer: optax.GradientTransformation | None = None
    objective: str | Objective = "elbo"
    allow_bias: bool = False
    allow_nan: Collection[str] = ()
    noncentred: Collection[str] | None = None  # sites in partly non-centred coordinates; None: by rules
    # Sites that are masked in part, where the data that say it are not there: nothing is then tried on their values.
    masked: Collection[str] | None = None


def prepare(model: Callable, data: Any, options: Options) -> tuple[Engine, Inputs]:
    """Everything before the first step, nothing run: the engine (kept from an earlier fit of the same program) and the
    checked inputs."""
    with computing(), ONE_AT_A_TIME:  # whether NumPyro validates is a setting of the process too
        return _prepared(model, data, options)


def _prepared(model: Callable, data: Any, options: Options) -> tuple[Engine, Inputs]:
    check_arguments(options.families, options.estimators, options.num_particles)
    check_allow_bias(options.allow_bias)
    check_optimizer(options.optimizer)
    if not isinstance(model, Target):
        check_function(model, "model")
    inputs = data if isinstance(data, Inputs) else bind(model, data, options.allow_nan)
    check_allowed(inputs, options.allow_nan)
    if isinstance(options.guide, str) and options.guide not in GUIDES:
        raise ValueError(
            f"guide: unknown name {options.guide!r}; expected one of {list(GUIDES)}, a guide function or an AutoGuide"
        )
    drawn = GlobalDraws()
    traced, inputs = trace_program(model, None, inputs)
    lengths = _lengths(traced.sites, options.batch_size)
    if lengths:
        traced, inputs = trace_program(model, None, inputs, lengths)
    sites = traced.sites
    random = not as_target(model).guided  # an expected loss without a site is a loss
    if random and not sites.samples:
        raise ValueError(
            "model: it has no site on these data, so that there is nothing to fit; does it return before its first "
            "numpyro.sample, or only define a function?"
        )
    if random and not sites.latents:
        raise ValueError(
            "model: it has no latent site, so that there is nothing to fit; is every numpyro.sample given obs=?"
        )
    if not any(s.observed for s in sites.samples.values()):
        warnings.warn(
            "model: it has no observed site on these data, so that it is its prior that is fitted; pass what was "
            "observed, and give it to numpyro.sample by obs=",
            UserWarning,
            stacklevel=4,
        )
    guide = None if isinstance(options.guide, str) else as_guide_function(options.guide, inputs, model)
    if guide is not None:
        check = lambda guide_sites: guide_nodes(sites, guide_sites)  # noqa: E731
        with another_model(guide, model):
            traced, inputs = trace_program(model, guide, inputs, lengths, check_guide=check)
    check_keys({*sites.samples, *(traced.guide_sites.samples if traced.guide_sites is not None else ())})
    if traced.of_transformation:
        partly = frozenset(masked_sites(traced))
    elif options.masked is not None:
        partly = frozenset(options.masked)
    else:
        check_indices(traced, inputs, lambda: _whole(model, inputs, sites))
        partly = partly_masked(traced, inputs)
    key = (*_cache_key(inputs, traced, options), partly, as_target(model).tried)
    if drawn.any:
        check_same_again(traced, lambda: trace_program(model, guide, inputs, lengths)[0])
    make = lambda: _make(model, guide, inputs, traced, options, lengths, partly)  # noqa: E731
    # A program that holds values of a transformation under way is for it alone.
    engine = make() if traced.of_transformation else CACHE.get(key, make)
    engine.use(model, guide)
    return engine, inputs


def _whole(model: Callable, inputs: Inputs, sites: Sites) -> Traced | None:
    """The model with every plate at full size; None for one that has the length of its batches written into it, which
    is said where the whole is needed."""
    try:
        return trace_program(model, None, inputs, {name: plate.size for name, plate in sites.subsampled.items()})[0]
    except ValueError:
        return None


def _make(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    traced: Traced,
    options: Options,
    lengths: Mapping[str, int],
    partly: Collection[str],
) -> Engine:
    objective, has_values = as_objective(options.objective), options.masked is None
    if has_values:
        check_rows_factor(traced, inputs)
    fingerprint = traced.fingerprint
    traced, structure, eliminations = _summed_out(traced, options, objective, partly)
    if traced.of_transformation:  # what is not known cannot be tried
        doubts = Doubts(untested_jumps(structure), untested_slopes(structure), untested_angles(traced.sites))
    elif not has_values:  # every choice is asked for, and was tried when it was made
        doubts = Doubts()
    else:
        tried = (model, guide, inputs, traced.sites, structure)
        jumps = find_jumps(*tried)
        slopes = find_false_slopes(*tried, settled=jumps.found)
        doubts = Doubts(jumps, slopes, find_aperiodic(*tried))
    chosen = make_plan(
        masked_in_part(traced.sites, partly),
        structure,
        guide=options.guide if traced.guide_sites is None else "function",
        guide_sites=traced.guide_sites,
        families=options.families,
        estimators=options.estimators,
        allow_bias=options.allow_bias,
        num_particles=options.num_particles,
        doubts=doubts,
        objective=objective,
        conjugate=conjugate_sites(model, inputs, traced, structure) if options.guide == "auto" and has_values else (),
        eliminations=eliminations,
    )
    discrete = {"unlinked": traced.unlinked, "summands": traced.in_parts}
    program = traced_for(chosen, traced, model, guide, inputs, lengths, **discrete)
    optimizer = Optimizer(options.optimizer)
    moves = (
        {}
        if program is not traced or traced.guide_sites is not None
        else _noncentred(traced, structure, chosen, options, objective)
    )
    if moves:
        imaged = tuple(n for n, m in moves.items() if m.of_image)
        direct = tuple(n for n in moves if n not in imaged)
        program, _ = trace_program(
            model,
            guide,
            inputs,
            lengths,
            noncentred=direct,
            imaged=imaged,
            unlinked=traced.unlinked,
            summands=traced.in_parts,
        )
        structure, chosen = analyse_structure(program), with_coordinates(chosen, moves)
    made = Program(program, structure, chosen, objective)
    check_in_parts(made, made.elements)
    read_outputs(made)  # raises where an estimator reads what is not there
    return Engine(made, model, guide, inputs, optimizer, fingerprint, lengths)


def _summed_out(
    traced: Traced, options: Options, objective: Objective, partly: Collection[str]
) -> tuple[Traced, Structure, Eliminations]:
    """What is summed out, and the program with the scans of these sites as maps over their steps."""
    guide_sites = traced.guide_sites
    sites = masked_in_part(traced.sites, partly)
    nodes = sites.latents if guide_sites is None else guide_nodes(sites, guide_sites)
    asked = asked_for(options.estimators, nodes)
    families = overrides_of(options.families, nodes, "family", "families")
    offered = integrable(sites, guide_sites, asked, objective, families)
    integrated = [n for names in offered.values() for n in names]
    discrete = summable(sites, guide_sites, asked, objective)
    names = [n for n in dict.fromkeys([*discrete, *integrated]) if sites.samples[n].from_scan]
    found, linked = unlinkable(traced, names) if names else (traced, {})
    linked = {n: why for n, why in linked.items() if n in discrete or n in asked}
    while True:
        whole = found, analyse_structure(found)
        found = taken_apart(*whole, sites, [n for n in discrete if n not in linked])
        structure = analyse_structure(found) if found is not whole[0] else whole[1]
        closed = closed_forms(found, sites, structure, asked, objective, offered)
        chosen = eliminations_of(sites, structure, guide_sites, asked, objective, traced.scales, linked, closed)
        gone = found.unlinked - chosen.sites
        if not gone:
            return (found, structure, chosen) if chosen.in_elements else (*whole, chosen)
        linked |= {n: chosen.left[n] for n in sorted(gone) if n in chosen.left}
        found = unlinked_at(traced, found.unlinked - gone)


def _noncentred(
    traced: Traced, structure: Structure, chosen: Plan, options: Options, objective: Objective
) -> dict[str, Moves]:
    """The sites that are put in partly non-centred coordinates, and why: those asked for, or, where the choice is
    autovi's, those of joint blocks whose location or scale is unknown."""
    found = candidates(traced, structure)
    if options.noncentred is not None:
        return {n: found[n] for n in options.noncentred}
    if options.guide != "auto" or why_not(traced, chosen, objective) is not None:
        return {}
    joint = {s for b in chosen.blocks if mappable(b) and not b.estimator.local for s in b.sites}
    return {n: m for n, m in found.items() if n in joint}


def conjugate_sites(model: Callable, inputs: Inputs, traced: Traced, structure: Structure) -> dict[str, Params]:
    """Site -> the parameters of its exact posterior, of those sites that have it in the family of their prior.

    Where the program is of a batch, the parameters are those of its posterior alone."""
    if traced.guide_sites is not None or as_target(model).guided:
        return {}
    named = {
        n: s.gradients.own_family
        for n, s in traced.sites.latents.items()
        if not (s.subsampled or s.discrete or s.gradients.not_pathwise)
    }
    families = {n: FAMILIES[name]() for n, name in named.items() if name is not None}
    families = {n: f for n, f in families.items() if f.refuses(traced.sites.latents[n]) is None}
    found = find_conjugate(model, inputs, traced.sites, structure, {n: f.statistics for n, f in families.items()})
    made = {n: families[n].from_natural(jnp.asarray(c.coefficients)) for n, c in found.items()}
    # A log density in the span whose integral is infinite is no member.
    return {n: p for n, p in made.items() if all(np.isfinite(x).all() for x in p.values())}


def _cache_key(inputs: Inputs, traced: Traced, options: Options) -> Any:
    """Equal keys mean the same compiled program. The fingerprint holds what the functions close over."""
    return (
        inputs.signature(),
        traced.fingerprint.key,
        options.guide if isinstance(options.guide, str) else None,
        digest([_by_name(options.families), _by_name(options.estimators), options.objective]),
        options.allow_bias,  # what is refused without it must not be found
        options.num_particles,
        options.noncentred,
        options.masked is None,
        sorted_items(options.batch_size),
        None if options.optimizer is None else optimizer_fingerprint(options.optimizer),
        environment(),
    )


def _by_name(asked: Mapping[str, Any] | None) -> list[Any]:
    return sorted((asked or {}).items(), key=lambda item: str(item[0]))


def _lengths(sites: Sites, batch_size: int | Mapping[str, int] | None) -> dict[str, int]:
    if batch_size is None:
        return {}
    if isinstance(batch_size, Mapping):
        unknown = sorted(set(batch_size) - set(sites.plates))
        if unknown:
            raise ValueError(f"batch_size: no plate is called {unknown[0]!r}; the plates are {sorted(sites.plates)}")
        lengths = dict(batch_size)
    else:
        names = list(sites.subsampled) or (list(sites.plates) if len(sites.plates) == 1 else [])
        if not names:
            check_count("batch_size", batch_size)
            raise ValueError(
                "batch_size: which plate is to be subsampled? Say {plate: size}; the plates are "
                f"{sorted(sites.plates)}, none of which has a subsample_size"
            )
        lengths = dict.fromkeys(names, batch_size)
    for name, length in lengths.items():
        check_count(f"batch_size[{name!r}]", length)
        if length > sites.plates[name].size:
            raise ValueError(
                f"batch_size: {length} is more than plate {name!r} has elements ({sites.plates[name].size})"
            )
    return {n: int(length) for n, length in lengths.items()}
