"""What estimators of sites that take one of a few values have in common: their values as one-hot vectors w."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.distributions.registry import strip
from autovi.estimators.base import Draw, Estimator, Facts
from autovi.estimators.binary import BERNOULLI
from autovi.estimators.categories import CATEGORICAL, log_probs
from autovi.families.base import Layout

stop = jax.lax.stop_gradient
LEAST = -80.0  # of a logit whose exponential is divided by, in float32


def refuses_weights(facts: Facts) -> str | None:
    """Why the values of a site cannot be written as one-hot vectors."""
    known = facts.distribution in (*BERNOULLI, *CATEGORICAL)
    return None if known else "it is for Bernoulli and categorical sites only"


@dataclass(frozen=True)
class Biased(Estimator):
    """A biased estimator that takes the derivative of the cost in w, one-hot vectors at the draws."""

    on_request: ClassVar[bool] = True
    biased: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return refuses_weights(facts)


@dataclass(frozen=True)
class Tempered(Biased):
    """A biased estimator whose draws are relaxed at a temperature, a number or a function of the step."""

    temperature: float | Callable[[Any], Any] = 0.5

    sees_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.temperature) and not self.temperature > 0:
            raise ValueError(
                f"temperature: expected a positive number or a function of the step, got {self.temperature}"
            )

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, jax.Array]:
        return {"step": jnp.zeros(())} if callable(self.temperature) else {}

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Counts the steps."""
        one_more = lambda updates, state, params=None: (jax.tree.map(jnp.ones_like, updates), state)  # noqa: E731
        return optax.GradientTransformation(lambda params: optax.EmptyState(), one_more)

    def relaxed_at(self, z: jax.Array, params: Any) -> jax.Array:
        """softmax(z / tau), tau the temperature of this step."""
        asked = self.temperature
        tau = asked(stop(params["step"])) if callable(asked) else asked
        return jax.nn.softmax(z / jnp.asarray(tau, z.dtype), -1)


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
        logits = log_probs(q)
        drawn = jax.nn.one_hot(jax.random.categorical(own, stop(logits)), logits.shape[-1], dtype=logits.dtype)
        soft = self.soft(logits, drawn, other)
        w = drawn + (soft - stop(soft))  # the bracket is zero to the last digit
        log_q = jnp.sum(w * stop(logits), -1)
        return Draw(value_of(q, w), log_q=jnp.sum(log_q, tuple(range(len(q.batch_shape), log_q.ndim))))


def is_bernoulli(q: Distribution) -> bool:
    """Is the value one number, the weight of 1? Of a categorical it is w itself."""
    return type(strip(q)).__name__ in BERNOULLI


def value_of(q: Distribution, w: jax.Array) -> jax.Array:
    """The value of a site that weights of its values stand for."""
    return w[..., 1] if is_bernoulli(q) else w


def gumbels(rng_key: jax.Array, like: jax.Array) -> jax.Array:
    """Standard Gumbels g: argmax (logits + g) is a draw. In the mode that has digits far in the upper tail, where the
    draws of values with logits below -16 come from."""
    return jax.random.gumbel(rng_key, like.shape, like.dtype, mode="high")


def given(logits: jax.Array, drawn: jax.Array, e: jax.Array) -> jax.Array:
    """logits + Gumbels given that their argmax is the one-hot `drawn`, made of standard exponentials e; the logits are
    those of probabilities that sum to one. Maddison and Tarlow (2017), "Gumbel machinery"."""
    e = jnp.maximum(e, jnp.finfo(e.dtype).eps / 2)  # one draw in 2^24 is 0, and its logarithm infinite
    top = jnp.sum(e * drawn, -1, keepdims=True)
    rest = jnp.where(drawn > 0, 0, e * jnp.exp(-jnp.maximum(logits, LEAST)))
    return -jnp.log(top + rest)


def softmax_slope(z: jax.Array, temperature: float) -> jax.Array:
    """The Jacobian of softmax(z / temperature), `[..., K, K]`."""
    p = jax.nn.softmax(z / temperature, -1)
    return (p[..., None] * jnp.eye(p.shape[-1], dtype=p.dtype) - p[..., :, None] * p[..., None, :]) / temperature
