"""The sum of a program's cost terms against NumPyro's own log densities, put together by hand.

At moved parameters and one draw of everything the terms must add up to

    sum over sites of (scale x mask) log p  +  (plate scale x mask) log Jacobian  -  (plate scale x mask) log q,

which needs no optimization and no noise.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions.transforms import biject_to

from autovi.model.execution import mask_of
from autovi.preparation import Options, prepare
from autovi.run.engine import Engine


def moved_params(engine: Engine, arrays: Any) -> Any:
    """Parameters that are not those of any start, different in every entry."""
    program = engine.program
    size = program.start_size
    params = program.init(jax.random.key(0), arrays, jnp.sin(1.0 + jnp.arange(size)))
    return {
        "guide": jax.tree.map(lambda x: x + 0.2 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params["guide"]),
        "param": params["param"],
    }


def check_terms(
    model: Callable, data: Any = None, indices: Mapping[str, Any] | None = None, rtol: float = 2e-5, **options: Any
) -> Engine:
    """Asserts that the terms add up. `indices` are the elements of subsampled plates."""
    engine, inputs = prepare(model, data, Options(**options))
    program = engine.program
    arrays = jax.device_put(inputs.traced())
    indices = {n: jnp.asarray(i) for n, i in (indices or {}).items()}

    @jax.jit
    def both(arrays: Any, indices: Any, key: jax.Array) -> tuple[Any, Any]:
        params = moved_params(engine, arrays)
        run = program.run(params, arrays, key, indices)
        args, kwargs = inputs.rebuild(arrays)
        values = {n: v for n, v in run.values.items() if n in program.sites.latents}
        known = {**program.constrained(params), **indices}
        trace = traced(model, {**values, **known}, args, kwargs)
        log_p = sum(weighted(s["fn"].log_prob(s["value"]), s["scale"]) for s in samples(trace).values())
        if engine.guide is not None:
            drawn = {n: node.draw.value for n, node in run.nodes.items()}
            guide = traced(engine.guide, {**drawn, **known}, args, kwargs)
            log_q = sum(weighted(s["fn"].log_prob(s["value"]), s["scale"]) for s in samples(guide).values())
        else:
            log_q = sum(block_log_q(engine, b, run.nodes[b.name], trace) for b in program.plan.blocks)
        return sum(jnp.sum(t) for t in run.terms.values()), log_p - log_q

    found, expected = both(arrays, indices, jax.random.key(7))
    assert np.isfinite(expected)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    return engine


def block_log_q(engine: Engine, block: Any, node: Any, trace: Mapping[str, Any]) -> Any:
    """log q on the scale of the sites' values: the density over the block's vector less the log Jacobian."""
    total = jnp.sum(site_weighted(engine, trace[block.sites[0]], node.q.log_prob(node.draw.value), block.flat))
    if block.family.unconstrained:
        for site in (trace[name] for name in block.sites):
            transform, value = biject_to(site["fn"].support), site["value"]
            log_det = transform.log_abs_det_jacobian(transform.inv(value), value)
            log_det = log_det.sum(axis=tuple(range(len(site["fn"].batch_shape), log_det.ndim)))
            total = total - jnp.sum(site_weighted(engine, site, log_det, flat=False))
    return total


def site_weighted(engine: Engine, site: Mapping[str, Any], term: Any, flat: bool) -> Any:
    """`term` with the plate scale and the mask of the site; that of a flat block has neither."""
    if flat:
        return term
    for frame in site["cond_indep_stack"]:
        plate = engine.program.sites.plates.get(frame.name)
        term = term * (plate.size / frame.size if plate is not None else 1.0)
    mask = mask_of(site["fn"])
    return term if mask is None else jnp.where(mask, term, 0.0)


def traced(fn: Callable, values: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """NumPyro's trace of `fn` with these values."""
    return handlers.trace(handlers.substitute(handlers.seed(fn, 0), values)).get_trace(*args, **kwargs)


def samples(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The sample sites of a trace."""
    return {n: s for n, s in trace.items() if s["type"] == "sample"}


def weighted(log_prob: Any, scale: Any) -> Any:
    """The sum of a site's log density under the scale that handlers and plates give it."""
    return jnp.sum(log_prob if scale is None else scale * log_prob)
