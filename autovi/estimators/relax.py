"""RELAX: a control variate that is learned, with the relaxation given the draw in the score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from autovi.estimators.base import Cost
from autovi.estimators.binary import summed_like
from autovi.estimators.control import evaluate, network
from autovi.estimators.relaxation import Part, Relaxation
from autovi.families.base import Layout


@dataclass(frozen=True)
class Relax(Relaxation):
    """As `rebar` with c(z) = eta f(softmax(z / tau)) + rho r(z) + k, r a network of every element's z.

    Unbiased for every c. eta, rho and k are the regression coefficients of least variance by past steps, and 1, 0, 0 at
    first; the network and tau are trained on the square of the estimate. Without the first part
    (`through_model=False`) the cost is never evaluated between the values of the site, so that it may be a black box:
    one evaluation for each particle.
    Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the Void", section 3.

    Args:
        width: hidden units of r.
        through_model: whether c holds the cost at relaxed draws.
        inputs: what r reads besides z, by name: data, sites above, deterministic values, element by element.
        temperature: tau at the start.
        learning_rate: of Adam, for r and log tau.
        rate: at which the moments behind eta, rho and k forget past steps.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "relax", "through_model": False}})
    """

    width: int = 10
    through_model: bool = True
    inputs: str | tuple[str, ...] = ()

    name: ClassVar[str] = "relax"

    @property
    def relaxed(self) -> bool:  # type: ignore[override]
        return self.through_model

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0, 0.0, 1.0) if self.through_model else (0.0, 0.0)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        inputs = (layout.num_values or 2) - 1 + sum(math.prod(shape) for shape in layout.reads)
        return super().init(rng_key, layout) | {"network": network(rng_key, inputs, self.width)}

    def parts(self, cost: Cost, params: Any) -> list[Part]:
        own = lambda z: evaluate(params["network"], beside(z[..., 1:] - z[..., :1], cost))  # noqa: E731
        sums = lambda z: jnp.sum(own(z).reshape(z.shape[0], -1), 1)  # noqa: E731
        learned = Part(lambda z: summed_like(own(z), cost.value), sums)
        constant = Part(lambda z: jnp.ones_like(cost.value), lambda z: jnp.zeros(z.shape[0]))
        return [learned, constant, *([self.of_model(cost, params)] if self.through_model else [])]


def beside(z: jax.Array, cost: Cost) -> jax.Array:
    """z `[particles, *batch, *event, k]` with all numbers of what is read for its element after it."""
    depth = cost.value.ndim
    flat = [jnp.reshape(x, (*x.shape[:depth], *[1] * (z.ndim - depth - 1), -1)) for x in cost.inputs]
    return jnp.concatenate([z, *(jnp.broadcast_to(x, (*z.shape[:-1], x.shape[-1])).astype(z.dtype) for x in flat)], -1)
