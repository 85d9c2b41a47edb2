"""What estimators with a relaxed draw, and the relaxation given the draw, have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar
from autovi.estimators.binary import along, each
from autovi.estimators.categories import log_probs
from autovi.estimators.onehot import given, gumbels, refuses_slope, refuses_weights, stop, value_of
from autovi.families.base import Layout


@dataclass(frozen=True)
class Relaxation(Estimator):
    """d/dl E f(w) = E (f(w) - c(z~)) (w - p) + dc(z)/dl - dc(z~)/dl, with a control variate c of relaxed draws.

    w is the draw as a one-hot vector and l the logits of p; z = log p + G with w at its argmax, G Gumbels, and z~ a
    draw of the same given where the argmax is. Unbiased for every c; what c has of parameters is trained on the square
    of the estimate.

    Args:
        temperature: tau at the start.
        learning_rate: of Adam, for what c has of parameters; 0 leaves them as they are.

    Raises:
        ValueError: a temperature that is not positive.
    """

    temperature: float = 0.5
    learning_rate: float = 0.01

    on_request: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")

    def refuses(self, facts: Facts) -> str | None:
        return refuses_weights(facts) or (refuses_slope(facts) if self.relaxed else None)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        return {"eta": jnp.ones(()), "log_temperature": jnp.log(jnp.asarray(self.temperature, float))}

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        free, conditional = jax.random.split(noise)
        logits = stop(log_probs(q))
        g = gumbels(free, logits)
        drawn = jnp.argmax(logits + g, -1)
        w = jax.nn.one_hot(drawn, logits.shape[-1], dtype=logits.dtype)
        e = jax.random.exponential(conditional, logits.shape, logits.dtype)
        return Draw(value_of(q, w) if self.relaxed else drawn, aux=(w, g, e))

    def control(self, cost: Cost, z: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        """c at relaxed draws: with the size of the cost, and with every term once `[particles]`."""
        relaxed = jax.nn.softmax(z * jnp.exp(-params["log_temperature"]), -1)
        return params["eta"] * cost.at(relaxed), params["eta"] * cost.total(relaxed)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logits, (w, g, e) = q.over(log_probs), draw.aux
        at, p = stop(logits), stop(jnp.exp(logits))
        value = lambda w: value_of(q.distribution, w)  # noqa: E731
        weighted = Cost(cost.value, lambda w: cost.at(value(w)), lambda w: cost.total(value(w)))

        def free(logits: jax.Array) -> jax.Array:
            return logits + g

        def conditional(logits: jax.Array) -> jax.Array:
            return given(jax.nn.log_softmax(logits, -1), w, e)

        def slope(relaxed: Callable) -> jax.Array:
            return jax.grad(lambda logits: jnp.sum(self.control(weighted, relaxed(logits), params)[1]))(at)

        bound, _ = self.control(weighted, conditional(at), params)
        estimate = each(cost.value - bound, logits) * (w - p) + slope(free) - slope(conditional)
        return along(estimate, logits), 0.5 * jnp.sum(jnp.mean(estimate**2, 0))
