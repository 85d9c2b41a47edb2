"""What biased estimators of permutation matrices have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.permutations import as_matrix, soft_order
from autovi.distributions.registry import strip
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class Ordered(Estimator):
    """d/dl E f(P) is taken to be d/dl E f(relaxed P), the draw P itself being the order of z = l + g, g Gumbels.

    Args:
        temperature: tau, a positive number.
        iterations: of scaling rows and columns.

    Raises:
        ValueError: a temperature that is not positive, or fewer than one iteration.
    """

    temperature: float = 1.0
    iterations: int = 20

    on_request: ClassVar[bool] = True
    biased: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")
        if self.iterations < 1:
            raise ValueError(f"iterations: expected at least 1, got {self.iterations}")

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution != "PlackettLuceMatrix":
            return "it is for sites of permutation matrices only"
        scored = facts.scored
        return None if scored is None else f"{scored!r} is drawn given it without a gradient through its draw"

    @abstractmethod
    def between(self, soft: jax.Array, drawn: jax.Array) -> jax.Array:
        """The matrix at which the cost has its gradient, by the doubly stochastic one and the drawn permutation."""

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        logits = stop(_logits(q))
        gumbels = jax.random.gumbel(noise, logits.shape, logits.dtype)
        return Draw(as_matrix(jnp.argsort(-(logits + gumbels), -1)), aux=gumbels)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logits = q.over(_logits)

        def total(logits: jax.Array) -> jax.Array:
            soft = soft_order(logits + draw.aux, self.temperature, self.iterations)
            return jnp.sum(cost.total(self.between(soft, draw.value)))

        slope = jax.grad(total)(stop(logits))
        return jnp.sum(slope * logits) / logits.shape[0], jnp.zeros(())


def _logits(q: Distribution) -> jax.Array:
    """The log weights of the items, `[*batch, n]`."""
    return jnp.broadcast_to(strip(q).logits, q.shape()[:-1])
