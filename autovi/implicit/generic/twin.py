"""Concrete copies of a distribution, and directions in which its parameters may move, for checks that need numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to, constraints

from autovi.distributions.supports import bijection_to

_SIZES = (0.3, 0.9)  # of the unconstrained parameters of the copies


@dataclass(frozen=True)
class Parameters:
    """A distribution as a function of its real parameters.

    Attributes:
        values: by name.
        limits: the constraint of each; None where it is unknown or depends on another parameter.
        build: the distribution from values.
    """

    values: dict[str, Array]
    limits: dict[str, Any]
    build: Callable[[dict[str, Array]], Distribution]


def twins(fn: Distribution) -> list[Distribution]:
    """`fn` itself, or, where parameters are traced, copies that have feasible numbers for those.

    Raises:
        TypeError: a traced parameter about which `arg_constraints` says nothing.
    """
    if not any(_is_traced(leaf) for leaf in jax.tree.leaves(fn)):
        return [fn]
    parameters = parameters_of(fn)
    if any(_is_traced(leaf) and not _is_real(leaf) for leaf in jax.tree.leaves(fn)):
        raise TypeError(_unknown(fn, "its integer parameters"))
    with jax.ensure_compile_time_eval():
        values = [{name: _feasible(fn, parameters, name, size) for name in parameters.values} for size in _SIZES]
        return [parameters.build(some) for some in values]


def directions(fn: Distribution) -> dict[str, Distribution]:
    """For each real parameter of a concrete `fn`, `fn` holding the tangents of a move of that parameter.

    The moves keep to the constraints: probabilities keep their sum.
    """
    parameters = parameters_of(fn)
    along = {}
    for name in parameters.values:

        def moved(step: Array, name: str = name) -> Distribution:
            return parameters.build({**parameters.values, name: _move(parameters, name, step)})

        _, along[name] = jax.jvp(moved, (jnp.zeros(()),), (jnp.ones(()),))
    return along


def over_directions(along: Callable[[Any], Any], moves: dict[str, Distribution]) -> Any:
    """`along(moving)` for all `moves` at once, as `jax.vmap` gives it: compiled once, not once for each."""
    flat = [jax.tree.leaves(moving) for moving in moves.values()]
    treedef = jax.tree.structure(next(iter(moves.values())))
    real = [leaf.dtype != jax.dtypes.float0 for leaf in flat[0]]
    stacked = [jnp.stack(leaves) for use, leaves in zip(real, zip(*flat, strict=True), strict=True) if use]

    def one(tangents: list[Array]) -> Any:
        moving = iter(tangents)
        leaves = [next(moving) if use else leaf for leaf, use in zip(flat[0], real, strict=True)]
        return along(jax.tree.unflatten(treedef, leaves))

    return jax.vmap(one)(stacked)


def parameters_of(fn: Distribution) -> Parameters:
    """By the constructor, if it takes the parameters by name and makes the same distribution; else leaf by leaf.

    The constructor knows of attributes that repeat a parameter or are computed from it.
    """
    by_name = _by_constructor(fn)
    if by_name is not None:
        return by_name
    leaves, treedef = jax.tree.flatten(fn)
    limits = _leaf_limits(fn)
    names = [f"{name} (leaf {k})" for k, name in enumerate(name for name, _ in limits)]
    # Arrays only: two parameters may happen to be the same Python number.
    same = lambda other, leaf: other is leaf and isinstance(leaf, jax.Array)  # noqa: E731
    first = [
        next(k for k, other in enumerate(leaves) if k == own or same(other, leaf)) for own, leaf in enumerate(leaves)
    ]
    values = {names[k]: leaves[k] for k in sorted(set(first)) if _is_real(leaves[k])}

    def build(values: dict[str, Array]) -> Distribution:
        chosen = [values.get(names[k], leaf) for k, leaf in zip(first, leaves, strict=True)]
        return jax.tree.unflatten(treedef, chosen)

    return Parameters(values, dict(zip(names, (limit for _, limit in limits), strict=True)), build)


def _by_constructor(fn: Distribution) -> Parameters | None:
    def build(values: dict[str, Array]) -> Distribution:
        made = type(fn)(**{**arguments, **values})
        made._validate_args = fn._validate_args
        return made

    try:
        arguments = fn.get_args()
        again = build({})
    except Exception:
        return None
    leaves, others = jax.tree.leaves(fn), jax.tree.leaves(again)
    known: Any = jax.tree.structure(fn)
    same = known == jax.tree.structure(again) and all(_alike(a, b) for a, b in zip(leaves, others, strict=True))
    values = {name: value for name, value in arguments.items() if _is_real(value)}
    limits = {name: fn.arg_constraints[name] for name in values}
    return Parameters(values, limits, build) if same else None


def _alike(leaf: Any, other: Any) -> bool:
    if jnp.shape(leaf) != jnp.shape(other) or jnp.result_type(leaf) != jnp.result_type(other):
        return False
    return _is_traced(leaf) or _is_traced(other) or bool(np.array_equal(leaf, other, equal_nan=True))


def _leaf_limits(fn: Distribution) -> list[tuple[str, Any]]:
    """The attribute and the constraint of each leaf of `fn`, in order; None for a constraint that is not given."""
    limits: list[tuple[str, Any]] = []
    for name, child in zip(type(fn).gather_pytree_data_fields(), fn.tree_flatten()[0], strict=True):
        for part in jax.tree.leaves(child, is_leaf=lambda x: isinstance(x, Distribution)):
            if isinstance(part, Distribution):
                limits += [(f"{name}.{inner}", limit) for inner, limit in _leaf_limits(part)]
            else:
                limits.append((name, fn.arg_constraints.get(name)))
    return limits


def _feasible(fn: Distribution, parameters: Parameters, name: str, size: float) -> Array:
    """The value itself, or, if it is traced, one that the constraint allows."""
    value = parameters.values[name]
    if not _is_traced(value):
        return value
    limit = parameters.limits.get(name)
    if not _is_usable(limit):
        raise TypeError(_unknown(fn, name))
    transform = biject_to(limit)
    shape = transform.inverse_shape(jnp.shape(value))
    free = size * np.sin(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)
    return jnp.asarray(transform(jnp.asarray(free, value.dtype)), value.dtype)


def _unknown(fn: Distribution, what: str) -> str:
    return (
        f"{type(fn).__name__}: its draws are differentiated after a check on numbers, and its arg_constraints do not "
        f"say which values {what} may have; call autovi.implicit.check on an instance of these shapes outside of jit "
        "and grad first"
    )


def _move(parameters: Parameters, name: str, step: Array) -> Array:
    """The parameter moved by `step` in the space without constraints, if it has an unconstrained value."""
    value = jnp.asarray(parameters.values[name])
    limit = parameters.limits.get(name)
    if _is_usable(limit):
        transform = biject_to(limit)
        free = transform.inv(value)
        if bool(jnp.all(jnp.isfinite(free))):
            return transform(free + step.astype(value.dtype) * _pattern(free))
    return value + step.astype(value.dtype) * _pattern(value)


def _pattern(like: Array) -> Array:
    return jnp.asarray(1.0 + 0.5 * np.sin(np.arange(like.size)).reshape(like.shape), like.dtype)


def _is_usable(limit: Any) -> bool:
    if limit is None or constraints.is_dependent(limit) or limit.is_discrete:
        return False
    return bijection_to(limit) is not None


def _is_real(value: Any) -> bool:
    number = isinstance(value, (float, np.ndarray, np.generic, jax.Array))
    return number and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)
