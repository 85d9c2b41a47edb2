"""Control variates that are learned: their coefficients by regression over past steps, and a small network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from autovi.estimators.base import Scalar

stop = jax.lax.stop_gradient
WARM = 0.1  # the share of the running moments that must be there before they are used: eleven steps at a rate of 0.01
RIDGE = 1e-5  # of correlations: two control variates may be one up to a factor, and 1e-6 is what moments are rounded by


def moments(number: int) -> dict[str, jax.Array]:
    """Running moments of an estimate g and control variates c_i of mean zero, before the first step."""
    return {"weight": jnp.zeros(()), "products": jnp.zeros(number), "squares": jnp.zeros((number, number))}


def coefficients(known: dict[str, jax.Array], start: Sequence[float]) -> jax.Array:
    """The a of least E |g + sum a_i c_i|^2 by the moments of past steps, which no draw of this step is in; `start`
    before there are enough. The scale of g does not matter."""
    size = jnp.sqrt(jnp.diagonal(known["squares"]))
    size = jnp.where(size > 0, size, 1)
    alone = jnp.eye(len(start))  # what is beside nothing keeps its coefficient to the last digit
    correlations = (known["squares"] / size[:, None] / size + RIDGE * alone) / (1 + RIDGE)
    found = -jnp.linalg.solve(correlations, known["products"] / size) / size
    return stop(jnp.where(known["weight"] > WARM, found, jnp.asarray(start, found.dtype)))


def moments_loss(known: dict[str, jax.Array], estimate: jax.Array, controls: Sequence[jax.Array]) -> Scalar:
    """The loss by which SGD at a rate r makes `known` running averages that forget by a factor of 1 - r a step."""
    g, c = stop(jnp.ravel(estimate)), stop(jnp.stack([jnp.ravel(control) for control in controls]))
    new = {"weight": jnp.ones(()), "products": c @ g, "squares": c @ c.T}
    return 0.5 * jnp.sum(jnp.stack([jnp.sum((known[name] - new[name]) ** 2) for name in new]))


def seen(shape: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    """Running mean and variance of values of this shape, before the first step; their weight is that of the moments."""
    return {"mean": jnp.zeros(shape), "variance": jnp.zeros(shape)}


def standardized(known: dict[str, jax.Array], values: jax.Array) -> jax.Array:
    """Values `[..., *shape]` in units of the running mean and standard deviation, which no draw of this step is in."""
    mean, variance = stop((known["mean"] / _share(known), known["variance"] / _share(known)))
    return (values - mean) / jnp.sqrt(jnp.where(variance > 0, variance, 1))


def seen_loss(known: dict[str, jax.Array], values: jax.Array) -> Scalar:
    """The loss by which SGD makes them running averages, as `moments_loss` does."""
    values = values.reshape(-1, *known["mean"].shape)
    spread = jnp.mean((values - stop(known["mean"] / _share(known))) ** 2, 0)
    return 0.5 * jnp.sum((known["mean"] - jnp.mean(values, 0)) ** 2 + (known["variance"] - spread) ** 2)


def _share(known: dict[str, jax.Array]) -> jax.Array:
    return jnp.where(known["weight"] > 0, known["weight"], 1)


def optimizer(rate: float, learning_rate: float) -> optax.GradientTransformation:
    """Running averages for "moments", Adam for all else."""
    labels = lambda params: {n: "moments" if n == "moments" else "others" for n in params}  # noqa: E731
    return optax.multi_transform({"moments": optax.sgd(rate), "others": optax.adam(learning_rate)}, labels)


def network(rng_key: jax.Array, inputs: int, width: int) -> dict[str, jax.Array]:
    """The weights of a network with one hidden layer of `width` tanh units and one output."""
    first, last = jax.random.split(rng_key)
    weights = {"in": jax.random.normal(first, (inputs, width)), "bias": jnp.zeros(width)}
    return weights | {"out": jax.random.normal(last, (width,)) / width**0.5}


def evaluate(weights: dict[str, Any], x: jax.Array) -> jax.Array:
    """The network's output `[...]` at inputs `[..., inputs]`."""
    return jnp.tanh(x @ weights["in"] + weights["bias"]) @ weights["out"]
