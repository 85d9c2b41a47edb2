"""Which numbers of a posterior are no unknowns: those that are the same at whatever values of the latent sites, such as
the zeros of a Cholesky factor. A number that could vary and has one value in all draws is not among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.compiling import compiler_options
from autovi.model.graph import like_traced
from autovi.model.sites import Site
from autovi.model.targets import trace_program
from autovi.model.traced import KEY, Traced, data_input
from autovi.result.posterior import Posterior

# How far from the origin q's draws are tried, on the unconstrained scale, twice each: a threshold may lie anywhere.
RADII = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)
TRIALS = 2 * len(RADII)
ROUNDINGS = 64  # units in the last place by which a computed constant, such as the diagonal of L Lᵀ, may differ


def constant_elements(fit: Posterior, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Site -> which elements never vary, for the sites that have such; of `values`, draws `(num_draws, *shape)`.

    They are equal in all draws, and equal to that wherever the model is tried: at a few random values of its latent
    sites, near and far. Elements of a discrete site always could vary.
    """
    latents = fit.engine.full.sites.latents
    own = {n: v for n, v in values.items() if not (n in latents and latents[n].discrete)}
    fixed = {n: at for n, v in own.items() if (at := _equal(np.asarray(v))).any()}
    if not fixed:
        return {}
    tried = _tried(fit, list(fixed))
    for n, first in ((n, values[n][:1]) for n in fixed):
        # What has no value somewhere, such as zero times infinity, says nothing.
        fixed[n] &= _equal(np.concatenate([first, np.where(np.isnan(tried[n]), first, tried[n])]))
    return {n: at for n, at in fixed.items() if at.any()}


def _equal(draws: np.ndarray) -> np.ndarray:
    """The elements that are the same in all draws, to rounding; never where one is not finite."""
    if not draws.size:
        return np.zeros(draws.shape[1:], bool)
    low, high = draws.min(axis=0), draws.max(axis=0)
    if draws.dtype.kind != "f":
        return low == high
    with np.errstate(invalid="ignore"):
        return high - low <= ROUNDINGS * np.finfo(draws.dtype).eps * np.maximum(np.abs(low), np.abs(high))


def _tried(fit: Posterior, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of sites at a few choices of all latent ones, stacked in front."""
    traced = model_alone(fit)
    graph, known = traced.graph, known_inputs(fit, traced)
    nodes = {v: n.removeprefix("node:") for n, v in graph.inputs.items() if n.startswith("node:")}
    rng = np.random.default_rng(0)
    tried = {v: _choice(rng, traced.sites.latents[n], v.aval.shape, v.aval.dtype) for v, n in nodes.items()}
    wanted = {n: graph.outputs[f"value:{n}"] for n in names}
    variables = list(known)

    def evaluate(given: list[Any], chosen: list[Any]) -> dict[str, jax.Array]:
        values = dict(zip([*variables, *tried], [*given, *chosen], strict=True))
        values |= {**graph.constants, **graph.evaluate(wanted.values(), values.__contains__, values.__getitem__)}
        return {n: jnp.asarray(v.val if isinstance(v, Literal) else values[v]) for n, v in wanted.items()}

    every = lambda given, chosen: jax.lax.map(lambda one: evaluate(given, one), chosen)  # noqa: E731
    run = jax.jit(every, compiler_options=compiler_options(TRIALS))
    return {n: np.asarray(v) for n, v in run(list(known.values()), list(tried.values())).items()}


def known_inputs(fit: Posterior, traced: Traced) -> dict[Any, Any]:
    """The inputs that are no latent sites: data, fitted parameters, plates at full size, a key."""
    graph, params = traced.graph, fit.engine.full.constrained(fit.raw_params)
    known: dict[Any, Any] = {graph.inputs[KEY]: like_traced(jax.random.key(0), graph.inputs[KEY])}
    for name, param in traced.params.items():
        known |= zip((graph.inputs[n] for n in param.leaves), jax.tree.leaves(params[name]), strict=True)
    known |= {v: jnp.arange(v.aval.size) for n, v in graph.inputs.items() if n.startswith("plate:")}
    known |= traced.pseudo_data(fit.raw_params.get("constants", {}))
    return known | {v: a for path, a in fit.arrays.items() if (v := graph.inputs.get(data_input(path))) is not None}


def model_alone(fit: Posterior) -> Traced:
    """The model with latent sites on the unconstrained scale; those of a guide function are on their own."""
    full = fit.engine.full
    if fit.guide is None:
        return full.traced
    sizes = {p.name: p.size for p in full.sites.plates.values()}
    return trace_program(fit.model, None, fit.inputs, sizes)[0]


def _choice(rng: np.random.Generator, site: Site, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        radii = np.repeat(RADII, 2).reshape(-1, *[1] * len(shape))
        return (radii * rng.uniform(-1.0, 1.0, size=(TRIALS, *shape))).astype(dtype)
    # Every element goes through its values in turn, from another one on, so that each varies.
    values = np.arange(TRIALS) if site.values is None else np.asarray(site.values)
    turn = np.arange(TRIALS).reshape(-1, *[1] * len(shape)) + rng.integers(len(values), size=shape)
    return values[turn % len(values)].astype(dtype)
