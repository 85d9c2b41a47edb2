"""RODEO: leave-one-out with control variates made by a discrete Stein operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import Binary, along, each, logit_of, of_others, slopes, summed_like
from autovi.estimators.control import coefficients, evaluate, moments, moments_loss, network, optimizer
from autovi.families.base import Layout

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class Rodeo(Binary):
    """d/dl E f(b) = E 1/K sum_k (f(b_k) - mean_{j != k} (f(b_j) + a (A h_j)(b_j))) s(b_k) + c (A h_k s)(b_k),

    s(b) = b - p, with the operator (A h)(b) = sum_i q(i flipped | the rest) (h(b with i flipped) - h(b)), of mean zero
    for every h. h_k is the cost as the other particles know it: h_k(y) = mean_{j != k} f'(b_j) . (y - p), and a network
    of f(b_j) and of f(b_j) + f'(b_j) . (y - b_j), each with an a and a c of its own. For Bernoulli sites whose cost can
    be differentiated at 0 and 1; one evaluation with its gradient for each particle, at least two, and none at the
    flipped values. Unbiased for every a, c and network: a and c are the regression coefficients of least variance by
    past steps, the network is trained on the square of the estimate.
    Shi, Zhou, Hwang, Titsias and Mackey (2022), "Gradient Estimation with Discrete Stein Operators", section 4.

    Args:
        width: hidden units of the network.
        learning_rate: of Adam, for the network.
        rate: at which the moments behind a and c forget past steps.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "rodeo"})
    """

    width: int = 10
    learning_rate: float = 0.01
    rate: float = 0.02

    name: ClassVar[str] = "rodeo"
    relaxed: ClassVar[bool] = True

    @property
    def min_particles(self) -> int:
        return 2

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.rate, self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        seen = {"mean": jnp.zeros(()), "variance": jnp.zeros(())}
        return {"moments": moments(4) | seen, "network": network(rng_key, 2, self.width)}

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(stop(q(rng_key=noise)).astype(float))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        logit, b, f, known = q.over(logit_of), draw.value, cost.value, params["moments"]
        p = stop(jax.nn.sigmoid(logit))
        slope, change = stop(slopes(cost, b)), 1 - 2 * b
        flip = b * (1 - p) + (1 - b) * p
        plain = each(f - of_others(f), b) * (b - p)

        def controls(at: jax.Array, flipped: jax.Array) -> list[jax.Array]:
            """By h_k at b_k, with the size of the cost, and with each number flipped."""
            steined = summed_like(flip * (flipped - each(at, b)), f)
            return [-each(of_others(steined), b) * (b - p), each(steined, b) * (b - p) + flip * change * flipped]

        linear = summed_like(of_others(slope) * (b - p), f)
        both = controls(linear, each(linear, b) + of_others(slope) * change)
        both += controls(*self.learned(params, b, f, slope))
        factors = coefficients(known, [0.0] * 4)
        estimate = plain + sum(a * c for a, c in zip(factors, both, strict=True))
        share = jnp.where(known["weight"] > 0, known["weight"], 1)
        seen = (known["mean"] - jnp.mean(f)) ** 2 + (
            known["variance"] - jnp.mean((f - stop(known["mean"] / share)) ** 2)
        ) ** 2
        loss = 0.5 * (jnp.sum(jnp.mean(estimate, 0) ** 2) + seen)
        averages = [jnp.mean(x, 0) for x in (plain, *both)]
        return along(estimate, logit), loss + moments_loss(known, averages[0], averages[1:])

    def learned(self, params: Any, b: jax.Array, f: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The network's h_k at b_k, and with each number flipped: the mean over the other particles."""
        known = params["moments"]
        share = jnp.where(known["weight"] > 0, known["weight"], 1)
        mean, variance = stop((known["mean"] / share, known["variance"] / share))
        standard = lambda x: (x - mean) / jnp.sqrt(jnp.where(variance > 0, variance, 1))  # noqa: E731
        at, flipped = [], []
        for shift in range(1, b.shape[0]):
            other, value, where = (jnp.roll(x, shift, 0) for x in (slope, f, b))
            linear = value + summed_like(other * (b - where), f)
            beside = each(linear, b) + other * (1 - 2 * b)
            h = lambda x, value=value: evaluate(  # noqa: E731
                params["network"], jnp.stack([standard(x), jnp.broadcast_to(standard(each(value, x)), x.shape)], -1)
            )
            at.append(h(linear))
            flipped.append(h(beside))
        return jnp.mean(jnp.stack(at), 0), jnp.mean(jnp.stack(flipped), 0)
