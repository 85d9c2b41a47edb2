"""What every site of a model is: the value that all later stages read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from autovi.distributions import registry
from autovi.distributions.supports import bijection_to, support_values
from autovi.distributions.table import TABLE, Known
from autovi.model.execution import Record, mask_of

CIRCULAR = "circular"  # the name of the support of angles


@dataclass(frozen=True)
class Plate:
    """A plate: `dim` is its (negative) batch dimension, `length` how many of its `size` elements one step sees."""

    name: str
    dim: int
    size: int
    length: int

    @property
    def subsampled(self) -> bool:
        return self.length < self.size


@dataclass(frozen=True)
class Site:
    """A sample site. Shapes are those of one step; `full_batch_shape` has every plate at its full size."""

    name: str
    distribution: str
    support: str
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    plates: tuple[Plate, ...]
    observed: bool
    discrete: bool
    values: tuple[float, ...] | None  # the finite support of a scalar discrete site
    unconstrained_shape: tuple[int, ...] | None  # None: no bijection to the reals
    from_scan: bool
    masked: bool  # for a plan: a mask leaves elements out, which nothing else feels
    gradients: Known
    auxiliary: bool  # a `factor`: a term of the density, not data
    infer: tuple[tuple[str, Any], ...]  # what infer={"autovi": {...}} says

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch_shape + self.event_shape

    @property
    def subsampled(self) -> bool:
        return any(p.subsampled for p in self.plates)

    @property
    def is_count(self) -> bool:
        """Does it have integers from 0 on without a bound?"""
        return self.discrete and self.support == "integer nonnegative"

    def full(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape`, which starts with the batch shape, with every subsampled plate at its full size."""
        out, ndim = list(shape), len(self.batch_shape)
        for p in self.plates:
            if p.subsampled and -p.dim <= ndim and out[ndim + p.dim] == p.length:
                out[ndim + p.dim] = p.size
        return tuple(out)

    @property
    def unconstrained_event_ndim(self) -> int:
        return len(self.unconstrained_shape or ()) - len(self.batch_shape)

    @property
    def size(self) -> int:
        """Number of unconstrained numbers in one step (of values, for a discrete site)."""
        return prod(self.shape if self.unconstrained_shape is None else self.unconstrained_shape)


@dataclass(frozen=True)
class Sites:
    """All a model has, in order of execution."""

    samples: Mapping[str, Site]
    params: Mapping[str, Any]  # name -> constraint
    deterministics: Mapping[str, tuple[str | None, ...]]  # name -> plate name of each dimension
    plates: Mapping[str, Plate]

    @cached_property
    def latents(self) -> dict[str, Site]:
        return {n: s for n, s in self.samples.items() if not s.observed}

    @cached_property
    def observed(self) -> dict[str, Site]:
        return {n: s for n, s in self.samples.items() if s.observed and not s.auxiliary}

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The latent sites that NumPyro makes of the missing part of an observation (`obs_mask`)."""
        bases = {n: n.removesuffix("_unobserved") for n in self.latents if n.endswith("_unobserved")}
        return tuple(n for n, b in bases.items() if f"{b}_observed" in self.observed and b in self.deterministics)

    @property
    def subsampled(self) -> dict[str, Plate]:
        return {n: p for n, p in self.plates.items() if p.subsampled}


def feasible(msg: dict[str, Any], shift: Any = 0.0) -> Any:
    """Some value inside a site's support, of the right shape; `shift` moves it on the unconstrained scale."""
    fn = msg["fn"]
    shape = tuple(msg["kwargs"].get("sample_shape") or ()) + tuple(fn.shape())
    if registry.is_discrete(fn):
        return fn.support.feasible_like(jnp.zeros(shape, int))
    transform = bijection_to(fn.support)
    return None if transform is None else transform(jnp.zeros(transform.inverse_shape(shape)) + shift)


def term_site(name: str) -> Site:
    """A term of the density that is no data, as `numpyro.factor` makes one."""
    gradients = TABLE["Unit"]
    return Site(name, "Unit", "real", (), (), (), True, False, None, None, False, False, gradients, True, ())


def sum_rightmost(x: jax.Array, ndim: int) -> jax.Array:
    """`x` summed over its last dimensions until `ndim` are left."""
    return jnp.sum(x, axis=tuple(range(ndim, jnp.ndim(x))))


def describe(records: Mapping[str, Record]) -> Sites:
    """The sites of an execution."""
    plates = {}
    for r in records.values():
        for frame in r.frames:
            size = records[frame.name].size if frame.name in records else frame.size
            plates[frame.name] = Plate(frame.name, frame.dim, size or frame.size, frame.size)
    samples = {r.name: _site(r, plates) for r in records.values() if r.kind == "sample"}
    params = {
        r.name: (r.kwargs or {}).get("constraint", constraints.real) for r in records.values() if r.kind == "param"
    }
    deterministics = {r.name: _dims(r) for r in records.values() if r.kind == "deterministic"}
    return Sites(samples, params, deterministics, plates)


def _dims(record: Record) -> tuple[str | None, ...]:
    shape = jnp.shape(record.value)
    dims: list[str | None] = [None] * len(shape)
    for frame in record.frames:
        if -frame.dim <= len(shape) and shape[frame.dim] == frame.size:
            dims[frame.dim] = frame.name
    return tuple(dims)


def _site(record: Record, plates: Mapping[str, Plate]) -> Site:
    fn = record.fn
    assert fn is not None
    discrete = registry.is_discrete(fn)
    event_shape = tuple(fn.event_shape)
    batch_shape = tuple(jnp.broadcast_shapes(fn.batch_shape, _batch_shape(record)))
    values = support_values(fn) if discrete and not event_shape else None
    return Site(
        name=record.name,
        distribution=type(registry.strip(fn)).__name__,
        support=support_name(fn.support),
        batch_shape=batch_shape,
        event_shape=event_shape,
        plates=tuple(plates[f.name] for f in record.frames),
        observed=record.observed,
        discrete=discrete,
        values=None if values is None else tuple(values.tolist()),
        unconstrained_shape=None if discrete else _unconstrained_shape(fn.support, batch_shape + event_shape),
        from_scan=record.from_scan,
        masked=mask_of(fn) is not None,
        gradients=registry.lookup(fn),
        auxiliary=bool(record.infer.get("is_auxiliary", False)),
        infer=tuple(sorted(dict(record.infer.get("autovi") or {}).items())),
    )


def _batch_shape(record: Record) -> tuple[int, ...]:
    shape = jnp.shape(record.value)
    return shape[: len(shape) - len(record.fn.event_shape)] if record.fn is not None else ()


def _unconstrained_shape(support: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    transform = bijection_to(support)
    return None if transform is None else tuple(transform.inverse_shape(shape))


def support_name(support: Any) -> str:
    """A constraint's name as the plan shows it: "positive", "simplex", "real vector"."""
    if isinstance(support, type(constraints.independent(constraints.real, 1))):
        return support_name(support.base_constraint)
    name = type(support).__name__.strip("_")
    return "".join(" " + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name)).replace("_", " ")
