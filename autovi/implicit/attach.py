"""Gives a draw its gradient: the value stays, the derivative is the one a velocity says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

# velocity(parameters, value, moving) -> d value: see `attach`.
Velocity = Callable[[Any, Array, Any], Array]


def attach(value: Array, parameters: Any, velocity: Velocity) -> Array:
    """`value`, whose derivative in `parameters` is `velocity(parameters, value, moving)` and in nothing else.

    dz = -(dS/dz)^-1 (dS/dtheta) dtheta for a standardization function S (Figurnov, Mohamed and Mnih, 2018, equation 5).
    Forward and reverse mode; second derivatives are right because the velocity is evaluated at the attached value.

    Args:
        value: the draw, by whatever means it was drawn; its own derivative, if any, is dropped.
        parameters: any tree of numbers and arrays; a NumPyro distribution is one. Integers count as real numbers.
        velocity: `velocity(parameters, value, moving)`, d value of the shape of `value`; `moving` is a tree like
            `parameters` that holds tangents. Linear in `moving`, and made of differentiable operations.

    Returns:
        `value`.

    Raises:
        TypeError: where someone differentiates, and the velocity has not the shape and type of `value`.

    Example:
        >>> draws = numpy.random.default_rng(0).rayleigh(2.0, 1000)
        >>> z = autovi.implicit.attach(draws, scale, lambda scale, z, moving: z / scale * moving)
    """
    leaves, treedef = jax.tree.flatten(jax.tree.map(as_inexact, parameters))

    def move(leaves: list[Array], value: Array, tangents: list[Array]) -> Array:
        return velocity(jax.tree.unflatten(treedef, leaves), value, jax.tree.unflatten(treedef, tangents))

    return _attach(move, jax.lax.stop_gradient(value), leaves)


def as_inexact(x: Any) -> Any:
    """An integer, which has no tangent, as a floating number."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
        return x
    return float(x) if isinstance(x, int) else jnp.asarray(x, jnp.result_type(float))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attach(move: Callable, value: Array, leaves: list[Array]) -> Array:
    return value


@_attach.defjvp
def _move(move: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    value, leaves = primals
    attached = _attach(move, value, leaves)
    return attached, move(leaves, attached, tangents[1])


def forbid(parameters: Any, message: str) -> Any:
    """`parameters` unchanged, which raise a TypeError with `message` where someone differentiates in them."""
    return jax.tree.map(lambda x: _forbidden(message, x), parameters)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forbidden(message: str, x: Array) -> Array:
    return x


def _refuse(message: str, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x,), (tangent,) = primals, tangents
    if not isinstance(tangent, SymbolicZero):
        raise TypeError(message)
    return x, tangent


_forbidden.defjvp(_refuse, symbolic_zeros=True)
