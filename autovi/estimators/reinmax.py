"""ReinMax: straight-through to second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.estimators.onehot import Through, given, gumbels, softmax_slope, stop

FORMS = ("plain", "rao", "cv")


@dataclass(frozen=True)
class ReinMax(Through):
    """d/dl E f(w) is taken to be E (2 J(m) - J(p) / 2) f'(w), J(p) = diag(p) - p p', m = (p + w) / 2. Biased.

    p are the probabilities, w the draw as a one-hot vector. It is the trapezoidal rule between every two values: right
    where f is quadratic along the lines between them, off in third order elsewhere. For the same sites as
    `straight_through`; one evaluation with its gradient for each particle.
    Liu, Dong, Liu, Yu and Gao (2023), "Bridging Discrete and Backpropagation: Straight-Through and Beyond".

    Two more forms have other biases and less noise where their temperature is high (Wang and Bui, 2026, "Beyond
    ReinMax: Low-Variance Gradient Estimators for Discrete Latent Variables"). With G Gumbels and J_t(z) the Jacobian of
    softmax(z / t): "rao" has 2 E[J_t(log m + G) | argmax = w] in the place of 2 J(m); "cv" adds to the plain form
    eta (E[J_t(log m + G) | argmax = w] - J_t(log m + G')), G' without a condition.

    Args:
        form: "plain", "rao" or "cv".
        temperature: t.
        num_samples: draws behind the conditional mean.
        eta: of "cv".

    Raises:
        ValueError: an unknown form, a temperature or a number of samples that is not positive.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "reinmax", "form": "rao"}}, allow_bias=True)
    """

    form: str = "plain"
    temperature: float = 1.0
    num_samples: int = 10
    eta: float = 1.0

    name: ClassVar[str] = "reinmax"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form: unknown name {self.form!r}; expected one of {list(FORMS)}")
        if not (self.temperature > 0 and self.num_samples >= 1):
            said = f"{self.temperature} and {self.num_samples}"
            raise ValueError(
                f"temperature, num_samples: expected a positive number and an integer from 1 on, got {said}"
            )

    def soft(self, logits: jax.Array, drawn: jax.Array, rng_key: jax.Array) -> jax.Array:
        p = stop(jnp.exp(logits))
        middle = jnp.log(0.5 * (p + drawn))
        first = softmax_slope(middle, 1.0)
        if self.form != "plain":
            one, many = jax.random.split(rng_key)
            e = jax.random.exponential(many, (self.num_samples, *middle.shape), middle.dtype)
            slopes = softmax_slope(given(middle, drawn, e), self.temperature)
            mean = jnp.mean(slopes, 0)
            free = softmax_slope(middle + gumbels(one, middle), self.temperature)
            first = mean if self.form == "rao" else first + 0.5 * self.eta * (mean - free)
        slope = stop(2 * first - 0.5 * softmax_slope(stop(logits), 1.0))
        return jnp.einsum("...ij,...j->...i", slope, logits)
