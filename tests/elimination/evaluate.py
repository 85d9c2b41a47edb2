"""What autovi makes of a program at given continuous parameters: its terms with the discrete sites summed out.

One particle, the continuous sites forced to `theta`: the sum of all terms but their own is then log p(data | theta),
where everything discrete is summed out, and one draw's worth of a bound on it where something is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gradient_checks import ONCE

from autovi.plan.plan import Plan
from autovi.preparation import Options, prepare
from autovi.program.surrogate import Step
from elimination.description import Program
from elimination.model import model_of


class Evaluated(NamedTuple):
    """log p(data | theta) and its gradient `[thetas]` as autovi has them, and its plan."""

    log_evidence: float
    gradient: np.ndarray
    plan: Plan


def evaluate(program: Program, theta: Any = None, **options: Any) -> Evaluated:
    """Prepares the program as a fit does, with independent normals over `theta`, and evaluates one step."""
    theta = program.theta() if theta is None else np.asarray(theta)
    return evaluate_model(model_of(program), program.data, theta, **options)


def evaluate_model(model: Callable, data: Any, theta: np.ndarray, **options: Any) -> Evaluated:
    """The same of a model whose continuous sites are the real scalars "theta0", "theta1", ..."""
    engine, inputs = prepare(model, data, Options(**{"guide": "mean_field", **options}))
    made = engine.program
    arrays = jax.device_put(inputs.traced())
    params = made.init(jax.random.key(0), arrays, jnp.zeros(made.start_size))
    place = {f"theta{i}": i for i in range(len(theta))}
    blocks = [b for b in made.plan.blocks if set(b.sites) <= set(place)]
    own = {f"p:{name}" for name in place} | {f"q:{b.name}" for b in blocks}

    def total(theta: jax.Array) -> jax.Array:
        vectors = {b.name: theta[np.array([place[site] for site in b.sites])] for b in blocks}
        forced = {b.name: vectors[b.name] if b.flat else vectors[b.name][0] for b in blocks}
        step = Step(made, made.seen(params, {}), arrays, {}, jax.random.key(1), 1, forced=forced)
        others = np.array([name not in own for name in made.term_names])
        # Terms that were integrated together stand at one place of `sums`, and in the places of several terms.
        places = np.unique(step.places[others])
        return jnp.sum(step.sums[places, 0])

    value, gradient = jax.jit(jax.value_and_grad(total), compiler_options=ONCE)(jnp.asarray(theta, float))
    return Evaluated(float(value), np.asarray(gradient, float), engine.program.plan)
