"""An expected loss as a target: what gradients of expectations stand on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from autovi.distributions import registry
from autovi.distributions.supports import bijection_to
from autovi.model.execution import SiteError, execute, place_in_scan, site_key
from autovi.model.inputs import Inputs
from autovi.model.places import with_places
from autovi.model.sites import Sites, describe, support_name, term_site
from autovi.model.target import FARTHEST, NOTHING, RADII, Given, Target, unchecked
from autovi.model.traced import Traced
from autovi.model.tracing import NumPyroRun, NumPyroTracing
from autovi.model.unrolled import Unrolled, unseen


@dataclass(frozen=True)
class Loss(Target):
    """E loss(z; x), z drawn from the sample sites of a function of x that returns the loss.

    The sites' distributions are what is differentiated: they stand in the place of a guide, and their log q is no part
    of the cost. Schulman, Heess, Weber and Abbeel (2015), "Gradient Estimation Using Stochastic Computation Graphs".

    Args:
        function: a function with NumPyro sample sites, none observed. It returns the loss: a floating scalar, an array
            whose elements are to be summed (one per element of a plate, say), or a tree of these. Each leaf is a cost
            term of its own.
        unknown: the arguments, by path, of whose values nothing is known when costs are tried.
        moving: those that are differentiated, so that their values will be others.
    """

    function: Callable
    unknown: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()

    guided: ClassVar[bool] = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def tried(self) -> Any:
        return self.unknown, self.moving

    def trace(
        self,
        guide: Callable | None,
        inputs: Inputs,
        lengths: Mapping[str, int],
        relaxed: Collection[str] = (),
        check_guide: Callable[[Sites], Any] = unchecked,
        noncentred: Collection[str] = (),
    ) -> tuple[Traced, Inputs]:
        if noncentred:
            raise ValueError("noncentred: a Loss does not say of its sites how they are distributed")
        tracing = NumPyroTracing(self.function, self.function, dict(lengths), frozenset(relaxed), check_guide)
        tracing.of_run, tracing.called = _LossRun, "fn"
        with unseen():
            return tracing.checked_run(inputs), inputs

    def prior(
        self,
        guide: Callable | None,
        inputs: Inputs,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        given: Given = NOTHING,
    ) -> dict:
        """Draws from the sites' own distributions; of continuous sites every second value is a far one instead."""
        args, kwargs = inputs.rebuild(dict(arrays))
        far_key, radius_key = jax.random.split(site_key(rng_key, "autovi:far"))
        is_far, radius = jax.random.bernoulli(far_key), jax.random.choice(radius_key, jnp.asarray(RADII))

        def latent(msg: dict[str, Any]) -> Any:
            transform = None if registry.is_discrete(msg["fn"]) else bijection_to(msg["fn"].support)
            if transform is None or place_in_scan(msg) is not None:
                return None
            key = site_key(rng_key, msg["name"])
            drawn = msg["fn"](rng_key=key, sample_shape=msg["kwargs"].get("sample_shape") or ())
            bounded = radius if support_name(msg["fn"].support) == "real" else jnp.minimum(radius, FARTHEST)
            place = bounded * jax.random.uniform(key, transform.inverse_shape(jnp.shape(drawn)), minval=-1.0)
            return jnp.where(is_far, transform(place), drawn)

        with unseen():
            records = execute(Unrolled(self.function), args, kwargs, rng_key, latent=latent)
        return {n: r.value for n, r in records.items() if r.kind == "sample"}

    def varied(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> dict[str, Any]:
        """Half of the time what is there, half of the time other numbers of the same kind."""
        known, there = jax.random.bernoulli(rng_key), {}
        for path in sorted((self.unknown | self.moving) & set(arrays)):
            array, key = jnp.asarray(arrays[path]), site_key(rng_key, path)
            there[path] = jnp.where(known, array, _another(array, path in self.unknown, key))
        return there


def _another(array: jax.Array, unknown: bool, key: jax.Array) -> jax.Array:
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        other = jax.random.bernoulli(key, shape=array.shape).astype(array.dtype)
        return other if unknown else array
    scale_key, normal_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, array.shape)
    if unknown:
        return normal.astype(array.dtype)
    # What is positive stays so; a zero, as networks start with, would hide what it is multiplied by.
    scaled = array * jax.random.uniform(scale_key, array.shape, minval=0.5, maxval=1.5)
    return jnp.where(array == 0, normal, scaled).astype(array.dtype)


class _LossRun(NumPyroRun):
    """The function run once on placeholders for its sites."""

    entropy = False

    def outputs(self, arguments: tuple[tuple, dict], rng_key: jax.Array) -> dict[str, Any]:
        args, kwargs = arguments
        returned: list[Any] = []
        unrolled = Unrolled(lambda *a, **k: returned.append(self.tracing.model(*a, **k)))
        self.make_stacked()
        records, out = self.guided(unrolled, args, kwargs, rng_key)
        for r in records.values():
            _check_record(r)
        terms = _terms(returned[0], unrolled.parts, records)
        found = describe(records)
        self.sites = Sites(
            {**found.samples, **{n: term_site(n) for n in terms}}, {}, found.deterministics, found.plates
        )
        self.scales = {}
        out |= {f"value:{n}": v for n, v in self.drawn.items()}
        out |= {f"value:{n}": jnp.asarray(r.value) for n, r in records.items() if r.kind == "deterministic"}
        for name, loss in terms.items():
            out |= {f"p:{name}": -loss, f"part:0#p:{name}": loss}
        return out


def _check_record(record: Any) -> None:
    if record.kind == "param":
        raise SiteError(
            with_places(
                f"parameter {record.name!r}: numpyro.param is no argument of fn, so that no gradient would be "
                "returned for it; make it an argument",
                record.place,
            )
        )
    if record.kind == "sample" and record.observed:
        raise SiteError(
            with_places(
                f"site {record.name!r}: it is observed (or a factor), and an expected loss has no data but what fn "
                "returns; add its negative log density to the loss: -distribution.log_prob(value)",
                record.place,
            )
        )


def _terms(returned: Any, parts: Callable[[Any], list[Any]], taken: Collection[str]) -> dict[str, jax.Array]:
    """The leaves of what the function returned, by names that no site has; the steps of a scan one by one."""
    terms = {}
    whole = jax.tree.map(lambda leaf: pieces if len(pieces := parts(leaf)) > 1 else leaf, returned)
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole):
        if not isinstance(leaf, jax.Array | float | int) and not hasattr(leaf, "dtype"):
            raise SiteError(f"loss: expected fn to return a number or an array, got {type(leaf).__name__}")
        loss = jnp.asarray(leaf)
        if not jnp.issubdtype(loss.dtype, jnp.floating):
            loss = _as_floating(loss)
        name = ".".join(["loss", *filter(None, [jax.tree_util.keystr(path, simple=True, separator=".")])])
        while name in taken:
            name += "_"
        terms[name] = loss
    if not terms:
        raise SiteError("loss: fn returned None; return the loss, a number or an array")
    return terms


def _as_floating(loss: jax.Array) -> jax.Array:
    if jnp.issubdtype(loss.dtype, jnp.integer) or loss.dtype == bool:
        return loss.astype(float)
    raise SiteError(f"loss: expected real numbers, got {loss.dtype}")
