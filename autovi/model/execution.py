"""Runs a NumPyro function with chosen values: the only place that knows NumPyro's effect handlers.

A model (or a guide function) becomes a plain function: latent sites, parameters and plate indices are
looked up, and every site comes back as a `Record`.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit
from numpyro.primitives import CondIndepStackFrame, Messenger, prng_key

from autovi.model.places import Place, here, with_places

# NumPyro keeps the handlers that are at work in one list of the process: two models that run in two threads would see
# each other's.
ONE_AT_A_TIME = threading.RLock()

Lookup = Callable[[dict[str, Any]], Any]
Indices = Callable[[str, int, int], Any]  # a plate's name, its length in the model, its size -> indices or None
KINDS = ("sample", "param", "deterministic", "plate")
_PLACE = "_autovi_place"


class SiteError(ValueError):
    """A fault of one site, whose message is complete, but perhaps for the line of the `site` that is given."""

    def __init__(self, message: str, site: str | None = None):
        super().__init__(message)
        self.site = site


@dataclass
class Record:
    """One site as executed: `value` is what the model saw, `fn` the distribution with plates and masks applied."""

    name: str
    kind: str  # "sample", "param", "deterministic", "plate"
    value: Any
    fn: Distribution | None
    scale: Any
    observed: bool
    frames: tuple[CondIndepStackFrame, ...]
    infer: Mapping[str, Any]
    kwargs: Mapping[str, Any] | None = None
    size: int | None = None  # full size, of plates only
    from_scan: bool = False
    place: Place | None = None  # the line of the user's that makes it


class _Bind(Messenger):
    """Gives latent sites, parameters and plates their values and records every site."""

    def __init__(self, fn: Callable, latent: Lookup, params: Mapping[str, Any] | Lookup, indices: Indices):
        super().__init__(fn)
        self.latent, self.params, self.indices = latent, params, indices
        self.records: dict[str, Record] = {}
        self.given: set[str] = set()  # sites that a handler around the model has set: fixed, but no data
        self.state = get_opaque_trace_state()

    def process_message(self, msg: dict[str, Any]) -> None:
        kind = msg["type"]
        if kind in ("sample", "deterministic", "param"):
            self._check_seen(msg)
        if kind == "control_flow":
            # Sites inside a scan are looked up there, one time step after the other.
            inside = partial(self._inside_scan, _last_place(msg))
            msg["kwargs"]["substitute_stack"].append(("substitute", inside))
            if msg["fn"] is scan_wrapper:
                step, *others = msg["args"]
                msg["args"] = (partial(_one_step, step), *others)
        elif kind == "plate":
            size, asked = msg["args"]
            # A plate with fewer elements than are asked for of it is whole, in its own order.
            length = size if asked is None else min(asked, size)
            indices = self.indices(msg["name"], length, size)
            if indices is None and msg["value"] is None and length == size:
                indices = jnp.arange(size)
            if indices is not None:
                msg["value"] = indices
                msg["args"] = (size, indices.shape[0])
        elif kind == "param":
            if msg["value"] is not None:
                self.given.add(msg["name"])
            elif callable(self.params):
                msg["value"] = self.params(msg)
            elif msg["name"] in self.params:
                msg["value"] = self.params[msg["name"]]
        elif kind == "mutable":
            raise SiteError(
                with_places(
                    f"site {msg['name']!r}: mutable state (numpyro.mutable) cannot be carried by a stochastic fit; "
                    "make it a numpyro.param, or compute it from the data",
                    here(execute.__code__),
                )
            )
        elif kind == "sample" and not msg["is_observed"] and not msg.get("_control_flow_done"):
            if msg["value"] is not None:
                self.given.add(msg["name"])
                return
            value = self.latent(msg)
            if value is not None:
                msg["value"] = value

    def _check_seen(self, msg: dict[str, Any]) -> None:
        """Has a site a name, and is it where its value can be told to the rest of the program?"""
        name = msg["name"]
        if not isinstance(name, str):
            raise SiteError(
                with_places(
                    f"site {name!r}: expected a string as its name, got {type(name).__name__}; numpyro.sample takes "
                    "the name first, as in numpyro.sample('z', dist.Normal(0, 1))",
                    here(execute.__code__),
                )
            )
        if get_opaque_trace_state() != self.state:
            raise SiteError(
                with_places(
                    f"site {name!r}: it is inside of a function that JAX transforms (jax.jit, jax.vmap, jax.lax.scan), "
                    "beyond which its value is not known; call the plain function, write numpyro.plate for jax.vmap, "
                    "and scan and cond of numpyro.contrib.control_flow for those of jax.lax",
                    here(execute.__code__),
                )
            )

    def _inside_scan(self, last: int | None, msg: dict[str, Any]) -> Any:
        # numpyro's substitute asks about every site, also those that have their value.
        if msg["type"] != "sample" or msg["is_observed"]:
            return None
        step = msg["infer"].get("_scan_current_index")
        msg["infer"][_PLACE] = step if last is None or step is None else last - step
        if msg["value"] is not None:
            self.given.add(msg["name"])
            return None
        return self.latent(msg)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        kind, name = msg["type"], str(msg.get("name"))
        given = name in self.given
        if kind not in KINDS or (given and kind == "param"):
            return
        size = msg["args"][0] if kind == "plate" else None
        place = here(execute.__code__)
        if name in self.records:
            _check_again(self.records[name], kind, size, place)
        self.records[name] = Record(
            name=name,
            kind=kind,
            value=msg["value"],
            fn=msg["fn"] if kind == "sample" else None,
            scale=msg.get("scale"),
            observed=given or bool(msg.get("is_observed", False)),
            frames=tuple(msg.get("cond_indep_stack", ())),
            infer={**(msg.get("infer") or {}), **({"is_auxiliary": True} if given else {})},
            kwargs=msg.get("kwargs"),
            size=size,
            from_scan=bool(msg.get("_control_flow_done", False)),
            place=place,
        )


def _one_step(step: Callable, *args: Any) -> Any:
    with _Step(None):
        return step(*args)


class _Step(Messenger):
    """What is around the body of a scan. NumPyro tells a site in a loop inside of it the step of that loop alone, and
    one in a cond none, so that its value could not be told from those of other steps."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow":
            refuse_draws_inside(msg)
        elif msg["type"] == "plate":
            _refuse_other_elements(msg)


