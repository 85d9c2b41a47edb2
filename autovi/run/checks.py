"""What is said when a start or a fit went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from autovi.analysis.bounds import bounded_by
from autovi.analysis.let_through import NAN_REMEDY, nan_let_through
from autovi.analysis.singular import singular_operations
from autovi.numbers import how_many
from autovi.plan import bias, coupling
from autovi.program.program import Program
from autovi.run.engine import Engine, Start
from autovi.run.state import State, learning
from autovi.run.stopping import Progress

if TYPE_CHECKING:
    from autovi.model.inputs import Inputs
    from autovi.model.trial import Trial


def check_start(engine: Engine, start: Start, inputs: Inputs) -> None:
    """Raises unless some starting point has a finite ELBO.

    Raises:
        ValueError: names the site that the data's NaN reach, the observed site whose data lie outside its support, or
            else the sites whose density is not finite at any of the tried points, with the parameter of theirs that is
            wrong.
    """
    program = engine.program
    never = [n for n, finite in zip(program.term_names, np.any(start.finite, axis=0), strict=True) if not finite]
    fine = np.any(np.isfinite(start.totals))
    outside = [name for name, inside in start.inside.items() if not np.any(inside)]
    if through := nan_let_through(program.traced, inputs, [*never, *(f"p:{name}" for name in outside)]):
        raise ValueError(f"{through}, whose density is NaN there; {NAN_REMEDY}")
    # A site that is summed out may be drawn where the data are outside: its density says what is possible.
    outside = [name for name in outside if not (fine and bounded_by(program.traced.graph, name))]
    if fine and not outside:
        return
    trial = engine.trial(inputs.traced())
    for name in outside:
        raise ValueError(trial.with_line(_outside(program, trial, name, start.totals.size), name))
    times = dict(zip(program.term_names, np.sum(start.finite, axis=0).tolist(), strict=True))
    often = sorted(times, key=lambda n: times[n])[:1]
    names = sorted({n.split(":", 1)[1] for n in never or often})
    where = f"the log density is not finite at any of the {start.totals.size} starting points tried"
    if impossible := _impossible(program, never):
        raise ValueError(trial.with_line(f"{_sites(names)}: {where}{impossible}", names[0]))
    for name in names:
        if wrong := trial.wrong_parameters(name):
            raise ValueError(trial.with_line(f"site {name!r}: {where}; where the fit starts {wrong}", name))
    remedy = "check the parameters there (a scale of 0? a log of a negative number?) and the data's scale"
    raise ValueError(trial.with_line(f"{_sites(names)}: {where}; {remedy}", names[0]))


def _sites(names: Sequence[str]) -> str:
    return f"site {names[0]!r}" if len(names) == 1 else f"sites {list(names)}"


def _outside(program: Program, trial: Trial, name: str, tried: int) -> str:
    """What is said of a site whose observations lie outside of its support wherever the fit may start."""
    site = program.sites.samples[name]
    kind = f"{site.distribution} ({site.support})"
    example = f", such as {told}" if (told := trial.outside(name)) else ""
    if not (bounds := bounded_by(program.traced.graph, name)):
        return (
            f"site {name!r}: observations lie outside the support of {kind}{example}; check the data, their coding "
            "(counts from 0?) and the likelihood"
        )
    return (
        f"site {name!r}: observations lie outside the support of {kind}{example}, at all {tried} starting points "
        f"tried: {_bound_of(program, name, bounds)}"
    )


def _bound_of(program: Program, name: str, bounds: Sequence[str]) -> str:
    """What to do where latent sites bound the support of an observed one."""
    latents = program.sites.latents
    kind = "latent" if bounds[0] in latents else "parameter"
    told = f"the bound of {name!r} is the {kind} {' and '.join(map(repr, bounds))}"
    if bounds[0] in latents and latents[bounds[0]].discrete:
        other = latents[bounds[0]].distribution
        return (
            f"{told}, whose draws fall short of the data; give {bounds[0]!r} a finite support, over which it is summed "
            f"out exactly: dist.DiscreteUniform(0, largest), or dist.Categorical(logits=prior.log_prob(jnp.arange("
            f"largest + 1))) with the {other} as prior"
        )
    return (
        f"{told}, and where the guide lets it leave an observation behind the ELBO is minus infinity; give "
        f"{bounds[0]!r} a support that the data allow, such as values above the largest observation only"
    )


def _impossible(program: Program, terms: Sequence[str]) -> str:
    """What is said of terms that are not finite, where discrete sites meet that q has independent."""
    above = [[n for n in program.structure.upstream.get(t, ()) if n in program.plan.coupled] for t in terms]
    meets = next((sites for sites in above if len(sites) > 1), None)
    if meets is None:
        return ""
    return (
        f", where {' and '.join(map(repr, meets))} meet: if some of their values together have probability zero, the "
        "ELBO is minus infinity, since q has them independent and gives weight to every combination; write them as one "
        "Categorical site over the combinations that can be, or give the others a small probability"
    )


def check_end(engine: Engine, progress: Progress, state: State, inputs: Inputs) -> None:
    """Sets status and message from what the loop counted."""
    losses = np.concatenate([*progress.losses, np.zeros(0)])
    skipped = int(state.skipped)
    if skipped:
        where = faulty_sites(engine, state)
        said = (
            f"{how_many(skipped)} of {how_many(progress.step, 'step')} had a non-finite ELBO or gradient and changed "
            f"nothing (site(s) {where})"
        )
        observed = engine.program.sites.observed
        moving = {n: bounds for n in where if n in observed and (bounds := bounded_by(engine.program.traced.graph, n))}
        said += "".join(f"; {_bound_of(engine.program, n, bounds)}" for n, bounds in list(moving.items())[:1])
        through = nan_let_through(engine.program.traced, inputs, [f"p:{name}" for name in where])
        said += f"; {through}: {NAN_REMEDY}" if through else _remedy(engine, state, where)
        failed = skipped > 0.5 * progress.step or not np.isfinite(losses[-1:]).all()
        if failed and progress.status != "stopped":
            progress.status = "failed"
        progress.message = "; ".join(filter(None, [progress.message, said]))
    if progress.status == "max_steps" and not progress.message:
        progress.end_at_limit()
    plan = engine.program.plan
    for status, said in (("biased", bias.warning(plan.biased)), ("mean_field", coupling.warning(plan.coupled))):
        if said:
            progress.message = "; ".join(filter(None, [progress.message, said]))
            progress.status = status if progress.status == "converged" else progress.status


def _remedy(engine: Engine, state: State, where: Sequence[str]) -> str:
    """What to do about a gradient that is not finite though the cost is."""
    bad = [t for t, count in zip(engine.program.term_names, np.asarray(state.bad_terms), strict=True) if count]
    if bad:
        return _impossible(engine.program, bad)
    latent = [n for n in where if n in engine.program.sites.latents and not engine.program.sites.latents[n].discrete]
    operations = sorted({o for n in latent for o in singular_operations(engine.program.traced.graph, n)})
    named = f" ({', '.join(operations)})" if operations else ""
    score = f", or ask for estimators={{{latent[0]!r}: 'score'}}" if latent else ""
    return (
        f": the cost is finite there, its gradient is not. A `where` takes one branch and differentiates both{named}: "
        f"make the argument safe inside of the branch too, as in where(z > 0, sqrt(where(z > 0, z, 1)), 0){score}"
    )


def faulty_sites(engine: Engine, state: State) -> list[str]:
    """The sites whose terms, or else whose parameters' gradients, were not finite in most of the skipped steps."""
    bad_terms = zip(engine.program.term_names, np.asarray(state.bad_terms), strict=True)
    counts = {n.split(":", 1)[1]: int(c) for n, c in bad_terms if int(c)}
    if not counts:
        counted = jax.tree.leaves(state.bad_params.whole)
        offset, bad = 0, np.concatenate([*(np.ravel(x) for x in counted), np.zeros(0, np.uint8)])
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            part, offset = bad[offset : offset + leaf.size], offset + leaf.size
            name = path[1].key
            sites = engine.program.plan.block(name).sites if path[0].key == "guide" else (name,)
            counts.update({s: counts.get(s, 0) + int(part.max(initial=0)) for s in sites if part.any()})
        own = zip(learning(state.estimators), np.asarray(state.bad_params.own), strict=True)
        for name, count in (*state.bad_params.rows.items(), *own):
            sites = engine.program.plan.block(name).sites if int(count) else ()
            counts.update({s: max(counts.get(s, 0), int(count)) for s in sites})
    return sorted(counts, key=lambda n: -counts[n])


def check_count(name: str, value: Any, optional: bool = False) -> None:
    """Raises ValueError, naming the argument, unless `value` is an integer of at least 1 (or None, if `optional`)."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1{' or None' if optional else ''}, got {value!r}")
