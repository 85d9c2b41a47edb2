"""Simultaneous perturbation: all of q's parameters moved at once, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, biject_to

from autovi.distributions.registry import drawn
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class SPSA(Estimator):
    """d/du_j E f(z) is taken to be (f(z(u + c D)) - f(z(u - c D))) / (2 c D_j), D_j = -1 or 1 with equal chances.

    u are the parameters of q's distribution, on the real line (of a scale the logarithm), all moved at once, and both
    draws are made from the same noise. Nothing is asked of the distribution or of the cost but that they can be
    evaluated: two evaluations, whatever the number of parameters. Biased by c^2 / 6 times third derivatives of E f,
    noisy as the number of parameters, and as 1 / c where draws jump with u: a last resort, and something to test other
    estimators against. f holds log q at u as it is, since the derivative of log q at a draw has mean zero. It is the
    cost of all elements together. Spall (1992), "Multivariate Stochastic Approximation Using a Simultaneous
    Perturbation Gradient Approximation", equation 2.2.

    Args:
        step: c.

    Raises:
        ValueError: a step that is not positive.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "spsa"}, allow_bias=True)
    """

    step: float = 0.05

    name: ClassVar[str] = "spsa"
    biased: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step: expected a positive number, got {self.step}")

    def refuses(self, facts: Facts) -> str | None:
        if facts.gradients.moving_support:
            moving = ", ".join(facts.gradients.moving_support)
            return f"its support depends on its parameter {moving}, and log q as it is does not hold beyond it"
        return "its log density is not that of its draws" if facts.gradients.observation_only else None

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        own, signs = jax.random.split(noise)
        q = stop(q)
        at = free(q)
        keys = jax.random.split(signs, max(len(at), 1))
        moves = [jax.random.rademacher(k, u.shape, u.dtype) for k, u in zip(keys, at, strict=False)]
        ahead = [with_free(q, [u + s * self.step * d for u, d in zip(at, moves, strict=True)]) for s in (1, -1)]
        return Draw(drawn(own, q), aux=(*(drawn(own, p) for p in ahead), moves))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        up, down, moves = draw.aux
        slope = stop(cost.total(up) - cost.total(down)) / (2 * self.step * draw.value.shape[0])
        along = [jnp.tensordot(slope, u * d, 1).sum() for u, d in zip(q.over(free), moves, strict=True)]
        return sum(along, start=jnp.zeros(())), jnp.zeros(())


def free(q: Distribution) -> list[jax.Array]:
    """The floating parameters of a distribution on the real line, as far as their constraints are known."""
    return [onto.inv(leaf) if onto else leaf for _, leaf, onto in _places(q)]


def with_free(q: Distribution, values: list[jax.Array]) -> Distribution:
    """The distribution with these instead."""
    leaves, tree = jax.tree.flatten(q)
    for (place, _, onto), value in zip(_places(q), values, strict=True):
        leaves[place] = onto(value) if onto else value
    return jax.tree.unflatten(tree, leaves)


def _places(q: Distribution) -> list[tuple[int, jax.Array, Any]]:
    """Place, value and bijection (None: not known) of every floating parameter."""
    onto = dict(_bijections(q))
    known = [(i, jnp.asarray(leaf), onto.get(id(leaf))) for i, leaf in enumerate(jax.tree.leaves(q))]
    return [place for place in known if jnp.issubdtype(place[1].dtype, jnp.floating)]


def _bijections(fn: Any) -> Iterator[tuple[int, Any]]:
    for name, value in vars(fn).items():
        inside = value if isinstance(value, list | tuple) else [value]
        for part in inside:
            if isinstance(part, Distribution):
                yield from _bijections(part)
        constraint = fn.arg_constraints.get(name)
        if constraint is not None and not isinstance(value, Distribution):
            try:
                yield id(value), biject_to(constraint)
            except NotImplementedError:  # a constraint that depends on other parameters
                continue
