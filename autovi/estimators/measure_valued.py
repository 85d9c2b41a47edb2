"""Measure-valued gradients: differences of the cost between draws of two distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.registry import drawn, is_discrete
from autovi.distributions.weak_derivatives import WEAK_DERIVATIVES, weak_derivative
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar, of_possible

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class MeasureValued(Estimator):
    """d/dt E f(z) = c (E f(z+) - E f(z-)), z+ and z- of two distributions that the derivative of q is made of.

    | q | parameter | z+ and z- | c |
    |---|---|---|---|
    | Bernoulli | p | 1 and 0 | 1 |
    | Binomial of n | p | b + 1 and b, b of n - 1 | n |
    | Poisson | rate | z + 1 and z | 1 |
    | Geometric | p | z and z + 1 + z', z' another draw | 1 / p |
    | Normal | loc | loc + scale W and loc - scale W, W Rayleigh | 1 / (scale sqrt(2 pi)) |
    | Normal | scale | loc + scale M and loc + scale N, M double-sided Maxwell, N normal | 1 / scale |
    | Laplace | loc | loc + abs(z - loc) and loc - abs(z - loc) | 1 / (2 scale) |
    | Exponential | rate | z and z + z', z' another draw | 1 / rate |
    | Gamma | rate | z and z + an exponential of that rate | concentration / rate |
    | Gamma | concentration | z + n^2 / (2 rate) and z, n normal | sqrt(2 pi) / abs(n) |

    and Beta, Chi2, HalfNormal, InverseGamma, LogNormal, Weibull and the negative binomials: all of them, formula by
    formula, are in `autovi/distributions/weak_derivatives.py`. One or two evaluations for each parameter and particle;
    unbiased, for costs that need not be differentiable. All elements are evaluated at once, so that costs must be told
    apart by element; events of several numbers are refused. Pflug (1996), "Optimization of Stochastic Models"; Mohamed,
    Rosca, Figurnov and Mnih (2020), "Monte Carlo Gradient Estimation in Machine Learning", section 6 and table 1.

    Example:
        >>> autovi.fit(model, data, estimators={"count": "measure_valued"})
    """

    name: ClassVar[str] = "measure_valued"
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution not in WEAK_DERIVATIVES:
            return f"it is for {', '.join(sorted(WEAK_DERIVATIVES))} sites only"
        return facts.entangled

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if q.event_shape:
            raise ValueError(
                f"estimator {self.name!r}: it needs a cost for each number, and the numbers of an event share one: "
                f"got events of shape {q.event_shape}; put the site in a plate, or ask for another estimator"
            )
        own, pair = jax.random.split(noise)
        value = stop(drawn(own, q))
        weak, inside = weak_derivative(stop(q))
        pairs = weak.pairs(pair, inside, value)
        return Draw(value, aux=[p._replace(constant=jnp.broadcast_to(p.constant, value.shape)) for p in pairs])

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        def parameters(q: Distribution) -> list[jax.Array]:
            weak, inside = weak_derivative(q)
            return [jnp.broadcast_to(parameter, q.shape()) for parameter in weak.parameters(inside)]

        def at(value: jax.Array) -> jax.Array:
            costs = stop(cost.at(value))
            if not is_discrete(q.distribution):
                return costs
            return of_possible(costs, jnp.where(jnp.isneginf(q.log_prob(value)), 0, 1))

        total = jnp.zeros(())
        for parameter, pair in zip(q.over(parameters), draw.aux, strict=True):
            down = cost.value if pair.down is None else at(pair.down)
            total += jnp.sum(parameter * pair.constant * (at(pair.up) - down))
        return total / draw.value.shape[0], jnp.zeros(())
