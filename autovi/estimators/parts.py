"""What estimators have in common that take a distribution apart: its parts one by one, each with its own draw."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions import registry
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar, of_possible, refuses_derivatives

stop = jax.lax.stop_gradient


class Parts(NamedTuple):
    """Parts of a distribution, of one particle.

    `weights` `[parts, *batch]` are their probabilities, `values` `[parts, *batch, *event]` a draw of each, and `log_q`
    `[parts, *batch]` the log densities of the draws, each in its own part; None where the values carry their gradient.
    """

    weights: jax.Array
    values: jax.Array
    log_q: jax.Array | None = None


@dataclass(frozen=True)
class ByParts(Estimator):
    """d/dtheta sum_k pi_k E f(x_k) = sum_k E f(x_k) dpi_k + pi_k d E f(x_k), the parts' probabilities pi exactly.

    The second term is pathwise, or the score of a part whose draws have no derivative, with the mean of the other
    particles' costs of that part as baseline. f holds log q of the whole distribution, at every x_k. All elements are
    evaluated together, so that their costs must be told apart.
    """

    on_request: ClassVar[bool] = True
    classes: ClassVar[tuple[str, ...]]  # of NumPyro, that can be taken apart

    @abstractmethod
    def parts(self, noise: jax.Array, q: Distribution) -> tuple[Parts, ...]:
        """The parts of a distribution, those that are alike together."""

    def refuses(self, facts: Facts) -> str | None:
        gradients = facts.gradients
        if facts.distribution not in self.classes:
            return f"it is for {', '.join(self.classes)} sites only"
        if gradients.moving_support:
            return f"its support depends on its parameter {', '.join(gradients.moving_support)}"
        if facts.entangled or gradients.discrete:
            return facts.entangled
        if facts.scored is not None:
            return f"{facts.scored!r} is drawn given it without a gradient through its draw"
        if (broken := refuses_derivatives(facts)) is not None:
            return broken
        if gradients.periodic and facts.aperiodic:
            return f"the cost is not periodic in it ({facts.aperiodic})"
        return None

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        inside = registry.strip(q)
        if q.event_dim > inside.event_dim:
            raise ValueError(
                f"estimator {self.name!r}: needs a cost of each number's own, and the numbers of an event share one: "
                f"got events of shape {q.event_shape}; put the site in a plate, or ask for another estimator"
            )
        which, own = jax.random.split(noise)
        parts = self.parts(own, q)
        weights, values = (jnp.concatenate([getattr(p, n) for p in parts]) for n in ("weights", "values"))
        below = jnp.cumsum(stop(weights), 0)[:-1]
        place = jnp.sum(jax.random.uniform(which, below.shape[1:], below.dtype) >= below, 0)
        place = place.reshape(1, *place.shape, *[1] * (values.ndim - below.ndim))
        return Draw(stop(jnp.take_along_axis(values, place, 0)[0]), aux=parts)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        total = jnp.zeros(())
        for found in draw.aux:
            weights, values, log_q = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)  # parts in front
            costs = jax.vmap(cost.at)(values if log_q is None else stop(values))
            costs = costs.reshape(*costs.shape, *[1] * (weights.ndim - costs.ndim))
            costs = of_possible(costs, weights)
            drawn = costs if log_q is None else log_q * stop(costs - others(costs))
            total += jnp.sum(weights * stop(costs) + stop(weights) * drawn)
        return total / draw.value.shape[0], jnp.zeros(())


def others(costs: jax.Array) -> jax.Array:
    """The mean over the other particles of costs `[parts, particles, ...]`; 0 where there are none."""
    number = costs.shape[1]
    return (jnp.sum(costs, 1, keepdims=True) - costs) / max(number - 1, 1) if number > 1 else jnp.zeros_like(costs)
