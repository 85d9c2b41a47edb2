"""Measure-valued gradients: differences of the cost between draws of two distributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar

stop = jax.lax.stop_gradient
Values = tuple[jax.Array, ...]


@dataclass(frozen=True)
class MeasureValued(Estimator):
    """d/dt E f(z) = c (E f(z+) - E f(z-)), z+ and z- of two distributions that the derivative of q is made of.

    | q | parameter | z+ and z- | c |
    |---|---|---|---|
    | Bernoulli | p | 1 and 0 | 1 |
    | Poisson | rate | z + 1 and z | 1 |
    | Normal | loc | loc + scale W and loc - scale W, W Rayleigh | 1 / (scale sqrt(2 pi)) |
    | Normal | scale | loc + scale M and loc + scale N, M double-sided Maxwell, N normal | 1 / scale |
    | Exponential | rate | z and z + z', z' another draw | 1 / rate |

    Two evaluations for each parameter and particle; unbiased, for costs that need not be differentiable. All elements
    are evaluated at once, so that costs must be told apart by element; events of several numbers are refused.
    Pflug (1996), "Optimization of Stochastic Models"; Mohamed, Rosca, Figurnov and Mnih (2020), "Monte Carlo Gradient
    Estimation in Machine Learning", section 6 and table 1.

    Example:
        >>> autovi.fit(model, data, estimators={"count": "measure_valued"})
    """

    name: ClassVar[str] = "measure_valued"
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution not in PAIRS:
            return f"it is for {', '.join(sorted(PAIRS))} sites only"
        return facts.entangled

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if q.event_shape:
            raise ValueError(
                f"estimator {self.name!r}: it needs a cost for each number, and the numbers of an event share one: "
                f"got events of shape {q.event_shape}; put the site in a plate, or ask for another estimator"
            )
        own, pair = jax.random.split(noise)
        value = stop(q(rng_key=own))
        return Draw(value, aux=tuple(map(stop, _pairs_of(q).draws(pair, q, value))))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        coefficients = q.over(_pairs_of(q.distribution).coefficients)
        costs = [stop(cost.at(value)) for value in draw.aux]
        total = sum(
            jnp.sum(parameter * stop(factor) * (up - down))
            for (parameter, factor), up, down in zip(coefficients, costs[::2], costs[1::2], strict=True)
        )
        return jnp.asarray(total) / draw.value.shape[0], jnp.zeros(())


class Pairs:
    """What a distribution's derivative is made of: `draws(key, q, value)` are z+ and z- of each parameter, one after
    the other, and `coefficients(q)` each parameter, with its gradient, and c."""

    def __init__(
        self,
        draws: Callable[[jax.Array, Distribution, jax.Array], Values],
        coefficients: Callable[[Distribution], tuple[tuple[jax.Array, jax.Array], ...]],
    ):
        self.draws, self.coefficients = draws, coefficients


def _pairs_of(q: Distribution) -> Pairs:
    while hasattr(q, "base_dist"):
        q = q.base_dist
    return next(PAIRS[kind.__name__] for kind in type(q).__mro__ if kind.__name__ in PAIRS)


def _normal(key: jax.Array, q: Distribution, value: jax.Array) -> Values:
    keys, shape = jax.random.split(key, 4), jnp.shape(value)
    loc, scale = q.mean, jnp.sqrt(q.variance)
    rayleigh = jnp.sqrt(-2 * jnp.log1p(-jax.random.uniform(keys[0], shape, value.dtype)))
    maxwell = jnp.linalg.norm(jax.random.normal(keys[1], (3, *shape), value.dtype), axis=0)
    maxwell *= jax.random.rademacher(keys[2], shape, value.dtype)
    # The normal draw of the second pair shares the Maxwell's direction: far apart in the same sense.
    normal = maxwell * jax.random.uniform(keys[3], shape, value.dtype)
    return loc + scale * rayleigh, loc - scale * rayleigh, loc + scale * maxwell, loc + scale * normal


def _normal_coefficients(q: Distribution) -> tuple[tuple[jax.Array, jax.Array], ...]:
    scale = jnp.sqrt(q.variance)
    return (q.mean, 1 / (scale * np.sqrt(2 * np.pi))), (scale, 1 / scale)


def _exponential(key: jax.Array, q: Distribution, value: jax.Array) -> Values:
    return value, value + q(rng_key=key)


def _ones(key: jax.Array, q: Distribution, value: jax.Array) -> Values:
    return jnp.ones_like(value), jnp.zeros_like(value)


def _bernoulli_coefficients(q: Distribution) -> tuple[tuple[jax.Array, jax.Array], ...]:
    p = q.mean
    return ((p, jnp.ones_like(p)),)


_BERNOULLI = Pairs(_ones, _bernoulli_coefficients)

PAIRS: dict[str, Pairs] = {
    "BernoulliLogits": _BERNOULLI,
    "BernoulliProbs": _BERNOULLI,
    "Poisson": Pairs(lambda key, q, value: (value + 1, value), lambda q: ((q.mean, jnp.ones(q.shape())),)),
    "Normal": Pairs(_normal, _normal_coefficients),
    "Exponential": Pairs(_exponential, lambda q: ((1 / q.mean, q.mean),)),
}
