"""Sites whose posterior is known in closed form: independent of all else, and in the family of their prior.

The structure says with whom a site shares cost terms. Where that is nobody, evaluation says whether its log density, as
a function of its value, lies in the span of the sufficient statistics of a family: then the posterior is the member of
it with these coefficients, and no optimization finds a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autovi.analysis.bounded_loops import UnboundedError, call_bounded, options_of
from autovi.analysis.costs import Aligned
from autovi.analysis.structure import Structure, traced_outputs
from autovi.analysis.trial_values import as_double
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites

NEAR, WIDE = (
    16,
    8,
)  # trial values: those that the coefficients are fitted to, and those far beyond, where it must hold too
MOST = 100  # statistics of one element of a plate: with more, as of a large vector, nothing is looked for
RADII = (3.0, 12.0)  # how far from the origin, on the unconstrained scale
# Rounding of a cost in double precision that is computed with care; a cost that is no sum of the statistics departs by
# its own size, and one that is computed in single precision by 1e-7 of it: that is unclear, and counts as no.
TOLERANCE = 1e-10
STEPS = 10_000  # that the loops of one evaluation may take


@dataclass(frozen=True)
class Conjugate:
    """A posterior in closed form.

    Attributes:
        coefficients: of each sufficient statistic in the log density, in the shape of the family's statistics of one
            value, double precision; those of the data that it was found on.
    """

    coefficients: np.ndarray


def find_conjugate(
    model: Callable,
    inputs: Inputs,
    sites: Sites,
    structure: Structure,
    statistics: Mapping[str, Callable[[Array], Array]],
) -> dict[str, Conjugate]:
    """The sites whose posterior is a member of their family, with its coefficients.

    Costs nothing where no site stands alone in the terms that depend on it. All are evaluated together, in double
    precision, at values of each element that differ from element to element.

    Args:
        statistics: candidate -> its family's sufficient statistics, value -> an array whose last axis is theirs.
    """
    alone = {n: terms for n in statistics if (terms := _terms_alone(sites.latents[n], structure)) is not None}
    counts = {n: _number(statistics[n], sites.latents[n]) for n in alone}
    alone = {n: terms for n, terms in alone.items() if counts[n] <= MOST}
    if not alone:
        return {}
    near = max(NEAR, *(2 * counts[n] for n in alone))
    try:
        values, of_data, of_others = _evaluated(model, inputs, sites, alone, near)
    except UnboundedError:
        return {}
    fitted = lambda n, costs: _coefficients(statistics[n], values[n], costs, near)  # noqa: E731
    found = {n: fitted(n, of_data[n]) for n in alone}
    # A plan serves other data of the same shapes. Where these are outside of a support, they say nothing.
    holds = {n: not np.isfinite(of_others[n]).all() or fitted(n, of_others[n]) is not None for n in alone}
    return {n: Conjugate(c) for n, c in found.items() if c is not None and holds[n]}


def _terms_alone(site: Site, structure: Structure) -> dict[str, Aligned] | None:
    """The model's cost terms that depend on a site, with their alignment; None where one depends on another site too,
    or on several elements of this one."""
    terms = {t: e for t, e in structure.downstream[site.name].items() if t.startswith("p:")}
    others = {n for t in terms for n in structure.upstream[t]} - {site.name}
    mixed = any(
        e is None and n > 1 for aligned in terms.values() for e, n in zip(aligned, site.batch_shape, strict=True)
    )
    return None if others or mixed or site.unconstrained_shape is None else terms


def _evaluated(
    model: Callable, inputs: Inputs, sites: Sites, alone: Mapping[str, Mapping[str, Aligned]], near: int
) -> tuple[dict[str, np.ndarray], ...]:
    """Trial values of each site, and the sum of its terms for each element there, with the data and with altered ones;
    NaN where a loop does not end."""
    wanted = {t for terms in alone.values() for t in terms} | {f"value:{n}" for n in alone}
    evaluate = traced_outputs(model, None, inputs, sites, wanted.__contains__)
    rng, key = np.random.default_rng(0), jax.random.key(0)
    radius = np.repeat(RADII, (near, WIDE))
    shapes = {n: sites.latents[n].unconstrained_shape or () for n in alone}
    points = {
        n: radius.reshape(-1, *[1] * len(shape)) * rng.uniform(-1, 1, (near + WIDE, *shape))
        for n, shape in shapes.items()
    }
    arrays = jax.device_put(inputs.traced())
    with jax.enable_x64(True):
        arrays = {n: as_double(a) for n, a in arrays.items()}

        def terms(point: dict[str, Array], arrays: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
            out = evaluate(point, arrays, key)
            costs = {n: _total(out, below, sites.latents[n]) for n, below in alone.items()}
            return {n: out[f"value:{n}"] for n in alone}, costs

        def bounded(arrays: dict[str, Array], point: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
            (values, costs), ended = call_bounded(terms, STEPS, point, arrays)
            return values, {n: jnp.where(ended, c, jnp.nan) for n, c in costs.items()}

        at = {n: jnp.asarray(p) for n, p in points.items()}
        traced = jax.jit(lambda points, a: jax.lax.map(partial(bounded, a), points)).trace(at, arrays)
        run = traced.lower().compile(options_of(traced.jaxpr, 2))
        values, costs = run(at, arrays)
        _, of_others = run(at, {n: _altered(a, rng) for n, a in arrays.items()})
        return jax.tree.map(np.asarray, (values, costs, of_others))


def _altered(array: Any, rng: np.random.Generator) -> Any:
    """Other data: numbers that are not whole ones by their type, each changed by its own factor."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array * jnp.asarray(1 + 0.4 * rng.uniform(size=array.shape), array.dtype)


