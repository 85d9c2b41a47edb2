"""What estimators with a relaxed draw, and the relaxation given the draw, have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar
from autovi.estimators.binary import along, each
from autovi.estimators.categories import log_probs
from autovi.estimators.control import coefficients, moments, moments_loss, optimizer
from autovi.estimators.onehot import given, gumbels, refuses_weights, stop, value_of
from autovi.families.base import Layout


class Part(NamedTuple):
    """A function of relaxed draws z `[particles, *batch, *event, K]`: `at` with the size of the cost, `total` with
    every term once `[particles]`."""

    at: Callable[[jax.Array], jax.Array]
    total: Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Relaxation(Estimator):
    """d/dl E f(w) = E (f(w) - c(z~)) (w - p) + dc(z)/dl - dc(z~)/dl, with a control variate c = sum a_i c_i.

    w is the draw as a one-hot vector and l the logits of p; z = log p + G with w at its argmax, G Gumbels, and z~ a
    draw of the same given where the argmax is. Unbiased for every c. The a_i are regression coefficients by past steps;
    what the c_i have of parameters is trained on the square of the estimate.

    Args:
        temperature: tau at the start.
        learning_rate: of Adam, for what the c_i have of parameters; 0 leaves them as they are.
        rate: at which the moments behind the a_i forget past steps; 0 leaves the a_i as they are at the start.

    Raises:
        ValueError: a temperature that is not positive.
    """

    temperature: float = 0.5
    learning_rate: float = 0.01
    rate: float = 0.01

    on_request: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True
    sees_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")

    def refuses(self, facts: Facts) -> str | None:
        return refuses_weights(facts)

    @property
    def sequential(self) -> bool:  # type: ignore[override]
        return not self.relaxed

    @property
    @abstractmethod
    def start(self) -> tuple[float, ...]:
        """The a_i before the first step."""

    @abstractmethod
    def parts(self, cost: Cost, params: Any) -> list[Part]:
        """The c_i."""

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.rate, self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        log_temperature = jnp.log(jnp.asarray(self.temperature, float))
        return {"moments": moments(len(self.start)), "log_temperature": log_temperature}

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        free, conditional = jax.random.split(noise)
        logits = stop(log_probs(q))
        g = gumbels(free, logits)
        drawn = jnp.argmax(logits + g, -1)
        w = jax.nn.one_hot(drawn, logits.shape[-1], dtype=logits.dtype)
        e = jax.random.exponential(conditional, logits.shape, logits.dtype)
        return Draw(value_of(q, w) if self.relaxed else drawn, aux=(w, g, e))

    def completed(self, noise: jax.Array, q: Distribution, value: jax.Array) -> Draw:
        free, conditional = jax.random.split(noise)
        logits = stop(log_probs(q))
        w = jax.nn.one_hot(value, logits.shape[-1], dtype=logits.dtype)
        e, own = (jax.random.exponential(key, logits.shape, logits.dtype) for key in (conditional, free))
        return Draw(value, aux=(w, given(logits, w, own) - logits, e))

    def of_model(self, cost: Cost, params: Any) -> Part:
        """The cost at softmax(z / tau)."""
        relaxed = lambda z: jax.nn.softmax(z * jnp.exp(-params["log_temperature"]), -1)  # noqa: E731
        return Part(lambda z: cost.at(relaxed(z)), lambda z: cost.total(relaxed(z)))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logits, (w, g, e) = q.over(log_probs), draw.aux
        at, p = stop(logits), stop(jnp.exp(logits))
        possible = at > jnp.log(jnp.finfo(at.dtype).tiny)  # what `log_probs` has for no probability at all

        def value(w: jax.Array) -> jax.Array:
            """Without a trace of what cannot be, at which the cost is infinite."""
            w = jnp.where(possible, w, 0)
            return value_of(q.distribution, w / jnp.sum(w, -1, keepdims=True))

        at_weights, total = (lambda w: cost.at(value(w))), (lambda w: cost.total(value(w)))
        weighted = Cost(cost.value, at_weights, total, cost.inputs)

        def free(logits: jax.Array) -> jax.Array:
            return logits + g

        def conditional(logits: jax.Array) -> jax.Array:
            return given(jax.nn.log_softmax(logits, -1), w, e)

        def control(part: Part) -> jax.Array:
            slope = lambda relaxed: jax.grad(lambda logits: jnp.sum(part.total(relaxed(logits))))(at)  # noqa: E731
            return slope(free) - slope(conditional) - each(part.at(conditional(at)), logits) * (w - p)

        controls = [control(part) for part in self.parts(weighted, params)]
        plain = each(cost.value, logits) * (w - p)
        factors = coefficients(params["moments"], self.start)
        estimate = plain + sum(a * c for a, c in zip(factors, controls, strict=True))
        loss = 0.5 * jnp.sum(jnp.mean(estimate**2, 0)) + moments_loss(params["moments"], plain, controls)
        return along(estimate, logits), loss
