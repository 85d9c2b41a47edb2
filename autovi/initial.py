"""`init=`: where a fit starts, from values, from another fit, or from the prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from autovi.keys import as_key
from autovi.model.inputs import Inputs
from autovi.model.sites import Site
from autovi.model.target import Given, Target
from autovi.model.targets import as_target
from autovi.program.blocks import family_of
from autovi.program.program import Program
from autovi.result.fit import Fit
from autovi.run.engine import Engine
from autovi.run.origin import NUM_STARTS, Origin
from autovi.run.state import State

OF_THE_PRIOR = {"prior": 1, "median": 15}  # draws of the prior for each starting point, which is their median


@dataclass(frozen=True)
class Initial:
    """Where to start: the points to be tried, and parameters that start at given values, whole blocks by name and
    parameter sites, unconstrained."""

    origin: Origin
    blocks: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, engine: Engine, state: State) -> State:
        """The state before the first step with those parameters in it."""
        if not (self.blocks or self.params):
            return state
        whole = state.all_params
        changed = {**whole, "guide": {**whole["guide"], **self.blocks}, "param": {**whole["param"], **self.params}}
        return state.started_at(engine.program, engine.optimizer, changed)


def initial(
    init: Any, model: Callable, engine: Engine, inputs: Inputs, arrays: Any, rng_key: int | jax.Array
) -> Initial:
    """What `fit(init=...)` asks for.

    Raises:
        ValueError: unknown names, values of another shape or outside their support, a fit that shares no site with the
            model.
        TypeError: none of what `init` may be.
    """
    if init is None:
        return Initial(Origin.around_zero(engine.program))
    key = jax.random.fold_in(as_key(rng_key), 5)
    nodes = partial(_nodes, as_target(model), engine, inputs)
    if isinstance(init, Fit):
        return _of_fit(init, engine, lambda values: nodes(arrays, key, values))
    if isinstance(init, Mapping):
        return _of_values(init, engine, lambda values: nodes(arrays, key, values))
    if not isinstance(init, str):
        raise TypeError(
            f"init: expected a dict from site to value, a Fit, or one of {list(OF_THE_PRIOR)}, got "
            f"{type(init).__name__}"
        )
    if init not in OF_THE_PRIOR:
        raise ValueError(f"init: unknown name {init!r}; expected one of {list(OF_THE_PRIOR)}, values by site, or a Fit")
    if not engine.program.own:
        raise ValueError(f"init: {init!r} starts autovi's own guide; a guide function starts where its params say")
    return Initial(_of_prior(OF_THE_PRIOR[init], engine, nodes, arrays, key))


def _nodes(
    target: Target, engine: Engine, inputs: Inputs, arrays: Any, rng_key: jax.Array, values: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Unconstrained values of the latent sites at full plates, from the prior given those `values`."""
    lengths = {p.name: p.size for p in engine.program.sites.subsampled.values()}
    return target.prior(None, inputs, arrays, rng_key, Given(values, lengths))


def _of_prior(count: int, engine: Engine, nodes: Callable, arrays: Any, rng_key: jax.Array) -> Origin:
    """Starting points that are each the median of some draws of the prior."""

    def point(arrays: Any, key: jax.Array) -> jax.Array:
        one = lambda k: engine.program.blocks.start_of(nodes(arrays, k, {}))  # noqa: E731
        return jnp.median(jax.vmap(one)(jax.random.split(key, count)), axis=0)

    all_points = jax.jit(lambda arrays, keys: jax.lax.map(partial(point, arrays), keys))
    points = np.asarray(all_points(arrays, jax.random.split(rng_key, NUM_STARTS)))
    return Origin(points, np.zeros(points.shape[1], points.dtype))


def _of_values(values: Mapping[str, Any], engine: Engine, nodes: Callable) -> Initial:
    own, declared = engine.program.own, engine.program.traced.params
    sites = {n: s for n, s in engine.full.sites.latents.items() if own and s.unconstrained_shape is not None}
    drawn = {n: s for n, s in engine.full.sites.latents.items() if n not in sites}
    for name in values:
        if name in drawn:
            support = f"its values ({drawn[name].support}) are not mapped to the real line"
            why = support if own else "the guide function draws it"
            raise ValueError(f"init: site {name!r} cannot start at a value, since {why}; leave it out")
        if name not in sites and name not in declared:
            can = [*sites, *declared]
            raise ValueError(f"init: no site is called {name!r}; those that can start at a value are {can}")
    of_sites = {n: _shaped(f"site {n!r}", v, sites[n].shape) for n, v in values.items() if n in sites}
    like = _like(engine)["param"]
    params = {n: _unconstrained_param(n, declared[n], like[n], v) for n, v in values.items() if n in declared}
    return Initial(_origin(of_sites, engine, nodes, refuse=True), params=params)


def _origin(values: Mapping[str, Any], engine: Engine, nodes: Callable, refuse: bool) -> Origin:
    """The sites of `values` start there, the others as usual.

    Raises:
        ValueError: a value outside of its site's support, if that is to be refused.
    """
    if not values:
        return Origin.around_zero(engine.program)
    known = {n: np.asarray(u) for n, u in jax.jit(nodes)(dict(values)).items() if n in values}
    for name, u in known.items():
        if refuse and np.isnan(u).any():
            site = engine.full.sites.latents[name]
            raise ValueError(
                f"init: the value of site {name!r} is outside its support ({site.support}) or on its edge, got "
                f"{np.array2string(np.asarray(values[name]), threshold=6, precision=4)}"
            )
    start = np.asarray(engine.program.blocks.start_of(known))
    free = ~np.isfinite(start)
    return Origin(np.where(free, 0, start)[None].astype(start.dtype), free.astype(start.dtype))


