"""Baselines of the score-function estimator: what is subtracted from the cost without changing the mean gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from autovi.estimators.networks import Function, Network, as_network
from autovi.families.base import Layout

Costs = Float[Array, "particles *batch"]
ByElement = Float[Array, "particles *elements"]  # also where elements share a cost
Scalar = Float[Array, ""]
RATE = 0.05  # SGD on a squared error: a moving average that forgets by a factor of 0.9 a step
NETWORK = "network"
WIDTH = 32  # hidden units of the network that is taken where none is given
FAR = 1.0  # standard deviations of the costs, from which on an error counts by its size and not by its square

stop = jax.lax.stop_gradient


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """A parameter of an estimator with a row for each element of the site's plates: `array` is `[*batch, ...]`.

    A step sees and updates the rows of its own elements only. What is not marked so is seen whole.
    """

    array: Any


@dataclass(frozen=True)
class Baseline:
    """What is subtracted from the costs.

    `init(rng_key, layout)` gives its parameters, `value(cost, inputs, params)` the baseline of every particle and
    element, with the loss that its parameters are trained on; of `Rows` the rows of a step's elements are given.
    `inputs` are what it reads, each `[particles, *batch, ...]`, none of which depends on the draw.
    """

    name: str
    init: Callable[[jax.Array, Layout], Any]
    value: Callable[[Costs, tuple[jax.Array, ...], Any], tuple[Costs, Scalar]]
    min_particles: int = 1
    reads: bool = False  # does it look at inputs?
    optimizer: Callable[[float], optax.GradientTransformation] = lambda learning_rate: optax.sgd(RATE)


def _nothing(rng_key: jax.Array, layout: Layout) -> tuple[()]:
    return ()


def _none(cost: Costs, inputs: Any, params: Any) -> tuple[Costs, Scalar]:
    return jnp.zeros_like(cost), jnp.zeros(())


def _past(rng_key: jax.Array, layout: Layout) -> Rows:
    return Rows(jnp.zeros(layout.batch_shape))


def _moving_average(cost: Costs, inputs: Any, params: Rows) -> tuple[Costs, Scalar]:
    """b <- b - lr d(b - cost)^2/db: with SGD an exponential average of PAST costs. The current cost enters only the
    next step's baseline; one that included it would shrink the gradient (Williams, 1992)."""
    past = params.array
    return jnp.broadcast_to(stop(past), cost.shape), jnp.sum(jnp.mean((past - cost) ** 2, 0))


def _leave_one_out(cost: Costs, inputs: Any, params: Any) -> tuple[Costs, Scalar]:
    """The mean cost of the other particles, element by element (Salimans and Knowles, 2014; Kool et al., 2019)."""
    others = cost.shape[0] - 1
    return (jnp.sum(cost, 0, keepdims=True) - cost) / others, jnp.zeros(())


# --- of inputs -------------------------------------------------------------------------------------------------------


def _start(network: Network, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
    return {"network": network.init(rng_key, layout.reads), "mean": jnp.zeros(()), "square": jnp.ones(())}


def _learned(network: Network, cost: Costs, inputs: tuple[jax.Array, ...], params: Any) -> tuple[ByElement, Scalar]:
    """b = m + s h(inputs): h learns the costs in units of their running standard deviation s from their running mean m,
    so that one learning rate serves costs of any size. Mnih and Gregor (2014), section 3.2, with their division by s
    undone: it is in the baseline here, and does not rescale the gradient.

    Far errors count by their size alone (Huber), since the first costs lie many s from a mean that is not known yet.
    """
    mean, scale = stop(params["mean"]), stop(jnp.sqrt(jnp.maximum(params["square"], jnp.finfo(cost.dtype).tiny)))
    own = network.over(params["network"], inputs, cost.ndim)
    cost = stop(cost)
    deviation = cost - params["mean"]
    of_network = jnp.mean(optax.losses.huber_loss(own, (cost - mean) / scale, delta=FAR))
    of_running = jnp.mean(deviation**2) + (params["square"] - stop(jnp.mean(deviation**2))) ** 2
    return stop(mean + scale * own), of_network + of_running


def _optimizer(learning_rate: float) -> optax.GradientTransformation:
    """Adam for the network, a moving average for the mean and the square."""
    kinds = {"network": "network", "mean": "running", "square": "running"}
    return optax.partition({"network": optax.adam(learning_rate), "running": optax.sgd(RATE)}, kinds)


def _given(function: Function, cost: Costs, inputs: tuple[jax.Array, ...], params: Any) -> tuple[ByElement, Scalar]:
    return stop(function.over((), inputs, cost.ndim)), jnp.zeros(())


def as_baseline(what: Any) -> Baseline:
    """The baseline of that name, or the one that a function or a network makes.

    Raises:
        ValueError: no such name, or nothing that can be called.
    """
    if isinstance(what, str) and what in BASELINES:
        return BASELINES[what]
    network = as_network(what, WIDTH)
    if network is None:
        raise ValueError(
            f"baseline: unknown {f'name {what!r}' if isinstance(what, str) else repr(what)}; expected one of "
            f"{sorted([*BASELINES, NETWORK])}, a function, a Flax NNX or Equinox module, or a pair (init, apply)"
        )
    if isinstance(network, Function):
        return Baseline("function", _nothing, partial(_given, network), reads=True)
    return Baseline(NETWORK, partial(_start, network), partial(_learned, network), reads=True, optimizer=_optimizer)


BASELINES: dict[str, Baseline] = {
    "none": Baseline("none", _nothing, _none),
    "moving_average": Baseline("moving_average", _past, _moving_average),
    "leave_one_out": Baseline("leave_one_out", _nothing, _leave_one_out, min_particles=2),
}