def _total(out: Mapping[str, Array], terms: Mapping[str, Aligned], site: Site) -> Array:
    return jnp.sum(jnp.stack([_per_element(out[t], aligned, site) for t, aligned in terms.items()]), axis=0)


def _per_element(term: Array, aligned: Aligned, site: Site) -> Array:
    """A term summed over all dimensions but those of the site's elements, which are put in order."""
    kept = [e for e in aligned if e is not None]
    total = jnp.sum(term, axis=tuple(i for i in range(term.ndim) if i not in kept))
    rank = {e: i for i, e in enumerate(sorted(kept))}
    return jnp.transpose(total, [rank[e] for e in kept]).reshape(site.batch_shape)


def _number(statistics: Callable[[Array], Array], site: Site) -> int:
    """How many statistics one element of the site's plates has."""
    return prod(
        jax.eval_shape(statistics, jax.ShapeDtypeStruct(site.shape, jnp.float32)).shape[len(site.batch_shape) :]
    )


def _coefficients(
    statistics: Callable[[Array], Array], values: np.ndarray, costs: np.ndarray, near: int
) -> np.ndarray | None:
    """The coefficients that give the costs, up to a constant, at every value; None where there are none."""
    with jax.enable_x64(True):
        stats = np.asarray(statistics(jnp.asarray(values)))
    if not (np.isfinite(costs).all() and np.isfinite(stats).all()):
        return None
    shape = stats.shape[1:]
    # (*batch, trials, statistics): those of a vector together.
    stats, costs = np.moveaxis(stats.reshape(*costs.shape, -1), 0, -2), np.moveaxis(costs, 0, -1)
    design = np.concatenate([np.ones((*stats.shape[:-1], 1)), stats], axis=-1)
    # Columns of one size: some grow exponentially with the value.
    size = np.abs(design[..., :near, :]).max(axis=-2, keepdims=True)
    q, r = np.linalg.qr(design[..., :near, :] / size)
    if (np.abs(np.diagonal(r, axis1=-2, axis2=-1)) < 1e-9).any():
        return None
    found = np.linalg.solve(r, np.swapaxes(q, -1, -2) @ costs[..., :near, None])[..., 0] / size[..., 0, :]
    parts = design * found[..., None, :]
    off = np.abs(parts.sum(axis=-1) - costs)
    allowed = TOLERANCE * (1 + np.abs(costs) + np.abs(parts).sum(axis=-1))
    return found[..., 1:].reshape(shape) if (off <= allowed).all() else None
