"""Values at which costs are tried before a fit: draws from the prior, and values far from the origin in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from autovi.analysis.bounded_loops import call_bounded
from autovi.distributions import registry
from autovi.model.execution import Record, execute, site_key
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites, feasible

MAX_PAIRS = 64
RADII = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)  # from the origin, on the unconstrained scale
# A transformed site goes no farther: exp(20) is 5e8, and sigmoid(20) rounds to 1 in single precision. Values beyond say
# nothing about a fit and cost much: a rate of exp(1e4) is infinite, and a loop or a solver that it drives need not end.
FARTHEST = 20.0
DRAWING_STEPS = 10_000  # of the loops, where a prior depends on some


def trial_values(
    model: Callable, guide: Callable | None, inputs: Inputs, arrays: Any, sites: Sites, key: jax.Array
) -> Any:
    """Values of every node, `2 MAX_PAIRS` each, in front those that pairs start at.

    Every second one is a draw from the prior (of a guide function's sites, from the guide as it starts); the others are
    on the unconstrained scale up to `RADII` from the origin, however far away a jump is: of a site on the whole real
    line up to the last of them, of others up to `FARTHEST`.
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

    keys = jax.random.split(key, 2 * MAX_PAIRS)
    # Where a loop does not end, the values are no draws, but values they are.
    return jax.jit(jax.vmap(lambda *arguments: call_bounded(draw, DRAWING_STEPS, *arguments)[0]))(keys, steps, radii)


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
    radius = radius if site.support == "real" else jnp.minimum(radius, FARTHEST)
    return radius * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def as_double(array: Any) -> Any:
    """A floating array in double precision, which has to be enabled; anything else as it is. A JAX array, since a model
    may index it by traced plate indices."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    array = np.asarray(array)
    return jnp.asarray(array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array)
