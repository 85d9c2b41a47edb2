"""RELAX for permutations: Gumbels whose order is the draw, and Gumbels given that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.distributions.permutations import left, log_prob
from autovi.distributions.registry import strip
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar
from autovi.estimators.binary import along, summed_like
from autovi.families.base import Layout

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class RelaxPermutation(Estimator):
    r"""d/dl E f(b) = E (f(b) - c(z~) - a) d/dl log q(b) + dc(z)/dl - dc(z~)/dl, c a network of perturbed logits.

    For Plackett-Luce sites; one evaluation of the cost for each particle, at permutations only. z = l + g, g standard
    Gumbels, b is the order of z from the largest on, and z~ is z given b, by n exponentials E_j:

    .. math:: \tilde z_{b_i} = -\log \sum_{j \le i} E_j / \sum_{k \ge j} e^{l_{b_k}}.

    Unbiased for every c, which is trained on the square of the estimate; it sees differences of z alone. a is the mean
    of f(b) - c(z~) over the other particles, if there are any: with c = 0, as it starts, this is `score`.
    Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the Void", section 3; Gadetsky,
    Struminsky, Robinson, Quadrianto and Vetrov (2020), "Low-variance Black-box Gradient Estimates for the Plackett-Luce
    Distribution", section 4.

    Args:
        width: hidden units of c.
        learning_rate: of Adam, for c.

    Raises:
        ValueError: a width that is not positive.

    Example:
        >>> autovi.fit(model, data, estimators={"order": "relax_permutation"})
    """

    width: int = 32
    learning_rate: float = 0.01

    name: ClassVar[str] = "relax_permutation"
    on_request: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width: expected a positive number, got {self.width}")

    def refuses(self, facts: Facts) -> str | None:
        return None if facts.distribution == "PlackettLuce" else "it is for Plackett-Luce sites only"

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, jax.Array]:
        weights = jax.random.normal(rng_key, (*layout.event_shape, self.width)) / layout.event_shape[0] ** 0.5
        return {"in": weights, "bias": jnp.zeros(self.width), "out": jnp.zeros(self.width)}

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> jax.Array:
        return jnp.maximum(jax.random.exponential(rng_key, (num_particles, 2, *shape)), jnp.finfo(float).tiny)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        perturbed = stop(logits_of(q)) - jnp.log(noise[0])
        return Draw(jnp.argsort(-perturbed, -1), aux=noise)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logits, b = q.over(logits_of), draw.value
        at, (own, other) = stop(logits), jnp.moveaxis(draw.aux, 1, 0)

        def c(z: jax.Array) -> jax.Array:
            z = z - jnp.mean(z, -1, keepdims=True)
            return jnp.tanh(z @ params["in"] + params["bias"]) @ params["out"]

        slope = jax.grad(lambda logits, relaxed: jnp.sum(c(relaxed(logits))))
        free = lambda logits: logits - jnp.log(own)  # noqa: E731
        bound = lambda logits: given(logits, b, other)  # noqa: E731
        score = jax.grad(lambda logits: jnp.sum(log_prob(logits, b)))(at)
        rest = cost.value - summed_like(c(bound(at)), cost.value)
        if (k := rest.shape[0]) > 1:
            rest = (rest - jnp.mean(rest, 0, keepdims=True)) * k / (k - 1)
        estimate = rest[..., None] * score + slope(at, free) - slope(at, bound)
        return along(estimate, logits), jnp.sum(jnp.mean(estimate**2, 0))


def logits_of(q: Distribution) -> jax.Array:
    """The log weights of the items, `[*batch, n]`."""
    return jnp.broadcast_to(strip(q).logits, q.shape())


def given(logits: jax.Array, order: jax.Array, exponentials: jax.Array) -> jax.Array:
    """The logits plus Gumbels, given that `order` is theirs."""
    steps = jnp.log(exponentials) - left(logits, order)
    descending = -jax.lax.cumlogsumexp(steps, axis=steps.ndim - 1)
    return jnp.take_along_axis(descending, jnp.argsort(order, -1), -1)