def _refuse_other_elements(plate: dict[str, Any]) -> None:
    """Makes a plate that is subsampled in the body of a scan an error: NumPyro draws its indices at each step anew, so
    that the elements of a step are not those of the step before, and their full number is not known outside."""
    size, asked = plate["args"]
    if asked is not None and asked < size:
        raise SiteError(
            with_places(
                f"plate {plate['name']!r}: it is subsampled inside of a scan, where each step would take other "
                f"elements; expected all {size}, got subsample_size={asked}; take all, or draw the indices once, by a "
                "plate that is opened and closed before the scan, and scale what is inside (numpyro.handlers.scale)",
                here(execute.__code__),
            )
        )


def refuse_draws_inside(control_flow: dict[str, Any]) -> None:
    """Makes sites that are drawn in the body of a scan or cond an error, where they would not be told apart."""
    control_flow["kwargs"]["substitute_stack"].append(("substitute", refuse_drawn))


def refuse_drawn(msg: dict[str, Any]) -> None:
    """What is asked of every site of such a body."""
    if msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
        raise SiteError(
            with_places(
                f"site {msg['name']!r}: it is drawn in a scan or cond inside of another, where its steps are not told "
                "apart; expected one, got two: make one scan of both, or write the inner one out, a scan as a Python "
                "loop with a name for each site, a cond as both branches and jnp.where",
                here(execute.__code__),
            )
        )


def place_in_scan(msg: Mapping[str, Any]) -> Any:
    """Which element of its stacked value a site inside of a scan is at one step; None of a site that is in none.

    NumPyro counts steps as they are executed. A scan that runs backward stacks what it makes from the end, as
    `jax.lax.scan` does.
    """
    return msg["infer"].get(_PLACE)


def _last_place(msg: Mapping[str, Any]) -> int | None:
    """The last element of what a scan stacks, where it runs backward; None of one that runs forward, and of a cond."""
    if msg["fn"] is not scan_wrapper:
        return None
    _, _, xs, length, reverse = msg["args"][:5]
    if not reverse:
        return None
    return (jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length) - 1


