"""RODEO: leave-one-out with control variates made by a discrete Stein operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import along, each, of_others, summed_like
from autovi.estimators.control import (
    coefficients,
    evaluate,
    moments,
    moments_loss,
    network,
    optimizer,
    seen,
    seen_loss,
    standardized,
)
from autovi.estimators.sloped import Drawn, Sloped, at_draws, beside, placed
from autovi.families.base import Layout


@dataclass(frozen=True)
class Rodeo(Sloped):
    """d/dl E f(w) = E 1/K sum_k (f(w_k) - mean_{j != k} (f(w_j) + a (A h_j)(w_j))) s(w_k) + c (A h_k s)(w_k),

    w the draws as one-hot vectors, l the logits of p, s(w) = w - p, and the operator (A h)(w) = sum_i sum_v p_i(v)
    (h(w with v at i) - h(w)), of mean zero for every h. h_k is the cost as the other particles know it: h_k(y) =
    mean_{j != k} f'(w_j) . (y - p), and a network of f(w_j) and of f(w_j) + f'(w_j) . (y - w_j), each with an a and a c
    of its own. For Bernoulli sites whose cost can be differentiated at 0 and 1, and categorical ones of which the model
    makes what is linear in w; one evaluation with its gradient for each particle, at least two, and none at other
    values. Unbiased for every a, c and network: a and c are the regression coefficients of least variance by past
    steps, the network is trained on the square of the estimate.
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

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.rate, self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        return {"moments": moments(4) | seen(), "network": network(rng_key, 2, self.width)}

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        drawn, f, known = at_draws(q, draw, cost), cost.value, params["moments"]
        w, score = drawn.w, drawn.score
        plain = each(f - of_others(f), w) * score

        def controls(at: jax.Array, moved: jax.Array) -> list[jax.Array]:
            """By h_k at w_k, with the size of the cost, and with each number at each of its other values."""
            steined = summed_like(drawn.away * (moved - each(at, w)), f)
            turned = drawn.away * moved
            turned = placed(turned, drawn.place) - w * jnp.sum(turned, -1, keepdims=True)
            return [-each(of_others(steined), w) * score, each(steined, w) * score + turned]

        slope = of_others(drawn.slope)
        linear = summed_like(slope * score, f)
        both = controls(linear, beside(linear, slope, drawn)) + controls(*self.learned(params, drawn, f))
        factors = coefficients(known, [0.0] * 4)
        estimate = plain + sum(a * c for a, c in zip(factors, both, strict=True))
        loss = 0.5 * jnp.sum(jnp.mean(estimate, 0) ** 2) + seen_loss(known, f)
        averages = [jnp.mean(x, 0) for x in (plain, *both)]
        return along(estimate, drawn.logits), loss + moments_loss(known, averages[0], averages[1:])

    def learned(self, params: Any, drawn: Drawn, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The network's h_k, as `controls` takes it: the mean over the other particles."""

        def h(x: jax.Array, value: jax.Array) -> jax.Array:
            pair = (x, jnp.broadcast_to(each(value, x), x.shape))
            return evaluate(params["network"], jnp.stack([standardized(params["moments"], one) for one in pair], -1))

        at, moved = [], []
        for shift in range(1, len(f)):
            value, where, slope = (jnp.roll(x, shift, 0) for x in (f, drawn.w, drawn.slope))
            linear = value + summed_like(slope * (drawn.w - where), f)
            at.append(h(linear, value))
            moved.append(h(beside(linear, slope, drawn), value))
        return jnp.mean(jnp.stack(at), 0), jnp.mean(jnp.stack(moved), 0)
