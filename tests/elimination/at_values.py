"""What autovi makes of a model at given values of the sites that stay in the guide: the sum of all other terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gradient_checks import ONCE

from autovi.plan.plan import Plan
from autovi.preparation import Options, prepare
from autovi.program.surrogate import Step


class AtValues(NamedTuple):
    """The log evidence and its gradient in each value, and the plan."""

    value: float
    gradient: dict[str, np.ndarray]
    plan: Plan


def at_values(model: Any, data: Mapping[str, Any], theta: Mapping[str, Any], indices: Any = None, **options: Any):
    """log p(data | theta) as autovi has it, with the sites that leave the guide summed out, and its gradient in the
    continuous values. `theta` are those of the other sites, each with a block of its own, on the unconstrained scale;
    `indices` those of subsampled plates."""
    engine, inputs = prepare(model, data, Options(**{"guide": "mean_field", **options}))
    made = engine.program
    arrays, indices = jax.device_put(inputs.traced()), indices or {}
    params = made.init(jax.random.key(0), arrays, jnp.zeros(made.start_size))
    own = {f"p:{n}" for n in theta} | {f"q:{b.name}" for b in made.plan.blocks}
    real = {n: jnp.asarray(x, float) for n, x in theta.items() if np.asarray(x).dtype.kind == "f"}
    whole = {n: jnp.asarray(x) for n, x in theta.items() if n not in real}

    def total(real: dict[str, jax.Array]) -> jax.Array:
        there = {**real, **whole}
        forced = {
            b.name: jnp.concatenate([jnp.ravel(there[s]) for s in b.sites]) if b.flat else there[b.name]
            for b in made.plan.blocks
        }
        step = Step(made, made.seen(params, indices), arrays, indices, jax.random.key(1), 1, forced=forced)
        others = np.array([name not in own for name in made.term_names])
        return jnp.sum(step.sums[np.unique(step.places[others]), 0])

    value, gradient = jax.jit(jax.value_and_grad(total), compiler_options=ONCE)(real)
    return AtValues(float(value), jax.tree.map(np.asarray, gradient), made.plan)
