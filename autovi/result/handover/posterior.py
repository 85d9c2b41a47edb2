"""A fit's draws and its model's density on NumPyro's unconstrained scale, or why there are none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import potential_energy

from autovi.analysis.counted import partly_masked
from autovi.compiling import compiler_options
from autovi.model.execution import ONE_AT_A_TIME
from autovi.model.target import Target
from autovi.model.targets import as_target
from autovi.preparation import Options, prepare
from autovi.program.program import Program
from autovi.result.handover.density import Joint
from autovi.result.posterior import Posterior
from autovi.run.drawing import DRAWS_BUDGET

# Of a log density and of nats: two programs of one density differ by rounding, which grows with what is added up. A
# Jacobian that only one of them scales makes nats between points that are far apart.
ROUNDING = (1e-5, 1e-2)


def joint_of(fit: Posterior) -> Joint:
    """The log joint density of the fit's model. Where the fit has discrete sites in q, or a guide function, it is that
    of the plan which autovi makes by itself, if that sums them out.

    Raises:
        ValueError: there is no density of continuous sites alone; says of which site and why.
    """
    program, arrays = fit.engine.full, fit.arrays
    if fit.guide is not None or _discrete(program):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the fit has said what there is to say
            engine, _ = prepare(fit.model, fit.inputs, Options(allow_nan=fit.inputs.allow_nan))
        program = engine.full
    if left := _discrete(program):
        choice = program.plan[left[0]]
        raise ValueError(
            f"site {left[0]!r}: NUTS moves continuous sites alone, and this discrete one is not summed out "
            f"(estimator {choice.estimator!r}: {choice.why}); use a sampler for discrete sites, such as NumPyro's "
            "DiscreteHMCGibbs"
        )
    joint = Joint(program, fit.raw_params, arrays)
    if not joint.sites:
        raise ValueError("to_nuts: the model has no continuous site that is not summed out; fit.sample draws all sites")
    masked = partly_masked(program.traced, fit.inputs) & {*joint.sites}
    if masked:
        name = sorted(masked)[0]
        raise ValueError(
            f"site {name!r}: a mask leaves out elements that nothing else feels, so that they have no density for "
            "NUTS; expected a mask on observed sites alone; leave these elements out of the model"
        )
    return joint


def _discrete(program: Program) -> list[str]:
    """The discrete sites that are not summed out."""
    gone = {*program.plan.marginal, *program.plan.ancestral}
    return [n for n, s in program.sites.latents.items() if s.discrete and n not in gone]


def unconstrained_draws(fit: Posterior, joint: Joint, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The draws that are finite there, of the sites that the density has: site -> `(num_draws, *shape)`."""
    target, inputs = as_target(fit.model), fit.inputs.without_data()
    lengths = {n: p.size for n, p in fit.engine.program.sites.subsampled.items()}
    latents = {n: np.asarray(values[n]) for n in joint.program.sites.latents if n in values}
    params = {n: v for n, v in fit._site_params.items() if n in joint.program.traced.params}
    at_once = int(np.clip(DRAWS_BUDGET // max(1, fit.engine.numbers_per_draw), 1, 1000))

    def every(arrays: Any, params: Any, latents: Any) -> dict[str, jax.Array]:
        one = lambda draw: target.unconstrained(inputs, lengths, arrays, params, draw)  # noqa: E731
        return {n: x for n, x in jax.lax.map(one, latents, batch_size=at_once).items() if n in joint.shapes}

    run = jax.jit(every, compiler_options=compiler_options())
    found = {n: np.asarray(x) for n, x in run(fit.arrays, params, latents).items()}
    finite = np.all([np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in found.values()], axis=0)
    return {n: found[n][finite] for n in joint.sites}


def why_not_numpyro(fit: Posterior, joint: Joint, points: Mapping[str, Any], log_p: np.ndarray) -> str:
    """Why NumPyro's own potential of the model is not the density of the fit; empty where it is, as seen at some
    points."""
    plan, subsampled = joint.program.plan, fit.engine.program.sites.subsampled
    if isinstance(fit.model, Target):
        return "the model is a log density"
    if plan.marginal or plan.ancestral:
        return f"{sorted({*plan.marginal, *plan.ancestral})[0]!r} is summed out"
    if joint.program.traced.params:
        return f"the parameter {sorted(joint.program.traced.params)[0]!r} has its fitted value"
    if subsampled:
        return f"the plate {sorted(subsampled)[0]!r} is taken whole"
    args, kwargs = fit.inputs.rebuild(fit.inputs.arrays if fit.inputs.concrete else fit.arrays)
    try:
        with ONE_AT_A_TIME:
            potentials = jax.jit(jax.vmap(lambda u: potential_energy(fit.model, args, kwargs, u)))(points)
    except Exception as error:  # of whatever kind: NumPyro would raise it too
        return f"NumPyro has no potential of the model ({type(error).__name__})"
    apart = np.asarray(potentials, np.float64) + log_p
    if not np.ptp(apart) <= ROUNDING[0] * np.abs(log_p).max() + ROUNDING[1]:
        return "NumPyro's potential of the model is another (it scales the Jacobian of a site with the site)"
    return ""


def evaluated(joint: Joint, points: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The log density at points `(n, *shape)`, and whether it and its gradient are finite there."""
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(joint.log_density)))(points)
    finite = jnp.isfinite(value)
    for leaf in jax.tree.leaves(slope):
        finite &= jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=1)
    return np.asarray(value, np.float64), np.asarray(finite)
