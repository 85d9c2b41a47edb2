"""The log joint density of a program's continuous sites as a function of one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.program.program import Program
from autovi.program.surrogate import integrated


def joint_density(
    program: Program,
    params: Mapping[str, Any],
    arrays: Mapping[str, Any],
    priors: Mapping[str, jax.Array] | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """log p(x, u) as a function of the unconstrained values u `(start_size,)` of all continuous blocks, one after the
    other as in a starting point; sites that are summed out are.

    The Jacobian of the change to the unconstrained scale is in it. Whatever depends on the data alone is evaluated
    here, not in every call. `params` bring the constants of the coordinates (pseudo-data). Of the sites in `priors` the
    own prior enters with that weight.
    """
    weights = {f"p:{name}": weight for name, weight in (priors or {}).items()}
    shared = program.shared(params, arrays, {}, program.cost_outputs)
    # Every node is forced to a value, so that neither key nor noise matters.
    key = jax.random.key(0)
    noise = jax.tree.map(lambda x: x[0], program.noise(key, 1))

    def log_density(point: jax.Array) -> jax.Array:
        world = program.particle(shared, key, noise, program.start_values(point, {}))
        raw, together = world.all_terms()
        terms, _ = integrated(program, world, raw, program.integrating, program.plan.groups, 1)
        model = [weights.get(n, 1.0) * jnp.sum(t.value) for n, t in terms.items() if not n.startswith("q:")]
        for group, vector in zip(program.alike, together, strict=True):
            model += [jnp.dot(vector, jnp.stack([jnp.asarray(weights.get(n, 1.0), vector.dtype) for n in group.names]))]
        return jnp.asarray(sum(model))

    return log_density
