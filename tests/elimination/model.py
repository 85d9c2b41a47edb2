"""A description as a NumPyro model, written as users write such models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

from elimination.description import Program, Site

SD = 0.8  # of normal observations

DISTRIBUTIONS: dict[str, Callable[[Site, Any], dist.Distribution]] = {
    "categorical": lambda site, p: dist.Categorical(logits=p),
    "categorical_probs": lambda site, p: dist.Categorical(probs=jax.nn.softmax(p)),
    "bernoulli": lambda site, p: dist.Bernoulli(logits=p),
    "bernoulli_probs": lambda site, p: dist.Bernoulli(probs=jax.nn.sigmoid(p)),
    "uniform": lambda site, p: dist.DiscreteUniform(site.low, site.low + site.size - 1),
    "binomial": lambda site, p: dist.Binomial(site.size - 1, logits=p),
    "normal": lambda site, p: dist.Normal(p, SD),
    "poisson": lambda site, p: dist.Poisson(jnp.exp(p)),
}


def _by_index(table: jax.Array, values: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    return table[tuple(values)]


def _by_take(table: jax.Array, values: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    """One number for all parents, as R users write it."""
    flat: Any = 0
    for value, size in zip(values, sizes, strict=True):
        flat = flat * size + value
    return jnp.take(table.reshape(-1, *table.shape[len(sizes) :]), flat, axis=0)


def _by_one_hot(table: jax.Array, values: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    values = list(jnp.broadcast_arrays(*values))
    depth = values[0].ndim
    weights = jnp.ones(values[0].shape)
    for value, size in zip(values, sizes, strict=True):
        weights = weights[..., None] * jax.nn.one_hot(value, size).reshape(
            value.shape + (1,) * (weights.ndim - depth) + (size,)
        )
    weights = weights.reshape(weights.shape + (1,) * (table.ndim - len(sizes)))
    return jnp.sum(weights * table, axis=tuple(range(depth, depth + len(sizes))))


def _by_where(table: jax.Array, values: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    """A choice between the two values of the first parent."""
    values = list(jnp.broadcast_arrays(*values))
    rest = tuple(values[1:])
    on, off = (jnp.broadcast_to(table[(k, *rest)], values[0].shape + table.shape[len(sizes) :]) for k in (1, 0))
    return jnp.where((values[0] == 1).reshape(values[0].shape + (1,) * (table.ndim - len(sizes))), on, off)


LOOKUPS = {"index": _by_index, "take": _by_take, "one_hot": _by_one_hot, "where": _by_where}


def _parameters(program: Program, site: Site, values: list[jax.Array], theta: list[Any], offset: Any) -> Any:
    sizes = tuple(p.size for p in (_site(program, parent.name) for parent in site.parents))
    if site.line is not None:  # a product with the values themselves
        lows = [_site(program, parent.name).low for parent in site.parents]
        found: Any = site.line[0]
        for value, low, coefficient in zip(values, lows, site.line[1], strict=True):
            found = found + (value + low).reshape(value.shape + (1,) * (site.line[0].ndim)) * coefficient
        moved = [jnp.asarray(slope[(0,) * len(sizes)]) for slope in site.slope]
        found = found + sum((t * s for t, s in zip(theta, moved, strict=True)), 0.0)
    else:
        table = jnp.asarray(site.base)
        if site.slope.any():
            table = table + sum(t * jnp.asarray(s) for t, s in zip(theta, site.slope, strict=True))
        found = LOOKUPS[site.lookup](table, values, sizes) if sizes else table
    return found if offset is None else found + offset


def _site(program: Program, name: str) -> Site:
    return next(s for s in program.every if s.name == name)


def _place(program: Program, site: Site, data: Mapping[str, Any], read: Callable, theta: list[Any]) -> Any:
    """Runs one site, and returns its value."""
    values = [jnp.asarray(read(p)) - _site(program, p.name).low for p in site.parents]
    parameters = _parameters(program, site, values, theta, data.get(f"{site.name}_offset"))
    mask, observed, seen = (data.get(f"{site.name}{end}") for end in ("_mask", "", "_seen"))
    with ExitStack() as stack:
        for plate in range(site.depth):
            stack.enter_context(numpyro.plate(f"plate{plate}", program.plates[plate]))
        if program.scale * site.scale != 1.0:
            stack.enter_context(handlers.scale(scale=program.scale * site.scale))
        if mask is not None and (site.masked_by_handler or site.kind == "factor"):
            stack.enter_context(handlers.mask(mask=mask))
            mask = None
        if site.kind == "factor":
            return numpyro.factor(site.name, parameters)
        fn = DISTRIBUTIONS[site.kind](site, parameters)
        if site.depth == 0 and site.shape and site not in program.scanned:  # a vector outside of plates
            fn = fn.expand(site.shape)
        fn = fn if mask is None else fn.mask(mask)
        return numpyro.sample(site.name, fn, obs=observed, **({} if seen is None else {"obs_mask": seen}))


def model_of(program: Program) -> Callable:
    """The NumPyro model of a description. It takes `program.data` as keyword arguments."""

    def model(**data: Any) -> None:
        theta = [numpyro.sample(f"theta{i}", dist.Normal(0.0, 1.0)) for i in range(program.thetas)]
        values: dict[str, Any] = {}
        for site in program.sites:
            cut = lambda p, x: x[:-1] if p.lag else x[1:]  # noqa: E731
            read = lambda p: cut(p, values[p.name]) if site.neighbours else values[p.name]  # noqa: B023, E731
            values[site.name] = _place(program, site, data, read, theta)
        if not program.scanned:
            return
        lags = {
            s.name: max((p.lag for o in program.scanned for p in o.parents if p.name == s.name), default=0)
            for s in program.scanned
        }
        names = {s.name for s in program.scanned}
        rows = {n: a for n, a in data.items() if n.removesuffix("_mask").removesuffix("_offset") in names}

        def step(carry: dict[str, tuple], row: dict[str, Any]) -> tuple[dict[str, tuple], None]:
            now: dict[str, Any] = {}

            def read_step(parent: Any) -> Any:
                if parent.name not in names:
                    return values[parent.name]
                return carry[parent.name][parent.lag - 1] if parent.lag else now[parent.name]

            for site in program.scanned:
                now[site.name] = _place(program, site, row, read_step, theta)
            return {n: (jnp.asarray(now[n], int), *past)[: len(past)] for n, past in carry.items()}, None

        first = {s.name: (jnp.zeros(s.shape[1:], int),) * lags[s.name] for s in program.scanned if lags[s.name]}
        scan(step, first, rows, length=program.length)

    return model
