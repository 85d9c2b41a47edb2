"""Double control variates: leave-one-out and the gradient of the cost at the other draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import along, each, of_others, summed_like
from autovi.estimators.control import coefficients, moments, moments_loss
from autovi.estimators.sloped import Sloped, at_draws


@dataclass(frozen=True)
class DoubleCV(Sloped):
    """d/dl E f(w) = E 1/K sum_k (h_k - mean_{j != k} h_j) (w_k - p) + a J mean_k f'(w_k), J = diag(p) - p p^T,

    h_k = f(w_k) - a (w_k - p) . mean_{j != k} f'(w_j), over K particles, w the draws as one-hot vectors and l the
    logits of p; of a Bernoulli w is a number and J = p (1 - p). For Bernoulli sites whose cost can be differentiated at
    0 and 1, and categorical ones of which the model makes what is linear in w; one evaluation with its gradient for
    each particle, K at least two. Unbiased for every a, which is the regression coefficient of least variance by past
    steps. Where f is quadratic in w, with all else fixed, it has no noise left as the particles' f' agree.
    Titsias and Shi (2022), "Double Control Variates for Gradient Estimation in Discrete Latent Variable Models".

    Args:
        rate: at which the moments behind a forget past steps; 0 leaves a at zero.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "double_cv"})
    """

    rate: float = 0.02

    name: ClassVar[str] = "double_cv"

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.rate)

    def init(self, rng_key: jax.Array, layout: Any) -> dict[str, jax.Array]:
        return moments(1)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        drawn = at_draws(q, draw, cost)
        score, p, slope = drawn.score, drawn.p, drawn.slope
        linear = summed_like(score * of_others(slope), cost.value)
        one = lambda h: each(h - of_others(h), score) * score  # noqa: E731
        plain = one(cost.value)
        expected = p * (slope - jnp.sum(p * slope, -1, keepdims=True))
        control = expected - one(linear)  # of mean zero over the particles
        (a,) = coefficients(params, [0.0])
        loss = moments_loss(params, jnp.mean(plain, 0), [jnp.mean(control, 0)])
        return along(plain + a * control, drawn.logits), loss
