"""RELAX: a control variate that is learned, with the relaxation given the draw in the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from autovi.estimators.base import Cost
from autovi.estimators.binary import summed_like
from autovi.estimators.relaxation import Relaxation
from autovi.families.base import Layout


@dataclass(frozen=True)
class Relax(Relaxation):
    """As `rebar` with c(z) = eta f(softmax(z / tau)) + r(z), r a network of every element's z, trained with the rest.

    Unbiased for every c. Without the first part (`through_model=False`) the cost is never evaluated between the values
    of the site, so that it may be a black box: one evaluation for each particle.
    Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the Void", section 3.

    Args:
        width: hidden units of r.
        through_model: whether c holds the cost at relaxed draws.
        temperature: tau at the start.
        learning_rate: of Adam, for c.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "relax", "through_model": False}})
    """

    width: int = 10
    through_model: bool = True

    name: ClassVar[str] = "relax"

    @property
    def relaxed(self) -> bool:  # type: ignore[override]
        return self.through_model

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        weights = jax.random.normal(rng_key, ((layout.num_values or 2) - 1, self.width))
        zero = jnp.zeros(self.width)
        return {**super().init(rng_key, layout), "in": weights, "bias": zero, "out": zero}

    def control(self, cost: Cost, z: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        odds = z[..., 1:] - z[..., :1]
        own = jnp.tanh(odds @ params["in"] + params["bias"]) @ params["out"]
        learned = summed_like(own, cost.value), jnp.sum(own, tuple(range(1, own.ndim)))
        if not self.through_model:
            return learned
        of_model = super().control(cost, z, params)
        return learned[0] + of_model[0], learned[1] + of_model[1]
