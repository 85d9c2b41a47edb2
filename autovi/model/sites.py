"""Trace of the model -> `Sites`: what every site is, found without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from autovi.distributions import registry
from autovi.distributions.gradients import Gradients
from autovi.distributions.supports import bijection_to, support_values
from autovi.implicit.composite.supports import composition_fault
from autovi.model.execution import Record, execute, mask_of
from autovi.model.fingerprint import fingerprint, has_custom_derivatives
from autovi.model.inputs import Inputs

ABSTRACT_KEY = jax.eval_shape(jax.random.key, 0)
CIRCULAR = "circular"  # the name of the support of angles
CONCRETE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


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
    masked: bool
    gradients: Gradients
    auxiliary: bool  # a `factor`: a term of the density, not data
    infer: tuple[tuple[str, Any], ...]  # what infer={"autovi": {...}} says

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch_shape + self.event_shape

    @property
    def subsampled(self) -> bool:
        return any(p.subsampled for p in self.plates)

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
    fingerprint: str

    @cached_property
    def latents(self) -> dict[str, Site]:
        return {n: s for n, s in self.samples.items() if not s.observed}

    @cached_property
    def observed(self) -> dict[str, Site]:
        return {n: s for n, s in self.samples.items() if s.observed and not s.auxiliary}

    @property
    def subsampled(self) -> dict[str, Plate]:
        return {n: p for n, p in self.plates.items() if p.subsampled}


def trace_sites(model: Callable, inputs: Inputs, lengths: Mapping[str, int] | None = None) -> tuple[Sites, Inputs]:
    """The model's sites, and the inputs as the program must take them.

    The model is run once on abstract values. Where it needs its data's values (to count groups, say) the data become
    constants of the program. `lengths` sets how many elements of a plate one step sees.

    Raises:
        ValueError: the model fails to run; the message names the last site that ran and what NumPyro or JAX said.
    """
    try:
        return _trace(model, inputs, lengths or {}), inputs
    except CONCRETE_ERRORS:
        constant = inputs.as_constants()
    try:
        return _trace(model, constant, lengths or {}), constant
    except CONCRETE_ERRORS as error:
        raise ValueError(
            "the model needs the concrete value of a latent site or of a plate's indices, which a compiled program "
            "does not have: write `if` on a latent as jnp.where or lax.cond, and index data by a plate as "
            f"jnp.asarray(data)[indices]. JAX says: {error}"
        ) from error


class SiteError(ValueError):
    """A fault of one site, whose message is complete."""


def _trace(model: Callable, inputs: Inputs, lengths: Mapping[str, int]) -> Sites:
    found: list[Any] = []
    seen: list[str] = []
    nudge: list[Any] = []  # moves every latent value, for the derivative

    def latent(msg: dict[str, Any]) -> Any:
        seen.append(msg["name"])
        return feasible(msg, *nudge)

    def program(shift: Any, arrays: dict[str, Any], rng_key: jax.Array) -> Any:
        nudge[:] = [shift]
        args, kwargs = inputs.rebuild(arrays)
        indices = {name: jnp.arange(length) for name, length in lengths.items()}
        records = execute(model, args, kwargs, rng_key, latent=latent, params=opaque, indices=indices)
        samples = [r for r in records.values() if r.kind == "sample"]
        scales = [1.0 if r.scale is None else r.scale for r in samples]  # models that differ in them alone are two
        densities = {r.name: _log_density(r) for r in samples}  # checks the shapes, before they are described
        found.append(_describe(records))
        total = sum(jnp.sum(d) for d in densities.values())
        bounds = jax.tree.leaves(list(found[-1][1].values()))  # of parameters' constraints
        return jnp.asarray(total, float), (densities, scales, bounds, [r.value for r in records.values()])

    try:
        jaxprs = _jaxprs(program, jnp.zeros(()), inputs.traced(), ABSTRACT_KEY)
    except CONCRETE_ERRORS:
        raise
    except SiteError as error:
        raise ValueError(str(error)) from error
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        after = f" (the last site reached was {seen[-1]!r})" if seen else ""
        plates = f" that indexes its data (batch_size makes {dict(lengths)} of the plates)" if lengths else ""
        raise ValueError(
            f"the model cannot be run on this data{after}: {str(error).rstrip('.')}. If shapes do not fit, a "
            f"numpyro.plate of the right size{plates} around the site is the usual remedy"
        ) from error
    except Exception as error:
        where = f"the last site reached was {seen[-1]!r}" if seen else "before any latent site"
        error.add_note(f"raised by the model; {where}")
        raise
    samples, params, deterministics, plates = found[-1]
    return Sites(samples, params, deterministics, plates, fingerprint(jaxprs, found[-1]))


def _jaxprs(program: Callable, *arguments: Any) -> list[Any]:
    """The traced program; also its derivative, where functions with derivatives of their own are in it."""
    jaxpr = jax.make_jaxpr(program)(*arguments)
    if not has_custom_derivatives(jaxpr):
        return [jaxpr]
    with suppress(Exception):  # what has no derivative is no concern here
        return [jaxpr, jax.make_jaxpr(jax.grad(program, has_aux=True))(*arguments)]
    return [jaxpr]


def _log_density(record: Record) -> jax.Array:
    """The log density of a site, after checks that value and distribution agree in shape, and it with its draws."""
    assert record.fn is not None
    value, expected = jnp.shape(record.value), tuple(record.fn.shape())
    try:
        together = jnp.broadcast_shapes(value, expected)
    except ValueError:
        together = None
    # One number may stand for all elements; data that are repeated along a dimension are a mistake.
    repeated = record.observed and prod(value) > 1 and prod(value) != prod(expected) and together == expected
    if together is None or together not in (value, expected) or repeated:
        frames = {f.name: f.size for f in record.frames}
        raise SiteError(
            f"site {record.name!r}: its value has shape {value}, its distribution {expected} (plates {frames}); "
            "expected the same. A missing or misplaced numpyro.plate, a missing [:, None], or data not indexed by a "
            "subsampled plate would explain it"
        )
    if fault := composition_fault(record.fn):
        raise SiteError(f"site {record.name!r}: {fault}")
    return record.fn.log_prob(record.value)


def opaque(msg: dict[str, Any]) -> Any:
    """A parameter's first value as the trace must see it: a Python number would be folded into what is computed from
    it, and a program that uses the parameter could look like one that uses the number."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, msg["fn"](*msg["args"], **msg["kwargs"])))


def feasible(msg: dict[str, Any], shift: Any = 0.0) -> Any:
    """Some value inside a site's support, of the right shape; `shift` moves it on the unconstrained scale."""
    fn = msg["fn"]
    shape = tuple(msg["kwargs"].get("sample_shape") or ()) + tuple(fn.shape())
    if registry.is_discrete(fn):
        return fn.support.feasible_like(jnp.zeros(shape, int))
    transform = bijection_to(fn.support)
    return None if transform is None else transform(jnp.zeros(transform.inverse_shape(shape)) + shift)


def _describe(records: Mapping[str, Record]) -> tuple[dict, dict, dict, dict]:
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
    return samples, params, deterministics, plates


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
