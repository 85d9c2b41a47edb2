"""Double control variates: leave-one-out and the gradient of the cost at the other draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, logit_of, of_others, slopes, summed_like
from autovi.estimators.control import coefficients, moments, moments_loss


@dataclass(frozen=True)
class DoubleCV(Binary):
    """d/dl E f(b) = E 1/K sum_k (h_k - mean_{j != k} h_j) (b_k - p) + a p (1 - p) mean_k f'(b_k),

    h_k = f(b_k) - a (b_k - p) . mean_{j != k} f'(b_j), over K particles. For Bernoulli sites whose cost can be
    differentiated at 0 and 1; one evaluation with its gradient for each particle, K at least two. Unbiased for every a,
    which is the regression coefficient of least variance by past steps. Where f is quadratic in b, with all else fixed,
    it has no noise left as the particles' f' agree.
    Titsias and Shi (2022), "Double Control Variates for Gradient Estimation in Discrete Latent Variable Models".

    Args:
        rate: at which the moments behind a forget past steps; 0 leaves a at zero.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "double_cv"})
    """

    rate: float = 0.02

    name: ClassVar[str] = "double_cv"
    relaxed: ClassVar[bool] = True

    @property
    def min_particles(self) -> int:
        return 2

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.rate)

    def init(self, rng_key: jax.Array, layout: Any) -> dict[str, jax.Array]:
        return moments(1)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(q(rng_key=noise)).astype(float))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        stop = jax.lax.stop_gradient
        logit, value = q.over(logit_of), draw.value
        p = stop(jax.nn.sigmoid(logit))
        slope = stop(slopes(cost, value))
        linear = summed_like((value - p) * of_others(slope), cost.value)
        one = lambda h: each(h - of_others(h), value) * (value - p)  # noqa: E731
        plain = one(cost.value)
        control = p * (1 - p) * slope - one(linear)  # of mean zero over the particles
        (a,) = coefficients(params, [0.0])
        loss = moments_loss(params, jnp.mean(plain, 0), [jnp.mean(control, 0)])
        return along(plain + a * control, logit), loss
