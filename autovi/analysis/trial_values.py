"""Values at which costs are tried before a fit: draws from the prior, and values far from the origin in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.bounded_loops import call_bounded, run_once
from autovi.model.execution import site_key
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites
from autovi.model.target import FARTHEST, RADII
from autovi.model.targets import as_target

MAX_PAIRS = 64
VARIED = "varied:"  # in front of the path of an array that varies from trial to trial, beside the nodes' values
DRAWING_STEPS = 10_000  # of the loops, where a prior depends on some


def trial_values(
    model: Callable, guide: Callable | None, inputs: Inputs, arrays: Any, sites: Sites, key: jax.Array
) -> Any:
    """Values of every node, `2 MAX_PAIRS` each, in front those that pairs start at.

    Every second one is a draw from the prior (of a guide function's sites, from the guide as it starts); the others are
    on the unconstrained scale up to `RADII` from the origin, however far away a jump is: of a site on the whole real
    line up to the last of them, of others up to `FARTHEST`. What a target's `varied` gives stands beside them: see
    `apart`.
    """
    steps = jnp.arange(2 * MAX_PAIRS) % MAX_PAIRS
    radii = jnp.asarray(RADII)[(steps // 2) % len(RADII)]

    target = as_target(model)

    def draw(k: jax.Array, step: jax.Array, radius: jax.Array) -> dict[str, Any]:
        varied = target.varied(arrays, site_key(k, "autovi:varied"))
        drawn = target.prior(guide, inputs, {**arrays, **varied}, k)
        if guide is None and not target.guided:
            for name, site in sites.latents.items():
                far = _far(site, site_key(k, name), radius)
                drawn[name] = jnp.where(step % 2 == 0, drawn[name], far)
        return drawn | {VARIED + path: array for path, array in varied.items()}

    keys = jax.random.split(key, 2 * MAX_PAIRS)
    # Where a loop does not end, the values are no draws, but values they are.
    drawn = jax.vmap(lambda *arguments: call_bounded(draw, DRAWING_STEPS, *arguments)[0])
    return run_once(drawn, keys, steps, radii)


def tried_at(
    model: Callable, guide: Callable | None, inputs: Inputs, arrays: Any, sites: Sites, suspects: Collection[str]
) -> Any:
    """`trial_values`, those of suspected sites off zero where 0 has a probability of its own."""
    values = trial_values(model, guide, inputs, arrays, sites, jax.random.key(0))
    atoms = {n for n, s in sites.samples.items() if n in suspects and s.gradients.not_pathwise}
    return {n: off_zero(v) if n in atoms else v for n, v in values.items()}


def apart(values: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nodes' values, and the data with what varies in its place."""
    nodes = {n: v for n, v in values.items() if not n.startswith(VARIED)}
    return nodes, {**arrays, **{n.removeprefix(VARIED): v for n, v in values.items() if n not in nodes}}


def _far(site: Site, key: jax.Array, radius: jax.Array) -> jax.Array:
    if site.values is not None:
        return jax.random.choice(key, jnp.asarray(np.asarray(site.values).astype(int)), site.batch_shape)
    if site.discrete:
        return jnp.ones(site.shape, int)
    shape = site.unconstrained_shape if site.unconstrained_shape is not None else site.shape
    radius = radius if site.support == "real" else jnp.minimum(radius, FARTHEST)
    return radius * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def off_zero(values: Any) -> Any:
    """Values with the zeros of each element replaced by others of its values; by 1 where it has none."""
    found = np.array(values)
    for shift in range(1, len(found)):
        found = np.where(found == 0, np.roll(found, shift, axis=0), found)
        if found.all():
            break
    return jnp.asarray(np.where(found == 0, np.ones_like(found), found))


def as_double(array: Any) -> Any:
    """A floating array in double precision, which has to be enabled; anything else as it is. A JAX array, since a model
    may index it by traced plate indices."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    array = np.asarray(array)
    return jnp.asarray(array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array)
