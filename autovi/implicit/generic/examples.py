"""Concrete examples of a distribution whose parameters are traced, and moves of its parameters: what a check needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to, constraints

from autovi.distributions.supports import bijection_to

_SIZES = (0.3, 0.9)  # of the unconstrained parameters of the examples
# Real parameters by name, the constraint of each (None: unknown), and the distribution that has other values.
_Parameters = tuple[dict[str, Any], dict[str, Any], Callable[[dict[str, Any]], Distribution]]


def examples(fn: Distribution) -> list[Distribution]:
    """`fn` itself, or, where parameters are traced, copies that have numbers which the constraints allow.

    Raises:
        TypeError: a traced parameter about which `arg_constraints` says nothing, or one that the constructor of the
            class does not take.
    """
    if not any(map(_is_traced, jax.tree.leaves(fn))):
        return [fn]
    by_name = _by_constructor(fn)
    values, limits, rebuild = by_name or ({}, {}, lambda _: fn)
    traced = [name for name, value in values.items() if _is_traced(value)]
    with jax.ensure_compile_time_eval():
        if not all(_is_usable(limits[name]) for name in traced):
            raise TypeError(_unknown(fn))
        found = [rebuild({name: _feasible(values[name], limits[name], size) for name in traced}) for size in _SIZES]
    if any(_is_traced(leaf) for copy in found for leaf in jax.tree.leaves(copy)):
        raise TypeError(_unknown(fn))
    return found


def moves(fn: Distribution, derivative: Callable[[Any, Any], Array], like: Array) -> Array:
    """`derivative(fn, moving)` for a move of each real parameter of a concrete `fn` by itself, along a first axis.

    The moves keep to the constraints: probabilities keep their sum. Each is of the shape of `like`.
    """
    values, limits, rebuild = _by_constructor(fn) or _by_leaf(fn)
    paths = [_path(value, limits.get(name)) for name, value in values.items()]
    if not paths:
        return jnp.zeros((0, *like.shape), like.dtype)

    def along(direction: Array) -> Array:
        moved = lambda steps: rebuild({n: p(s) for n, p, s in zip(values, paths, steps, strict=True)})  # noqa: E731
        return derivative(fn, jax.jvp(moved, (jnp.zeros_like(direction),), (direction,))[1])

    return jax.vmap(along)(jnp.eye(len(paths)))


def _by_constructor(fn: Distribution) -> _Parameters | None:
    """None where the constructor does not take the parameters by name, or makes another distribution of them.

    It knows of attributes that repeat a parameter or are computed from it.
    """

    def rebuild(values: dict[str, Any]) -> Distribution:
        made = type(fn)(**{**arguments, **values})
        if "_validate_args" in vars(fn):  # else it is the class's, which is a setting of the process
            made._validate_args = fn._validate_args
        return made

    try:
        arguments = fn.get_args()
        again = rebuild({})
    except Exception:
        return None
    known: Any = jax.tree.structure(fn)
    if known != jax.tree.structure(again) or not all(map(_alike, jax.tree.leaves(fn), jax.tree.leaves(again))):
        return None
    values = {name: value for name, value in arguments.items() if _is_real(value)}
    return values, {name: fn.arg_constraints[name] for name in values}, rebuild


def _by_leaf(fn: Distribution) -> _Parameters:
    leaves, treedef = jax.tree.flatten(fn)
    values = {str(k): leaf for k, leaf in enumerate(leaves) if _is_real(leaf)}

    def rebuild(values: dict[str, Any]) -> Distribution:
        return jax.tree.unflatten(treedef, [values.get(str(k), leaf) for k, leaf in enumerate(leaves)])

    return values, {}, rebuild


def _alike(leaf: Any, other: Any) -> bool:
    if jnp.shape(leaf) != jnp.shape(other) or jnp.result_type(leaf) != jnp.result_type(other):
        return False
    return _is_traced(leaf) or _is_traced(other) or bool(np.array_equal(leaf, other, equal_nan=True))


def _feasible(value: Any, limit: Any, size: float) -> Array:
    transform = biject_to(limit)
    shape = transform.inverse_shape(jnp.shape(value))
    free = size * np.sin(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)
    return jnp.asarray(transform(jnp.asarray(free, value.dtype)), value.dtype)


def _path(value: Any, limit: Any) -> Callable[[Array], Array]:
    """The parameter after a step: in the space without constraints, if it has an unconstrained value."""
    with jax.ensure_compile_time_eval():
        value = jnp.asarray(value)
        transform = biject_to(limit) if _is_usable(limit) else None
        free = value if transform is None else transform.inv(value)
        if not bool(jnp.all(jnp.isfinite(free))):
            transform, free = None, value
        pattern = jnp.asarray(1.0 + 0.5 * np.sin(np.arange(free.size)).reshape(free.shape), free.dtype)

    def path(step: Array) -> Array:
        moved = free + step.astype(free.dtype) * pattern
        return moved if transform is None else transform(moved)

    return path


def _unknown(fn: Distribution) -> str:
    traced = [name for name, value in vars(fn).items() if any(map(_is_traced, jax.tree.leaves(value)))]
    return (
        f"{type(fn).__name__}: its draws are differentiated after a check on numbers, and its arg_constraints do not "
        f"say which values {' and '.join(traced)} may have; call autovi.implicit.check on an instance of these shapes "
        "outside of jit and grad first"
    )


def _is_usable(limit: Any) -> bool:
    if limit is None or constraints.is_dependent(limit) or limit.is_discrete:
        return False
    return bijection_to(limit) is not None


def _is_real(value: Any) -> bool:
    number = isinstance(value, (float, np.ndarray, np.generic, jax.Array))
    return number and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)