def _check_again(record: Record, kind: str, size: int | None, place: Place | None) -> None:
    """May a name come again? A plate's of the same size may, and a parameter's, which is looked up many times."""
    if kind == record.kind == "param" or (kind == record.kind == "plate" and size == record.size):
        return
    told = {"sample": "site", "param": "parameter", "deterministic": "deterministic site", "plate": "plate"}
    if kind == record.kind == "plate":
        said = (
            f"plate {record.name!r}: it has size {record.size} first and {size} then; give the second a name of its own"
        )
    elif kind == record.kind:
        said = f"site {record.name!r}: it appears twice; every site needs a name of its own"
    else:
        said = f"site {record.name!r}: a {told[record.kind]} and a {told[kind]} have this name; rename one"
    raise SiteError(with_places(said, record.place, place))


def execute(
    fn: Callable,
    args: tuple,
    kwargs: Mapping[str, Any],
    rng_key: jax.Array,
    *,
    latent: Lookup = lambda msg: None,
    params: Mapping[str, Any] | Lookup | None = None,
    indices: Mapping[str, Any] | Indices | None = None,
) -> dict[str, Record]:
    """Runs `fn(*args, **kwargs)` and returns its sites in order of execution, by name.

    `latent(msg)` gives the value of an unobserved sample site (None: it is drawn with `rng_key`), `params` those
    of parameter sites, `indices` those of plates, which then have that many elements and the scale that goes with it.
    """
    of_plate = indices if callable(indices) else lambda name, length, size: (indices or {}).get(name)
    bind = _Bind(handlers.seed(fn, rng_key), latent, params or {}, of_plate)
    with ONE_AT_A_TIME:
        bind(*args, **kwargs)
    return bind.records


class _Drawn(handlers.uncondition):
    """Draws what is observed, inside a scan or cond too, where later steps then go on from the draws."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", _drawn_at_step))
        elif not msg.get("_control_flow_done"):  # has been drawn at its step
            super().process_message(msg)


def _drawn_at_step(msg: dict[str, Any]) -> Any:
    if msg["type"] != "sample" or not msg["is_observed"] or isinstance(msg["fn"], Unit):
        return None
    fn = msg["fn"]
    if len(jnp.shape(msg["value"])) > len(fn.shape()):
        raise ValueError(
            f"site {msg['name']!r}: inside a scan or cond it is observed with shape {jnp.shape(msg['value'])}, but its "
            f"distribution has shape {tuple(fn.shape())}: one draw would stand for all; put a numpyro.plate around it"
        )
    return fn(rng_key=prng_key(), sample_shape=msg["kwargs"].get("sample_shape") or ())


def unobserved(fn: Callable) -> Callable:
    """The model with its observed sites (not its factors) turned into draws: for predictives."""
    return _Drawn(fn)


def site_key(rng_key: jax.Array, name: str) -> jax.Array:
    """The key of one site: the same whatever else is executed, so that a site can be forced and all others stay."""
    return jax.random.fold_in(rng_key, zlib.crc32(name.encode()))


def check_keys(names: Iterable[str]) -> None:
    """Raises ValueError if two sites would draw with the same key."""
    taken: dict[int, str] = {}
    for name in sorted(names):
        other = taken.setdefault(zlib.crc32(name.encode()), name)
        if other != name:
            raise ValueError(
                f"site {other!r}: it would draw the same random numbers as site {name!r} (one hash); rename one"
            )


def mask_of(fn: Distribution | None) -> Any:
    """The mask on a distribution's batch elements, through wrappers: None when nothing is masked."""
    if isinstance(fn, MaskedDistribution):
        inner = mask_of(fn.base_dist)
        return fn._mask if inner is None else jnp.logical_and(fn._mask, inner)
    if isinstance(fn, ExpandedDistribution):
        return mask_of(fn.base_dist)
    if isinstance(fn, Independent):
        mask = mask_of(fn.base_dist)
        if mask is None or jnp.ndim(mask) == 0:
            return mask
        full = jnp.broadcast_to(mask, fn.base_dist.batch_shape)
        return jnp.any(full, axis=tuple(range(-fn.reinterpreted_batch_ndims, 0)))
    return None


def unmasked(fn: Distribution) -> Distribution:
    """`fn` without its masks: the score term is that of the density itself."""
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, ExpandedDistribution) and mask_of(fn) is not None:
        return unmasked(fn.base_dist).expand(fn.batch_shape)
    if isinstance(fn, Independent) and mask_of(fn) is not None:
        return unmasked(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    return fn


def plate_scale(frames: tuple[CondIndepStackFrame, ...], sizes: Mapping[str, int]) -> float:
    """How many elements of the full plates one element of the subsampled ones stands for."""
    scale = 1.0
    for frame in frames:
        scale *= sizes.get(frame.name, frame.size) / frame.size
    return scale
