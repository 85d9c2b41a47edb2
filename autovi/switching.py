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

from autovi.continuity import jumps_between
from autovi.execution import execute, site_key
from autovi.inputs import Inputs
from autovi.sites import Sites
from autovi.structure import Structure, cost_terms

MAX_PAIRS = 64
MIN_PAIRS = 8
MAX_TERMS = 4
BUDGET = 2_000_000_000  # numbers that the evaluations of one site may produce
BATCH = 5_000_000  # of them at once
SPREAD = 3.0  # values are tried this far from the origin on the unconstrained scale


def find_jumps(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    guide_sites: Sites | None,
    structure: Structure,
) -> dict[str, str]:
    """Continuous site -> the cost term that jumps in it, by how much, and the operations suspected.

    Costs nothing where no operation could jump. Values of a guide function's sites are tried between draws of the guide
    as it starts, others between points up to 3 from the origin on the unconstrained scale.
    """
    suspects = {n: terms for n, terms in structure.jumps.items() if terms}
    if not suspects:
        return {}
    evaluate = cost_terms(model, guide, inputs, sites)
    key = jax.random.key(0)
    arrays = jax.device_put(inputs.traced())  # a model may index them by traced plate indices, which NumPy's cannot be
    values = _values(guide, inputs, arrays, sites, guide_sites, key)
    found = {}
    for node, terms in suspects.items():
        said = _try(node, terms, evaluate, values, arrays, key, structure)
        if said is not None and not jax.config.read("jax_enable_x64"):
            # In single precision the rounding of large terms that cancel makes steps of its own.
            with jax.enable_x64(True):
                doubled = {n: _as_double(v) for n, v in values.items()}
                double_arrays = {n: _as_double(a) for n, a in arrays.items()}
                said = _try(node, terms, evaluate, doubled, double_arrays, key, structure)
        if said is not None:
            found[node] = said
    return found


def _as_double(array: Any) -> Any:
    array = np.asarray(array) if not jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key) else array
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def _try(node: str, suspects: Any, evaluate: Callable, values: Any, arrays: Any, key: Any, structure: Structure) -> Any:
    others = {n: v[0] for n, v in values.items()}
    names = sorted(suspects)

    def terms(value: jax.Array) -> dict[str, jax.Array]:
        every, _ = evaluate({**others, node: value}, arrays, key)
        return {name: every[name] for name in names}

    size = sum(prod(s) for s in structure.shapes.values()) + 1
    evaluations = 33 + MAX_TERMS * 132
    pairs = int(np.clip(BUDGET // (size * evaluations), MIN_PAIRS, MAX_PAIRS))
    starts, ends = values[node][:pairs], values[node][MAX_PAIRS : MAX_PAIRS + pairs]
    batch = int(np.clip(BATCH // (size * 33), 1, pairs))
    jumps = jax.tree.map(np.asarray, jumps_between(terms, starts, ends, max_terms=MAX_TERMS, batch_size=batch))
    if not jumps.found.any():
        return None
    worst = int(np.argmax(jumps.size))
    edges = np.cumsum([prod(structure.shapes[name]) for name in names])
    term = names[int(np.searchsorted(edges, jumps.term[worst], side="right"))]
    return f"the term {term!r} jumps by {jumps.size[worst]:.2g} nats in it, by {', '.join(sorted(suspects[term]))}"


def _values(
    guide: Callable | None, inputs: Inputs, arrays: Any, sites: Sites, guide_sites: Sites | None, key: jax.Array
) -> Any:
    """Values of every node, `2 MAX_PAIRS` each."""
    keys = jax.random.split(key, 2 * MAX_PAIRS)
    if guide is None:
        return jax.jit(jax.vmap(lambda k: _own_values(sites, k)))(keys)

    def draw(k: jax.Array) -> dict[str, Any]:
        args, kwargs = inputs.rebuild(arrays)
        records = execute(guide, args, kwargs, k)
        drawn = {r.name: r.value for r in records.values() if r.kind == "sample" and not r.observed}
        absent = {n: v for n, v in _own_values(sites, k).items() if n not in drawn}
        return {**absent, **drawn}

    return jax.jit(jax.vmap(draw))(keys)


def _own_values(sites: Sites, key: jax.Array) -> dict[str, jax.Array]:
    out = {}
    for name, site in sites.latents.items():
        k = site_key(key, name)
        if site.values is not None:
            out[name] = jax.random.choice(k, jnp.asarray(np.asarray(site.values).astype(int)), site.batch_shape)
        elif site.discrete:
            out[name] = jnp.ones(site.shape, int)
        else:
            shape = site.unconstrained_shape if site.unconstrained_shape is not None else site.shape
            out[name] = jax.random.uniform(k, shape, minval=-SPREAD, maxval=SPREAD)
    return out
