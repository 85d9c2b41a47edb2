"""The covariance matrix of a posterior's scalars: from its draws, or by linear response where q is mean field."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.analysis.bounded_loops import run_once
from autovi.plan.plan import Block
from autovi.process import computing
from autovi.program.blocks import after_map, family_of
from autovi.result import export
from autovi.result.constants import known_inputs, model_alone
from autovi.result.groups import axes_of
from autovi.result.posterior import Posterior
from autovi.run.thresholds import THRESHOLDS
from autovi.run.weights import EQUAL

LINEAR = "linear response of the mean-field optimum"
HOW = ("auto", "linear_response", True, False)
MAX_DIMENSIONS = 500  # of a Hessian that is computed whole
MAX_SCALARS = 5_000  # of a table
AVERAGED = 64  # draws of q over which the curvature is averaged
MAX_NUMBERS = 20_000_000_000  # that may be computed for it


def covariance(fit: Posterior, names: str | Sequence[str] | None, corrected: str | bool) -> Any:
    """See `Fit.covariance`."""
    if not any(corrected is h or corrected == h for h in HOW):
        raise ValueError(f"corrected: expected one of {list(HOW)}, got {corrected!r}")
    if corrected == "linear_response" and (reason := _refusal(fit)):
        raise ValueError(f"corrected: 'linear_response' is not possible, since {reason}; corrected=True weighs draws")
    values, how = None, ""
    if corrected == "linear_response" or (corrected == "auto" and is_off(fit) and not _refusal(fit)):
        values, how = linear_response(fit, fit.num_draws), LINEAR
        if values is None and corrected == "linear_response":
            raise ValueError(
                "corrected: 'linear_response' is not possible, since the expected log density is not concave where the "
                "fit ended: it is no optimum, or one towards the edge; corrected=True weighs draws"
            )
    if values is None and corrected in ("auto", fit.resampled):
        values, how = fit.values, fit.drawn
    elif values is None:
        values = fit.sample(fit.num_draws, resample=bool(corrected))
        how = "draws resampled by importance, as asked for" if corrected else "draws of q, as asked for"
    return _table(fit, values, names, how)


def is_off(fit: Posterior) -> bool:
    """Does q differ from the posterior in a way that its draws, as they are, do not make up for?"""
    return not (fit.resampled or fit.evidence.khat_why == EQUAL or fit.efficiency >= THRESHOLDS.efficiency_alike)


def draws_for_moments(fit: Posterior, num_draws: int) -> tuple[dict[str, np.ndarray], str]:
    """The draws whose covariance is the one that `covariance` gives unasked, and what they are from, in words."""
    if is_off(fit) and not _refusal(fit) and (values := linear_response(fit, num_draws)) is not None:
        return values, LINEAR
    return fit.sample(num_draws), fit.advice.why if fit.resampled else fit.drawn


def _refusal(fit: Posterior) -> str:
    """Why there is no linear response; empty where there is one."""
    plan, sites = fit.engine.program.plan, fit.engine.full.sites
    if fit.guide is not None:
        return "the guide is a function"
    if others := [b.name for b in plan.blocks if family_of(b).name != "normal" or b.directions or _is_mixed(b)]:
        return f"block {others[0]!r} is not mean field"
    if without := [n for n, s in sites.latents.items() if n not in {m for b in plan.blocks for m in b.sites}]:
        return f"site {without[0]!r} is not in the guide"
    if masked := [n for n, s in sites.latents.items() if s.masked]:
        return f"site {masked[0]!r} is masked"
    size = _dimensions(fit)
    if size > MAX_DIMENSIONS or size * AVERAGED * 4 * fit.engine.numbers_per_draw > MAX_NUMBERS:
        return f"the curvature in {size:,} dimensions takes too long"
    return ""


def _is_mixed(block: Block) -> bool:
    """Are the values of several sites of one element of a plate beside each other?"""
    return block.by_element and len(block.sites) > 1


def _dimensions(fit: Posterior) -> int:
    return sum(prod(s.full(s.unconstrained_shape or ())) for s in fit.engine.full.sites.latents.values())


@computing()
def linear_response(fit: Posterior, num_draws: int) -> dict[str, np.ndarray] | None:
    r"""`num_draws` draws of the sites by linear response; None where the expected log density is not concave.

    A mean-field q knows no correlation, and its standard deviations are the conditional ones. But where its means go as
    the log density is tilted by t' u tells the covariance: with the scales s as they are,

    .. math:: \Sigma = \Bigl(-\frac{d^2}{dm\,dm'} E_{\epsilon}[\log p(m + s \epsilon)]\Bigr)^{-1},

    exact where the posterior is normal on the unconstrained scale (Giordano, Broderick and Jordan, 2018, section 4).
    Draws of N(m, Sigma) are mapped to the sites' own scale; their first two moments are matched, so that what is linear
    in them has no Monte Carlo error.
    """
    loc, scale, shapes = _mean_field(fit)
    traced = model_alone(fit)
    graph, known = traced.graph, known_inputs(fit, traced)
    terms = [o for o in graph.outputs if o.startswith(("p:", "jacobian:"))]
    sites = fit.engine.full.sites
    names = [n for n in (*sites.latents, *sites.deterministics) if f"value:{n}" in graph.outputs]
    inputs = list(known)

    def evaluate(given: list[Any], u: jax.Array, outputs: list[str]) -> list[jax.Array]:
        parts = jnp.split(u, np.cumsum([prod(s) for s in shapes.values()])[:-1])
        nodes = {graph.inputs[f"node:{n}"]: x.reshape(s) for (n, s), x in zip(shapes.items(), parts, strict=True)}
        values = {**dict(zip(inputs, given, strict=True)), **nodes}
        wanted = [graph.outputs[o] for o in outputs]
        values |= {**graph.constants, **graph.evaluate(wanted, values.__contains__, values.__getitem__)}
        return [jnp.asarray(v.val if isinstance(v, Literal) else values[v]) for v in wanted]

    def log_p(given: list[Any], noise: jax.Array, shift: jax.Array) -> jax.Array:
        u = loc + scale * (noise + shift)  # in units of q's scales, so that entries are of one size
        return sum((jnp.sum(x) for x in evaluate(given, u, terms)), jnp.zeros(()))

    def curvature(given: list[Any], noise: jax.Array) -> jax.Array:
        one = lambda e: jax.hessian(partial(log_p, given, e))(jnp.zeros_like(loc))  # noqa: E731
        return jnp.mean(jax.lax.map(one, noise), axis=0)

    rng = np.random.default_rng(0)
    half = rng.standard_normal((AVERAGED // 2, loc.size)).astype(loc.dtype)
    hessian = run_once(curvature, list(known.values()), jnp.concatenate([half, -half]))
    precision = -np.asarray(hessian, np.float64)
    precision = (precision + precision.T) / 2
    if not np.isfinite(precision).all() or np.linalg.eigvalsh(precision)[0] <= 0:
        return None
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    standard = _matched(rng.standard_normal((num_draws, loc.size)))
    u = np.asarray(loc) + np.asarray(scale) * (standard @ factor.T)
    every = lambda given, us: jax.lax.map(lambda x: evaluate(given, x, [f"value:{n}" for n in names]), us)  # noqa: E731
    values = run_once(every, list(known.values()), jnp.asarray(u, loc.dtype))
    return {n: np.asarray(v) for n, v in zip(names, values, strict=True)}


def _mean_field(fit: Posterior) -> tuple[jax.Array, jax.Array, dict[str, tuple[int, ...]]]:
    """Means and scales of all unconstrained values, one after another, and the shape of each site's."""
    sites, locs, scales = fit.engine.full.sites.samples, [], []
    shapes: dict[str, tuple[int, ...]] = {}
    for block in fit.engine.program.plan.blocks:
        normal = family_of(block).as_normal(fit.raw_params["guide"][block.name])
        assert normal is not None
        if block.map:
            normal = after_map(*normal, fit.raw_params["constants"][block.name])
        shapes |= {n: sites[n].full(sites[n].unconstrained_shape or ()) for n in block.sites}
        locs.append(jnp.ravel(normal[0]))
        scales.append(jnp.ravel(normal[1]))
    return jnp.concatenate(locs), jnp.concatenate(scales), shapes


def _matched(noise: np.ndarray) -> np.ndarray:
    """Standard normal noise, where there is enough of it moved and turned to mean 0 and covariance I exactly."""
    count, size = noise.shape
    if count <= 2 * size:
        return noise
    noise = noise - noise.mean(axis=0)
    factor = np.linalg.cholesky(noise.T @ noise / (count - 1))
    return np.asarray(np.linalg.solve(factor, noise.T).T)


def _table(fit: Posterior, values: dict[str, np.ndarray], names: str | Sequence[str] | None, how: str) -> Any:
    import pandas as pd

    chosen = {n: values[n] for n in _matching(list(values), names)}
    built = export.build({"posterior": {n: v[None] for n, v in chosen.items()}}, **axes_of(fit).named())
    arrays = export.posterior(built).data_vars
    count = sum(prod(a.shape[2:]) for a in arrays.values())
    if count > MAX_SCALARS:
        raise ValueError(f"names: {count:,} scalars are more than the {MAX_SCALARS:,} of a table; name fewer sites")
    labels, columns = [], []
    for name, array in arrays.items():
        for index in np.ndindex(array.shape[2:]):
            at = ", ".join(str(array[dim].values[i]) for dim, i in zip(array.dims[2:], index, strict=True))
            labels.append(f"{name}[{at}]" if at else name)
            columns.append(array.values[(0, slice(None), *index)].astype(np.float64))
    matrix = np.atleast_2d(np.cov(np.stack(columns), ddof=1))
    table = pd.DataFrame(matrix, index=labels, columns=labels)
    table.attrs["how"] = how
    return table


def _matching(names: list[str], asked: str | Sequence[str] | None) -> list[str]:
    if asked is None:
        return names
    patterns = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [p for p in patterns if not any(fnmatchcase(n, p) for n in names)]:
        raise ValueError(f"names: expected sites or globs of {names}, got {unknown}")
    return [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
