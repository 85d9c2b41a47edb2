"""What a model says before it has seen the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from autovi.analysis.bounded_loops import run_once
from autovi.analysis.indices import check_indices
from autovi.keys import as_key
from autovi.model.inputs import Inputs, bind, check_allowed
from autovi.model.targets import as_target, trace_program
from autovi.model.traced import Traced
from autovi.process import computing
from autovi.result import export
from autovi.result.axes import Axes, as_dicts
from autovi.result.groups import constant_data
from autovi.run.checks import check_count

BUDGET = 20_000_000  # numbers held at once besides the result


@computing()
def prior_predictive(
    model: Callable,
    data: Any = None,
    *,
    num_draws: int = 500,
    rng_key: int | jax.Array = 0,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    allow_nan: Collection[str] = (),
) -> Any:
    """Draws from the prior, and of data that it leads to, to look at before a fit.

    Every site is drawn as NumPyro draws it: masks and scales change densities and not draws, subsampled plates are
    whole, parameter sites are where they start. Which sites are observed is told by the data: in place of each
    observation there is a draw, inside a scan too, where later steps go on from the draws. Sites that the data leave
    unobserved are part of the prior.

    Args:
        model: a NumPyro model function.
        data: as for `fit`. The observations give shapes, and their values appear in `observed_data` alone.
        num_draws: how many.
        rng_key: an integer or a JAX key; the same key gives the same draws.
        coords, dims, allow_nan: as for `fit`.

    Returns:
        An InferenceData (ArviZ 0.x) or DataTree (ArviZ 1.x), with dims and coords as `Fit.to_arviz` has them. Groups,
        those without variables left out: `prior` (latent and deterministic sites, `(chain, draw, *shape)`, one chain),
        `prior_predictive` (observed sites; with `obs_mask` the whole variable too), `observed_data`, `constant_data`.

    Raises:
        ValueError: a site that has no sampler, such as an ImproperUniform; or as `fit` for bad data and models.
        TypeError: the model is a log density, which cannot be drawn from.

    Example:
        >>> idata = autovi.prior_predictive(model, {"x": x, "y": y})
        >>> float(idata["prior_predictive"]["y"].mean())
    """
    check_count("num_draws", num_draws)
    target, inputs = as_target(model), bind(model, data, allow_nan)
    check_allowed(inputs, allow_nan)
    traced, inputs = at_full_size(model, inputs)
    check_indices(traced, inputs)
    sites = traced.sites
    lengths = {plate.name: plate.size for plate in sites.plates.values()}
    own_coords, own_dims = as_dicts(coords, dims)
    axes = Axes(traced, inputs, own_coords, own_dims)
    if own_coords or own_dims:
        axes.check()
    shapes = inputs.without_data()

    def draws(arrays: Any, keys: jax.Array) -> Any:
        return target.simulate(shapes, lengths, arrays, keys, part_of(traced, num_draws))

    keys = jax.random.split(as_key(rng_key), num_draws)
    drawn, seen = run_once(draws, inputs.traced(), keys)
    observed = {n: np.asarray(value) for n, value in seen.items()}
    constant = constant_data(inputs, observed)
    predicted = {*sites.observed, *(name.removesuffix("_unobserved") for name in sites.missing)}
    order = [n for n in (*sites.latents, *sites.observed, *sites.deterministics) if n in drawn]
    chains = {n: np.asarray(drawn[n])[None] for n in order}
    groups = {
        "prior": {n: chain for n, chain in chains.items() if n not in predicted},
        "prior_predictive": {n: chain for n, chain in chains.items() if n in predicted},
        "observed_data": observed,
        "constant_data": {axes.variable(n): array for n, array in constant.items()},
    }
    return export.build(groups, **axes.named())


def at_full_size(model: Callable, inputs: Inputs) -> tuple[Traced, Inputs]:
    """The model traced with every plate at full size."""
    traced, inputs = trace_program(model, None, inputs)
    if not traced.sites.subsampled:
        return traced, inputs
    return trace_program(model, None, inputs, {p.name: p.size for p in traced.sites.plates.values()})


def part_of(traced: Traced, num_draws: int) -> int:
    """How many draws may be made at once."""
    graph = traced.graph
    inputs = set(graph.inputs.values())
    numbers = graph.numbers(graph.outputs.values(), inputs.__contains__)
    return int(np.clip(BUDGET // max(1, numbers), 1, num_draws))
