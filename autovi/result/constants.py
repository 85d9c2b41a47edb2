"""Which numbers of a posterior are no unknowns: those that are the same at whatever values of the latent sites, such as
the zeros of a Cholesky factor. A number that could vary and has one value in all draws is not among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.compiling import compiler_options
from autovi.model.graph import like_traced
from autovi.model.sites import Site
from autovi.model.traced import KEY
from autovi.program.program import Program
from autovi.program.world import World

if TYPE_CHECKING:
    from autovi.result.fit import Fit

# How far from the origin q's draws are tried, on the unconstrained scale, twice each: a threshold may lie anywhere.
RADII = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)
TRIALS = 2 * len(RADII)
ROUNDINGS = 64  # units in the last place by which a computed constant, such as the diagonal of L Lᵀ, may differ


def constant_elements(fit: Fit, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Site -> which elements never vary, for the sites that have such; of `values`, draws `(num_draws, *shape)`.

    They are equal in all draws, and equal to that wherever the program is tried: at a few random values of what q
    draws, near and far. Elements of a discrete site always could vary.
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


def _tried(fit: Fit, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of sites at a few choices of all nodes, stacked in front."""
    program, outputs = fit.engine.full, [f"value:{n}" for n in names]
    graph, key = program.traced.graph, jax.random.key(0)
    indices = {n: jnp.arange(p.size) for n, p in fit.engine.program.sites.subsampled.items()}

    def evaluate(params: Any, arrays: Any, nodes: Any) -> Any:
        values = program.shared(params, arrays, indices, outputs).values
        values = {**values, graph.inputs[KEY]: like_traced(key, graph.inputs[KEY])}
        at = lambda chosen: World(program, {**values, **{graph.inputs[n]: v for n, v in chosen.items()}}, {}, {})  # noqa: E731
        return jax.lax.map(lambda chosen: at(chosen).outputs(outputs), nodes)

    run = jax.jit(evaluate, compiler_options=compiler_options(TRIALS))
    found = run(fit.raw_params, fit._arrays, _choices(program))
    return {n: np.asarray(found[f"value:{n}"]) for n in names}


def _choices(program: Program) -> dict[str, np.ndarray]:
    """Values of every node, `TRIALS` each."""
    rng = np.random.default_rng(0)
    sites = {**program.sites.latents, **(program.guide_sites.latents if program.guide_sites is not None else {})}
    nodes = {n: var.aval for n, var in program.traced.graph.inputs.items() if n.startswith("node:")}
    return {n: _choice(rng, sites.get(n.removeprefix("node:")), a.shape, a.dtype) for n, a in nodes.items()}


def _choice(rng: np.random.Generator, site: Site | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        radii = np.repeat(RADII, 2).reshape(-1, *[1] * len(shape))
        return (radii * rng.uniform(-1.0, 1.0, size=(TRIALS, *shape))).astype(dtype)
    # Every element goes through its values in turn, from another one on, so that each varies.
    values = np.arange(TRIALS) if site is None or site.values is None else np.asarray(site.values)
    turn = np.arange(TRIALS).reshape(-1, *[1] * len(shape)) + rng.integers(len(values), size=shape)
    return values[turn % len(values)].astype(dtype)
