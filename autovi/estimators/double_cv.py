"""Double control variates: leave-one-out and the gradient of the cost at the other draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, logit_of, slopes, summed_like


@dataclass(frozen=True)
class DoubleCV(Binary):
    """d/dl E f(b) = E 1/K sum_k (h_k - mean_{j != k} h_j) (b_k - p) + a p (1 - p) mean_k f'(b_k),

    h_k = f(b_k) - a (b_k - p) . mean_{j != k} f'(b_j), over K particles. For Bernoulli sites whose cost can be
    differentiated at 0 and 1; one evaluation with its gradient for each particle, K at least two. Unbiased for every a,
    which is trained on the square of the estimate. Where f is quadratic in b, with all else fixed, it has no noise left
    as the particles' f' agree.
    Titsias and Shi (2022), "Double Control Variates for Gradient Estimation in Discrete Latent Variable Models".

    Args:
        learning_rate: of Adam, for a.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "double_cv"})
    """

    learning_rate: float = 0.01

    name: ClassVar[str] = "double_cv"
    relaxed: ClassVar[bool] = True

    @property
    def min_particles(self) -> int:
        return 2

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Any) -> dict[str, jax.Array]:
        return {"a": jnp.zeros(())}

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=noise)).astype(float))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        stop = jax.lax.stop_gradient
        logit, value = q.over(logit_of), draw.value
        p = stop(jax.nn.sigmoid(logit))
        slope = stop(slopes(cost, value))
        linear = summed_like((value - p) * _of_others(slope), cost.value)
        one = lambda h: each(h - _of_others(h), value) * (value - p)  # noqa: E731
        plain = one(cost.value)
        control = p * (1 - p) * slope - one(linear)  # of mean zero over the particles
        estimate = plain + params["a"] * control
        loss = jnp.sum(jnp.mean(estimate, 0) ** 2)
        return along(estimate, logit), loss


def _of_others(value: jax.Array) -> jax.Array:
    """The mean over the other particles."""
    return (jnp.sum(value, 0, keepdims=True) - value) / (value.shape[0] - 1)
