"""Angles whose costs differ between -pi and pi: a pathwise gradient would be wrong there without a sign of it.

On a circle a draw moves across the cut at -pi and pi as its parameters change. A cost that is not periodic jumps there,
which no operation in the program shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from autovi.analysis.bounded_loops import UnboundedError, call_bounded, run_once
from autovi.analysis.structure import Structure, cost_terms
from autovi.analysis.trial_values import apart, as_double, trial_values
from autovi.model.inputs import Inputs
from autovi.model.sites import CIRCULAR, Sites
from autovi.model.targets import as_target
from autovi.numbers import nats

DRAWS = 32  # values of everything else at which the two sides are compared
STEPS = 10_000  # that the loops of one evaluation may take
NEAR = 1e-4  # how far from the cut the costs are compared, in radians
UNTESTED = "whether its terms differ between -pi and pi was not tested: "
SMALLEST = 1e-5  # jumps below, in nats, count as none


def find_aperiodic(
    model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites, structure: Structure
) -> dict[str, str]:
    """Site on a circle -> the cost term that jumps at the cut, and by how much. Free where no site is an angle.

    The difference between the two sides of the cut, taken at two distances and extrapolated to none, in double
    precision, with random elements of the site at the cut and everything else at draws.
    """
    angles = [n for n, s in sites.latents.items() if s.support == CIRCULAR]
    try:
        return _find(model, guide, inputs, sites, structure, angles) if angles else {}
    except UnboundedError as error:
        return dict.fromkeys(angles, UNTESTED + f"a loop inside the operation {error} cannot be bounded")


def untested_angles(sites: Sites) -> dict[str, str]:
    """What is to be said where the functions close over values that are not known yet."""
    reason = "the function closes over values that a transformation of JAX's traces; make them arguments"
    return {n: UNTESTED + reason for n, s in sites.latents.items() if s.support == CIRCULAR}


def _find(
    model: Callable, guide: Callable | None, inputs: Inputs, sites: Sites, structure: Structure, angles: list[str]
) -> dict[str, str]:
    evaluate = cost_terms(model, guide, inputs, sites)
    own = guide is None and not as_target(model).guided
    key = jax.random.key(0)
    arrays = jax.device_put(inputs.traced())
    values = trial_values(model, guide, inputs, arrays, sites, key)
    with jax.enable_x64(True):
        values = {n: as_double(v) for n, v in values.items()}
        arrays = {n: as_double(a) for n, a in arrays.items()}

        def terms(node: str, draws: Mapping[str, Array], angle: Array) -> dict[str, Array]:
            every, _ = evaluate(*apart({**draws, node: _to_tracked(angle, own)}, arrays), key)
            return {t: every[t] for t in structure.downstream[node] if t in every}

        found = {n: _jump(n, terms, values, own) for n in angles}
    return {n: said for n, said in found.items() if said is not None}


def _jump(node: str, terms: Callable, values: Mapping[str, Array], unconstrained: bool) -> str | None:
    """The largest jump of a term at the cut of one site, in words; None where all terms are periodic.

    With d(h) the difference between the two sides at distance h, the jump is 2 d(h) - d(2h) up to h^3.
    """

    def one(draws: Mapping[str, Array], key: Array) -> tuple[dict[str, tuple[Array, Array]], Array]:
        own = _from_tracked(draws[node], unconstrained)
        moved = jax.random.bernoulli(key, 0.5, own.shape) | (jnp.arange(own.size).reshape(own.shape) == 0)

        places = jnp.pi - NEAR * jnp.array([1.0, -1.0, 2.0, -2.0])
        around = jnp.where(moved, ((places + jnp.pi) % (2 * jnp.pi) - jnp.pi).reshape(4, *[1] * own.ndim), own)
        costs, ended = jax.vmap(lambda angle: call_bounded(partial(terms, node), STEPS, draws, angle))(around)
        # Where a loop does not end, nothing is known of this draw.
        known = jnp.all(ended)
        return {t: _jump_of(jnp.where(known, cost, jnp.nan)) for t, cost in costs.items()}, known

    keys = jax.random.split(jax.random.key(1), DRAWS)
    found, known = run_once(jax.vmap(one), {n: v[:DRAWS] for n, v in values.items()}, keys)
    if found and not np.any(known):
        return UNTESTED + f"their loops take more than {STEPS:,} steps"
    jumps = {t: float(np.max(np.where(j > SMALLEST + 1e-9 * s, j, 0.0))) for t, (j, s) in found.items()}
    worst = max(jumps, key=lambda t: jumps[t], default="")
    if not worst or jumps[worst] == 0:
        return None
    return f"the term {worst!r} differs by {nats(jumps[worst])} between -pi and pi"


def _jump_of(cost: Array) -> tuple[Array, Array]:
    """The jump of a term from its four values, and their size; infinite where the term is so on one side only."""
    one_sided = jnp.any(jnp.isfinite(cost[0]) != jnp.isfinite(cost[1]))
    known = jnp.where(jnp.isfinite(cost), cost, 0.0)
    whole = jnp.all(jnp.isfinite(cost), axis=0)
    jump = jnp.max(jnp.where(whole, jnp.abs(2 * (known[0] - known[1]) - (known[2] - known[3])), 0.0))
    return jnp.where(one_sided, jnp.inf, jump), jnp.max(jnp.abs(known))


def _to_tracked(angle: Array, unconstrained: bool) -> Array:
    return biject_to(constraints.circular).inv(angle) if unconstrained else angle


def _from_tracked(value: Array, unconstrained: bool) -> Array:
    return biject_to(constraints.circular)(value) if unconstrained else value