def _shaped(what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or np.isnan(array).any():
        raise ValueError(f"init: expected numbers for {what}, got {value!r}")
    try:
        return np.broadcast_to(array, shape).astype(jnp.result_type(float))
    except ValueError:
        raise ValueError(f"init: {what} has shape {shape}, got a value of shape {array.shape}") from None


def _like(engine: Engine) -> Any:
    """Shapes of all parameters, on the scale that they are trained on."""
    return jax.eval_shape(engine.initial_params, engine.inputs.traced())


def _unconstrained_param(name: str, param: Any, like: Any, value: Any) -> Any:
    """The value of a parameter site on the scale that it is trained on."""
    value = np.asarray(value) if jax.tree_util.treedef_is_leaf(param.made) else value
    got: Any = jax.tree.structure(value)
    if got != param.made:
        raise ValueError(f"init: parameter {name!r} has the structure {param.made}, got {got}")
    transform = biject_to(param.constraint)
    own = lambda x, raw: _shaped(f"parameter {name!r}", x, transform.forward_shape(raw.shape))  # noqa: E731
    unconstrained = _unconstrained(transform, jax.tree.map(own, value, like), like)
    if unconstrained is None:
        raise ValueError(f"init: the value of parameter {name!r} is outside its constraint ({param.constraint})")
    return unconstrained


def _unconstrained(transform: Any, value: Any, like: Any) -> Any:
    """None where a number is outside of the constraint."""
    found = jax.tree.map(lambda x, raw: transform.inv(jnp.asarray(x)).astype(raw.dtype), value, like)
    return found if all(np.isfinite(x).all() for x in jax.tree.leaves(found)) else None


def _of_fit(fit: Fit, engine: Engine, nodes: Callable) -> Initial:
    """Blocks that are the same in both plans and parameter sites start with their parameters; of the other sites, those
    of one name and shape at their posterior mean."""
    old, new = fit.engine.program, engine.program
    like = _like(engine)
    blocks = _shared_params(_without_maps(fit), like["guide"])
    kept = {n: p for n, p in blocks.items() if not new.own or _same_block(old, new, n)}
    params = _shared_sites(fit, engine, _shared_params(fit.raw_params["param"], like["param"]))
    taken = {s for n in kept for s in new.plan.block(n).sites}
    sites = {n: s for n, s in engine.full.sites.latents.items() if s.unconstrained_shape is not None and n not in taken}
    found = _means(fit, sites) if new.own and sites else {}
    if not (kept or params or found):
        raise ValueError(
            f"init: the fit has no site of the same name and shape as this model, discrete and summed out ones apart; "
            f"its sites are {list(fit.engine.full.sites.latents)}"
        )
    return Initial(_inside_origin(found, engine, nodes), kept, params)


def _without_maps(fit: Fit) -> dict[str, Any]:
    """The parameters of a fit's blocks, those of normals with the fixed map before them in them."""
    program, constants = fit.engine.program, fit.raw_params.get("constants", {})
    guide = fit.raw_params["guide"]
    if not program.own:
        return dict(guide)
    return {n: program.blocks.shown(program.plan.block(n), p, constants.get(n)) for n, p in guide.items()}


def _shared_params(theirs: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    return {n: theirs[n] for n, tree in like.items() if n in theirs and shapes(theirs[n]) == shapes(tree)}


def _shared_sites(fit: Fit, engine: Engine, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Parameter sites at their values, which under another constraint are other numbers; left out where they are
    outside of it."""
    theirs, ours = fit.engine.program.traced.params, engine.program.traced.params
    found = {
        n: raw
        if theirs[n].constraint == ours[n].constraint
        else _unconstrained(biject_to(ours[n].constraint), fit._site_params[n], raw)
        for n, raw in shared.items()
    }
    return {n: value for n, value in found.items() if value is not None}


def _same_block(old: Program, new: Program, name: str) -> bool:
    theirs = {b.name: b for b in old.plan.blocks}.get(name)
    if theirs is None or replace(theirs, map=False, directions=0).distribution != new.plan.block(name).distribution:
        return False
    if (
        theirs.directions
        or theirs.map
        and family_of(theirs).as_normal(old.blocks.init(jnp.zeros(old.start_size))[name]) is None
    ):
        return False  # what is behind a map is the same without it for normals alone
    if any(s in old.traced.noncentred | new.traced.noncentred for s in theirs.sites):
        return False
    # The same numbers stand for the same values only where supports and shapes are the same.
    described = lambda site: (site.support, site.full(site.batch_shape), site.event_shape)  # noqa: E731
    return all(described(old.sites.samples[s]) == described(new.sites.samples[s]) for s in theirs.sites)


def _means(fit: Fit, sites: Mapping[str, Site]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Posterior mean and one draw of the sites that a fit has in these shapes."""
    draws = fit.draws.values
    shared = [n for n, s in sites.items() if n in draws and draws[n].shape[1:] == s.full(s.batch_shape) + s.event_shape]
    return {n: (draws[n].mean(0), draws[n][0]) for n in shared}


def _inside_origin(found: Mapping[str, tuple[np.ndarray, np.ndarray]], engine: Engine, nodes: Callable) -> Origin:
    """Sites start at the first value, where it is inside the support (the mean of matrices may not be), else at the
    second."""
    if not found:
        return Origin.around_zero(engine.program)
    means = {n: mean for n, (mean, _) in found.items()}
    at_mean = jax.jit(nodes)(means)
    values = {n: means[n] if np.isfinite(at_mean[n]).all() else draw for n, (_, draw) in found.items()}
    return _origin(values, engine, nodes, refuse=False)
