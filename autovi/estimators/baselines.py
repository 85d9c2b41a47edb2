"""Baselines of the score-function estimator: what is subtracted from the cost without changing the mean gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Costs = Float[Array, "particles *batch"]
Scalar = Float[Array, ""]


class Baseline(NamedTuple):
    """`init(shape)` gives its parameters (`shape`: the site's batch shape at full plates), `value(cost, params)` the
    baseline of every particle and element and the loss its parameters are trained on."""

    init: Callable[[tuple[int, ...]], Any]
    value: Callable[[Costs, Any], tuple[Costs, Scalar]]
    min_particles: int


def _none(cost: Costs, params: Any) -> tuple[Costs, Scalar]:
    return jnp.zeros_like(cost), jnp.zeros(())


def _moving_average(cost: Costs, params: Any) -> tuple[Costs, Scalar]:
    """b <- b - lr d(b - cost)^2/db: with SGD an exponential average of PAST costs. The current cost enters only the
    next step's baseline; one that included it would shrink the gradient (Williams, 1992)."""
    return jnp.broadcast_to(jax.lax.stop_gradient(params), cost.shape), jnp.sum(jnp.mean((params - cost) ** 2, 0))


def _leave_one_out(cost: Costs, params: Any) -> tuple[Costs, Scalar]:
    """The mean cost of the other particles, element by element (Salimans and Knowles, 2014; Kool et al., 2019)."""
    others = cost.shape[0] - 1
    return (jnp.sum(cost, 0, keepdims=True) - cost) / others, jnp.zeros(())


BASELINES: dict[str, Baseline] = {
    "none": Baseline(lambda shape: (), _none, 1),
    "moving_average": Baseline(lambda shape: jnp.zeros(shape), _moving_average, 1),
    "leave_one_out": Baseline(lambda shape: (), _leave_one_out, 2),
}
