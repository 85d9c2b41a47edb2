"""Sites at whose value a cost jumps: a pathwise gradient would be wrong there without a sign of it.

The traced program says where an operation could jump (`structure`), evaluation says whether it does (`continuity`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from autovi.analysis.jump_test import jumps_between
from autovi.analysis.structure import Structure, cost_terms
from autovi.distributions import registry
from autovi.model.execution import Record, execute, site_key
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites, feasible

MAX_PAIRS = 64
MIN_PAIRS = 8
MAX_TERMS = 4
BUDGET = 2_000_000_000  # numbers that the evaluations of one site may produce
BATCH = 5_000_000  # of them at once
RADII = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)  # from the origin, on the unconstrained scale


def find_jumps(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    structure: Structure,
) -> dict[str, str]:
    """Continuous site -> the cost term that jumps in it, by how much, and the operations suspected.

    Costs nothing where no operation could jump. See `trial_values` for the segments that are tried.
    """
    suspects = {n: terms for n, terms in structure.jumps.items() if terms}
    if not suspects:
        return {}
    evaluate = cost_terms(model, guide, inputs, sites)
    key = jax.random.key(0)
    arrays = jax.device_put(inputs.traced())  # a model may index them by traced plate indices, which NumPy's cannot be
    values = trial_values(model, guide, inputs, arrays, sites, key)
    found = {}
    for node, terms in suspects.items():
        said = _try(node, terms, evaluate, values, arrays, key, structure)
        if said is not None and not jax.config.read("jax_enable_x64"):
            # In single precision the rounding of large terms that cancel makes steps of its own.
            with jax.enable_x64(True):
                doubled = {n: as_double(v) for n, v in values.items()}
                double_arrays = {n: as_double(a) for n, a in arrays.items()}
                said = _try(node, terms, evaluate, doubled, double_arrays, key, structure)
        if said is not None:
            found[node] = said
    return found


def as_double(array: Any) -> Any:
    """A floating array in double precision, which has to be enabled; anything else as it is. A JAX array, since a model
    may index it by traced plate indices."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    array = np.asarray(array)
    return jnp.asarray(array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array)


def _try(node: str, suspects: Any, evaluate: Callable, values: Any, arrays: Any, key: Any, structure: Structure) -> Any:
    names = sorted(suspects)

    def terms(value: jax.Array, others: dict[str, jax.Array]) -> dict[str, jax.Array]:
        every, _ = evaluate({**others, node: value}, arrays, key)
        return {name: every[name] for name in names}

    size = sum(prod(s) for s in structure.shapes.values()) + 1
    evaluations = 33 + MAX_TERMS * 132
    pairs = int(np.clip(BUDGET // (size * evaluations), MIN_PAIRS, MAX_PAIRS))
    starts, ends = values[node][:pairs], values[node][MAX_PAIRS : MAX_PAIRS + pairs]
    # A jump in one site may show at some values of another only, so these change from pair to pair.
    others = {n: v[:pairs] for n, v in values.items() if n != node}
    batch = int(np.clip(BATCH // (size * 33), 1, pairs))
    found = jumps_between(terms, starts, ends, others, max_terms=MAX_TERMS, batch_size=batch)
    jumps = jax.tree.map(np.asarray, found)
    if not jumps.found.any():
        return None
    worst = int(np.argmax(jumps.size))
    edges = np.cumsum([prod(structure.shapes[name]) for name in names])
    term = names[int(np.searchsorted(edges, jumps.term[worst], side="right"))]
    return f"the term {term!r} jumps by {jumps.size[worst]:.2g} nats in it, by {', '.join(sorted(suspects[term]))}"


def trial_values(
    model: Callable, guide: Callable | None, inputs: Inputs, arrays: Any, sites: Sites, key: jax.Array
) -> Any:
    """Values of every node, `2 MAX_PAIRS` each, in front those that pairs start at.

    Every second one is a draw from the prior (of a guide function's sites, from the guide as it starts); the others are
    on the unconstrained scale up to 1, 3, 10, ... from the origin, however far away a jump is.
    """
    steps = jnp.arange(2 * MAX_PAIRS) % MAX_PAIRS
    radii = jnp.asarray(RADII)[(steps // 2) % len(RADII)]

    def draw(k: jax.Array, step: jax.Array, radius: jax.Array) -> dict[str, Any]:
        args, kwargs = inputs.rebuild(arrays)
        prior = {r.name: r for r in execute(model, args, kwargs, k, latent=_improper).values() if r.kind == "sample"}
        guided = {} if guide is None else execute(guide, args, kwargs, k)
        drawn = {n: r.value for n, r in guided.items() if r.fn is not None}
        for name, site in sites.latents.items():
            if name not in drawn:
                far = _far(site, site_key(k, name), radius)
                near = _as_tracked(prior[name], site, guide is None)
                drawn[name] = jnp.where(step % 2 == 0, near, far) if guide is None else near
        return drawn

    return jax.jit(jax.vmap(draw))(jax.random.split(key, 2 * MAX_PAIRS), steps, radii)


def _improper(msg: dict[str, Any]) -> Any:
    """A site without a sampler starts at the origin; the others are drawn."""
    return feasible(msg) if registry.lookup(msg["fn"]).observation_only else None


def _as_tracked(record: Record, site: Site, unconstrained: bool) -> jax.Array:
    value = jnp.asarray(record.value)
    if site.discrete:
        return value.astype(int)
    if not unconstrained or site.unconstrained_shape is None:
        return value
    assert record.fn is not None
    plain = biject_to(record.fn.support).inv(value)
    return jnp.where(jnp.isfinite(plain), plain, 0.0)


def _far(site: Site, key: jax.Array, radius: jax.Array) -> jax.Array:
    if site.values is not None:
        return jax.random.choice(key, jnp.asarray(np.asarray(site.values).astype(int)), site.batch_shape)
    if site.discrete:
        return jnp.ones(site.shape, int)
    shape = site.unconstrained_shape if site.unconstrained_shape is not None else site.shape
    return radius * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
