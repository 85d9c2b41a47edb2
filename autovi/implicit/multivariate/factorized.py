"""Multivariate draws by their conditional distributions, one coordinate after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution

from autovi.implicit.attach import attach
from autovi.implicit.dispatch import draw, reparameterize
from autovi.implicit.numerics.matrices import inverse_lower, matvec
from autovi.implicit.validation import validated
from autovi.keys import as_key

# conditional(i, prefix) -> the univariate distribution of coordinate i given the coordinates before it, `[..., i]`.
Conditional = Callable[[int, Array], Any]


def factorized(value: Array, standardize: Callable[[Any, Array], Array], parameters: Any) -> Array:
    """`value`, drawn by whatever means, with the gradient in `parameters` that a draw of the distribution has.

    `dz = -(dS/dz)^-1 dS` for the standardization `S_i = F_i(z_i | z_1 ... z_{i-1}; parameters)`, whose matrix dS/dz is
    lower triangular (Figurnov, Mohamed and Mnih, 2018, equation 5). Any strictly monotone function of F_i, such as a
    normal score or a logit, does as well as F_i itself, and keeps more digits in the tails.

    Args:
        value: `[..., d]`; the last axis is the event, the others are independent draws.
        standardize: `standardize(parameters, value) -> u`, of the shape of `value`, each row by itself and
            differentiable in both arguments; u_i may depend on the coordinates up to i only. The gradient is NaN where
            it depends on later ones.
        parameters: any tree of numbers and arrays, in which the result is differentiable.

    Returns:
        `value`, of the same shape.

    Raises:
        TypeError: `standardize` does not return floating-point numbers.
        ValueError: `value` has no event axis, or `standardize` changes its shape.

    Example:
        >>> def standardize(p, z):  # z_1 ~ Exponential(rate), z_2 ~ Weibull(z_1, shape)
        ...     return jnp.stack([p["rate"] * z[..., 0], (z[..., 1] / z[..., 0]) ** p["shape"]], axis=-1)
        >>> z = autovi.implicit.factorized(draws, standardize, {"rate": 2.0, "shape": 1.5})
    """
    if jnp.ndim(value) == 0:
        raise ValueError("factorized: value should have the shape [..., d], d coordinates to an event, and is a scalar")
    standard = jax.eval_shape(standardize, parameters, value)
    if not hasattr(standard, "shape") or not jnp.issubdtype(standard.dtype, jnp.floating):
        raise TypeError(f"factorized: standardize should return an array of floating-point numbers, not {standard}")
    if standard.shape != jnp.shape(value):
        shapes = f"{jnp.shape(value)}, and returns {standard.shape}"
        raise ValueError(f"factorized: standardize should keep the shape {shapes}")

    def velocity(parameters: Any, value: Array, moving: Any) -> Array:
        moved = jax.jvp(lambda p: standardize(p, value), (parameters,), (moving,))[1]
        return -_solve(lambda z: standardize(parameters, z), value, moved)

    return attach(value, parameters, velocity)


def sequential(value: Array, conditional: Conditional) -> Array:
    """`value` with the gradient of a draw whose coordinates have the univariate distributions `conditional`.

    Each coordinate is differentiated by itself, given the coordinates before it, which carry their gradients: this is
    the triangular solve of `factorized`, without its matrix.

    dz_i = V_i + sum_{j<i} (dz_i/dz_j) dz_j, V_i the velocity of the conditional's draw, -dF_i / p_i: Figurnov, Mohamed
    and Mnih (2018), "Implicit Reparameterization Gradients", section 4.

    Args:
        value: `[..., d]`.
        conditional: `conditional(i, prefix)`, the distribution of coordinate i given those before it, `[..., i]`; of a
            batch shape that broadcasts to `[...]`. Its parameters are what the function closes over.

    Returns:
        `value`, of the same shape.

    Raises:
        TypeError: a conditional that is no distribution, is multivariate, or cannot be differentiated.
        ValueError: `value` has no event axis; or a conditional of one's own that fails a check.

    Example:
        >>> def conditional(i, prefix):  # a random walk whose steps are gamma
        ...     return dist.Gamma(shape, shape / (1.0 if i == 0 else prefix[..., -1]))
        >>> z = autovi.implicit.sequential(draws, conditional)
    """
    if jnp.ndim(value) == 0:
        raise ValueError("sequential: value should have the shape [..., d], d coordinates to an event, and is a scalar")
    prefix = value[..., :0]
    for i in range(value.shape[-1]):
        fn = _univariate(conditional(i, prefix), i)
        prefix = _append(prefix, reparameterize(fn, value[..., i]))
    return prefix


def draw_sequential(
    rng_key: Array | int, conditional: Conditional, num_coordinates: int, shape: tuple[int, ...] = ()
) -> Array:
    """Draws of shape `[*shape, num_coordinates]` with their gradient, each coordinate given those before it.

    The gradient is that of `sequential`.

    Args:
        rng_key: a JAX key, or an integer.
        conditional: as for `sequential`.
        num_coordinates: of one draw, at least 1.
        shape: of the draws, which the batch shapes of all conditionals broadcast to.

    Returns:
        Draws of shape `[*shape, num_coordinates]`.

    Raises:
        TypeError: as of `sequential`.
        ValueError: `num_coordinates` below 1, a conditional that is discrete or fails a check, or `rng_key` is no key.

    Example:
        >>> z = autovi.implicit.draw_sequential(rng_key, conditional, 3, (1000,))
    """
    if num_coordinates < 1:
        raise ValueError(f"draw_sequential: num_coordinates should be at least 1, and is {num_coordinates}")
    prefix = jnp.zeros((*shape, 0))
    for i, key in enumerate(jax.random.split(as_key(rng_key), num_coordinates)):
        coordinate = draw(key, validated(_univariate(conditional(i, prefix), i)), shape)
        prefix = _append(prefix.astype(coordinate.dtype), coordinate)
    return prefix


def _solve(standardize: Callable[[Array], Array], value: Array, moved: Array) -> Array:
    """(dS/dz)^-1 `moved`, row by row."""
    axes = jnp.eye(value.shape[-1], dtype=value.dtype)
    along = jax.vmap(lambda axis: jax.jvp(standardize, (value,), (jnp.broadcast_to(axis, value.shape),))[1])
    matrix = jnp.moveaxis(along(axes), 0, -1)
    above = jnp.max(jnp.abs(jnp.triu(matrix, 1)), axis=(-2, -1), initial=0.0)
    triangular = above <= 1e-3 * jnp.max(jnp.abs(matrix), axis=(-2, -1))
    return jnp.where(triangular[..., None], matvec(inverse_lower(matrix), moved), jnp.nan)


def _append(prefix: Array, coordinate: Array) -> Array:
    return jnp.concatenate([prefix, coordinate[..., None]], axis=-1)


def _univariate(fn: Any, i: int) -> Any:
    if not isinstance(fn, Distribution):
        raise TypeError(f"sequential: the conditional of coordinate {i} should be a distribution, not {fn!r}")
    if fn.event_shape:
        raise TypeError(
            f"sequential: the conditional of coordinate {i}, a {type(fn).__name__}, should be univariate, and has "
            f"event shape {fn.event_shape}"
        )
    return fn
