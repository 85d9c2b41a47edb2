"""Probabilities of the values of discrete sites, averaged over posterior draws of all else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.compiling import compiler_options
from autovi.elimination.closed import Closed
from autovi.elimination.group import Group
from autovi.elimination.semirings import Summed
from autovi.process import computing
from autovi.program.program import Program
from autovi.program.summing import Particle, in_shape, weights_of
from autovi.program.world import World
from autovi.run.drawing import PART, Keys, noise_of
from autovi.run.engine import Engine


@computing()
def probabilities(engine: Engine, params: Any, arrays: Mapping[str, Any], keys: Keys) -> dict[str, np.ndarray]:
    """Site -> `[*shape, K]`, the mean over the draws that belong to the keys of the probability of each value given
    all else of the draw: exactly of sites that are summed out, by q of those in the guide."""

    def mean(params: Any, arrays: Mapping[str, Any], data: jax.Array, wide: jax.Array) -> dict[str, jax.Array]:
        arrays = engine.full.settled(arrays)
        rng_keys = jax.random.wrap_key_data(data, impl=keys.implementation)
        of_draw = partial(_of_draw, engine, params, arrays, wide)
        add = lambda total, key: (jax.tree.map(jnp.add, total, of_draw(key)), None)  # noqa: E731
        start = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: of_draw(rng_keys[0])))
        return jax.tree.map(lambda total: total / len(data), jax.lax.scan(add, start, rng_keys)[0])

    part = keys.data[:PART]
    named = ("probabilities", part.shape, keys.implementation)
    run = engine.kept(named, lambda: jax.jit(mean, compiler_options=compiler_options()))
    return {n: np.asarray(p) for n, p in run(params, arrays, part, np.asarray(keys.widened)).items()}


def _of_draw(
    engine: Engine, params: Any, arrays: Mapping[str, Any], wide: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    program = engine.drawn
    indices = {n: jnp.arange(p.size) for n, p in engine.program.sites.subsampled.items()}
    shared = program.shared(params, arrays, indices, program.cost_outputs)
    noise, _ = noise_of(program, key, wide)
    world = program.particle(shared, key, noise)
    found: dict[str, jax.Array] = {}
    for group in program.plan.groups:
        if isinstance(group, Closed):
            found |= {s: jnp.moveaxis(p, 0, -1) for s, p in group.probabilities(Particle(world)).items()}
        if not isinstance(group, Group):
            continue
        weights = weights_of(program, world, group, 1, Summed())
        found |= {s: jnp.moveaxis(in_shape(program, group, s, weights[s]), 0, -1) for s in group.sites}
    return found | _in_guide(program, world)


def _in_guide(program: Program, world: World) -> dict[str, jax.Array]:
    """The same of finite discrete sites that the guide draws."""
    found = {}
    for name, node in world.nodes.items():
        site = program.sites.samples.get(name)
        if site is not None and site.discrete and site.values is not None:
            values = program.branch_values(name)
            log_prob = lambda value, q=node.q: q.log_prob(jnp.full(q.shape(), value))  # noqa: E731
            found[name] = jnp.moveaxis(jnp.exp(jax.vmap(log_prob)(jnp.asarray(values))), 0, -1)
    return found
