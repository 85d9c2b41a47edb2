"""Concrete draws, also called Gumbel-softmax: the gradient of the cost at a relaxed draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.categories import log_probs
from autovi.estimators.onehot import Tempered, gumbels, stop, value_of


@dataclass(frozen=True)
class Concrete(Tempered):
    """d/dl E f(w) is taken to be d/dl E f(softmax((log p + G) / tau)), G Gumbels. Biased, the less the lower tau.

    The draw itself is the one-hot w of argmax (log p + G), so that losses, and the gradients of all other sites, are at
    values of the distribution; the relaxed draw is seen by the gradient of this site alone. At a low temperature the
    gradient has much noise. For Bernoulli sites whose cost can be evaluated between 0 and 1, and categorical ones of
    which the model makes what is linear in w; two evaluations, one with its gradient, for each particle.
    Maddison, Mnih and Teh (2017), "The Concrete Distribution"; Jang, Gu and Poole (2017), "Categorical
    Reparameterization with Gumbel-Softmax".

    Args:
        temperature: tau, a positive number or an Optax schedule, a function of the step.

    Raises:
        ValueError: a temperature that is not positive.

    Example:
        >>> schedule = optax.exponential_decay(1.0, 1000, 0.5, end_value=0.1)
        >>> estimators = {"z": {"estimator": "concrete", "temperature": schedule}}
        >>> autovi.fit(model, data, estimators=estimators, allow_bias=True)
    """

    name: ClassVar[str] = "concrete"

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        logits = stop(log_probs(q))
        g = gumbels(noise, logits)
        w = jax.nn.one_hot(jnp.argmax(logits + g, -1), logits.shape[-1], dtype=logits.dtype)
        return Draw(value_of(q, w), aux=g)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logits = q.over(log_probs)
        value = lambda logits: value_of(q.distribution, self.relaxed_at(logits + draw.aux, params))  # noqa: E731
        slope = jax.grad(lambda logits: jnp.sum(cost.total(value(logits))))(stop(logits))
        return jnp.sum(stop(slope) * logits) / logits.shape[0], jnp.zeros(())
