"""What estimators with a relaxed draw, and the relaxation given the draw, have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Facts, Scalar
from autovi.estimators.binary import Binary, along, each, logit_of
from autovi.families.base import Layout

stop = jax.lax.stop_gradient
SMALLEST = 1e-6  # of a uniform, whose logit is then -14


@dataclass(frozen=True)
class Relaxation(Binary):
    """d/dl E f(b) = E (f(b) - c(z~)) (b - p) + dc(z)/dl - dc(z~)/dl, with a control variate c of relaxed draws.

    z = l + logit(u) with b = 1[z > 0], z~ = l + logit(v), v uniform on the part of (0, 1) that gives b. Unbiased for
    every c; what c has of parameters is trained on the square of the estimate.

    Args:
        temperature: tau at the start.
        learning_rate: of Adam, for what c has of parameters; 0 leaves them as they are.

    Raises:
        ValueError: a temperature that is not positive.
    """

    temperature: float = 0.5
    learning_rate: float = 0.01

    relaxed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")

    def refuses(self, facts: Facts) -> str | None:
        if self.relaxed and facts.scored is not None:  # the slope of the cost would not be that of its expectation
            return f"{facts.scored!r} is drawn given it without a gradient through its draw"
        return super().refuses(facts)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        return {"eta": jnp.ones(()), "log_temperature": jnp.log(jnp.asarray(self.temperature, float))}

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(rng_key, (num_particles, 2, *shape), minval=SMALLEST, maxval=1 - SMALLEST)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        p = jax.nn.sigmoid(stop(logit_of(q)))
        return Draw((noise[0] > 1 - p).astype(p.dtype if self.relaxed else int), aux=(noise[0], noise[1]))

    def control(self, cost: Cost, z: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        """c at relaxed draws: with the size of the cost, and with every term once `[particles]`."""
        relaxed = jax.nn.sigmoid(z * jnp.exp(-params["log_temperature"]))
        return params["eta"] * cost.at(relaxed), params["eta"] * cost.total(relaxed)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logit, b = q.over(logit_of), draw.value
        at, p = stop(logit), stop(jax.nn.sigmoid(logit))
        u, v = draw.aux

        def free(logit: jax.Array) -> jax.Array:
            return logit + jnp.log(u) - jnp.log1p(-u)

        def given(logit: jax.Array) -> jax.Array:
            p = jax.nn.sigmoid(logit)
            inside = b * (v * p + 1 - p) + (1 - b) * v * (1 - p)
            inside = jnp.clip(inside, SMALLEST, 1 - SMALLEST)
            return logit + jnp.log(inside) - jnp.log1p(-inside)

        def slope(relaxed: Callable) -> jax.Array:
            return jax.grad(lambda logit: jnp.sum(self.control(cost, relaxed(logit), params)[1]))(at)

        bound, _ = self.control(cost, given(at), params)
        estimate = each(cost.value - bound, logit) * (b - p) + slope(free) - slope(given)
        return along(estimate, logit), jnp.sum(jnp.mean(estimate**2, 0))
