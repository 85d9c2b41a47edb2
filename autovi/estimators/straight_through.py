"""Straight-through: the derivative of the mean in the place of that of the draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.estimators.onehot import Through


@dataclass(frozen=True)
class StraightThrough(Through):
    """d/dl E f(w) is taken to be E f'(w) dp/dl, p the mean of the draw w, a one-hot vector. Biased.

    Right where f is linear; of f = (b - t)^2 of a Bernoulli it is off by p (1 - p) (2 p - 1). For Bernoulli sites whose
    cost can be evaluated between 0 and 1, and categorical ones of which the model makes what is linear in w; one
    evaluation with its gradient for each particle.
    Bengio, Leonard and Courville (2013), "Estimating or Propagating Gradients Through Stochastic Neurons".

    Example:
        >>> autovi.fit(model, data, estimators={"z": "straight_through"}, allow_bias=True)
    """

    name: ClassVar[str] = "straight_through"

    def soft(self, logits: jax.Array, drawn: jax.Array, rng_key: jax.Array) -> jax.Array:
        return jnp.exp(logits)
