"""What is said when a start or a fit went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from autovi.analysis.let_through import NAN_REMEDY, nan_let_through
from autovi.analysis.singular import singular_operations
from autovi.plan.coupling import warning
from autovi.program.program import Program
from autovi.run.engine import Engine, Start
from autovi.run.state import State
from autovi.run.stopping import Progress

if TYPE_CHECKING:
    from autovi.model.inputs import Inputs


def check_start(program: Program, start: Start, inputs: Inputs) -> None:
    """Raises unless some starting point has a finite ELBO.

    Raises:
        ValueError: names the site that the data's NaN reach, the observed site whose data lie outside its support, or
            else the sites whose density is not finite at any of the tried points.
    """
    never = [n for n, finite in zip(program.term_names, np.any(start.finite, axis=0), strict=True) if not finite]
    outside = [name for name, inside in start.inside.items() if not np.any(inside)]
    if through := nan_let_through(program.traced, inputs, [*never, *(f"p:{name}" for name in outside)]):
        raise ValueError(f"{through}, whose density is NaN there; {NAN_REMEDY}")
    for name, inside in start.inside.items():
        if not np.any(inside):
            site = program.sites.samples[name]
            where = f" at all {start.totals.size} starting points tried" if site.gradients.moving_support else ""
            raise ValueError(
                f"site {name!r}: observations lie outside the support of {site.distribution} ({site.support}){where}; "
                "check the data, their coding (counts from 0?) and the likelihood"
            )
    if np.any(np.isfinite(start.totals)):
        return
    times = dict(zip(program.term_names, np.sum(start.finite, axis=0).tolist(), strict=True))
    often = sorted(times, key=lambda n: times[n])[:1]
    names = sorted({n.split(":", 1)[1] for n in never or often})
    where = f"the log density is not finite at any of the {start.totals.size} starting points tried; the fault is at "
    if impossible := _impossible(program, never):
        raise ValueError(f"{where}site(s) {names}{impossible}")
    raise ValueError(
        f"{where}site(s) {names}: check their parameters (a scale of 0? a log of a negative number?) and the data's "
        "scale"
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
            f"{skipped} of {progress.step} steps had a non-finite ELBO or gradient and changed nothing "
            f"(site(s) {where})"
        )
        observed = engine.program.sites.observed
        moving = [n for n in where if n in observed and observed[n].gradients.moving_support]
        if moving:
            said += (
                f"; the support of {moving[0]!r} moves with its parameters, and where the guide lets it leave an "
                "observation behind the ELBO is minus infinity: give the parameter a support that the data allow"
            )
        through = nan_let_through(engine.program.traced, inputs, [f"p:{name}" for name in where])
        said += f"; {through}: {NAN_REMEDY}" if through else _remedy(engine, state, where)
        failed = skipped > 0.5 * progress.step or not np.isfinite(losses[-1:]).all()
        if failed and progress.status != "stopped":
            progress.status = "failed"
        progress.message = "; ".join(filter(None, [progress.message, said]))
    coupled = warning(engine.program.plan.coupled)
    if progress.status == "max_steps" and not progress.message:
        asked = progress.num_steps is not None
        progress.message = (
            f"ran the {progress.step} steps asked for; whether they suffice was not tested"
            if asked
            else f"the loss had not come to a stand after max_steps={progress.max_steps}"
        )
    if coupled:
        progress.message = "; ".join(filter(None, [progress.message, coupled]))
        progress.status = "mean_field" if progress.status == "converged" else progress.status


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
        of_rows = {n: int(c) for n, c in state.bad_params.rows.items() if int(c)}
        counts.update({s: c for n, c in of_rows.items() for s in engine.program.plan.block(n).sites})
    return sorted(counts, key=lambda n: -counts[n])


def check_count(name: str, value: Any, optional: bool = False) -> None:
    """Raises ValueError, naming the argument, unless `value` is an integer of at least 1 (or None, if `optional`)."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1{' or None' if optional else ''}, got {value!r}")
