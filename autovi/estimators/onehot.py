"""What estimators of sites that take one of a few values have in common: their values as one-hot vectors w."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Draw, Estimator, Facts
from autovi.estimators.binary import BERNOULLI, logit_of

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class Biased(Estimator):
    """A biased estimator that takes the derivative of the cost in w, one-hot vectors at the draws."""

    on_request: ClassVar[bool] = True
    biased: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return None if facts.distribution in BERNOULLI else "it is for Bernoulli sites only"


@dataclass(frozen=True)
class Through(Biased):
    """A draw w whose derivative in the logits is that of `soft`: the gradient of the cost at w flows through it.

    The value is that of the draw itself, so that losses and all that others see are those of the distribution.
    """

    pathwise: ClassVar[bool] = True
    held: ClassVar[bool] = True

    @abstractmethod
    def soft(self, logits: jax.Array, drawn: jax.Array, rng_key: jax.Array) -> jax.Array:
        """What stands in for w under the derivative in the logits `[..., K]`, given the one-hot draw."""

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        own, other = jax.random.split(noise)
        logits = logits_of(q)
        drawn = jax.nn.one_hot(jax.random.categorical(own, stop(logits)), logits.shape[-1], dtype=logits.dtype)
        soft = self.soft(logits, drawn, other)
        w = drawn + soft - stop(soft)
        log_q = jnp.sum(w * stop(logits), -1)
        return Draw(value_of(w), log_q=jnp.sum(log_q, tuple(range(len(q.batch_shape), log_q.ndim))))


def logits_of(q: Distribution) -> jax.Array:
    """log q of the values 0 and 1 of each number of a draw, `[*shape, 2]`, with its gradient in q's parameters."""
    logit = logit_of(q)
    return jnp.stack([jax.nn.log_sigmoid(-logit), jax.nn.log_sigmoid(logit)], -1)


def value_of(w: jax.Array) -> jax.Array:
    """The value of a site that weights of its values stand for."""
    return w[..., 1]


def gumbels(rng_key: jax.Array, like: jax.Array) -> jax.Array:
    """Standard Gumbels g: argmax (logits + g) is a draw."""
    return jax.random.gumbel(rng_key, like.shape, like.dtype)


def given(logits: jax.Array, drawn: jax.Array, rng_key: jax.Array, count: int) -> jax.Array:
    """`count` draws `[count, ..., K]` of logits + Gumbels given that their argmax is the one-hot `drawn`, where the
    logits are those of probabilities that sum to one: Maddison and Tarlow (2017), "Gumbel machinery"."""
    e = jax.random.exponential(rng_key, (count, *logits.shape), logits.dtype)
    top = jnp.sum(e * drawn, -1, keepdims=True)
    rest = jnp.where(drawn > 0, 0, e * jnp.exp(-logits))
    return -jnp.log(top + rest)


def softmax_slope(z: jax.Array, temperature: float) -> jax.Array:
    """The Jacobian of softmax(z / temperature), `[..., K, K]`."""
    p = jax.nn.softmax(z / temperature, -1)
    return (p[..., None] * jnp.eye(p.shape[-1], dtype=p.dtype) - p[..., :, None] * p[..., None, :]) / temperature


def check_temperature(temperature: Any) -> None:
    """Raises ValueError unless it is a positive number, or a function of the step."""
    if not callable(temperature) and not temperature > 0:
        raise ValueError(f"temperature: expected a positive number or a function of the step, got {temperature}")
