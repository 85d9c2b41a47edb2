"""The score-function estimator with baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.distributions.registry import drawn
from autovi.estimators.base import Baselined, Cost, Density, Draw, Facts, Scalar
from autovi.families.base import Layout

OPTIMAL = "optimal"


@dataclass(frozen=True)
class Score(Baselined):
    """d/dtheta E f(z) = E (f(z) - b) d/dtheta log q(z; theta), b the baseline.

    Needs no derivative of the cost and no differentiable draw, only a support that does not move with theta. The cost
    f holds the terms downstream of the site alone, element by element: log q, unscaled and unmasked, and f are
    `[particles, *batch]` (f of size 1 where elements cannot be told apart), and the surrogate is the sum over elements,
    mean over particles, of log q(z) stop(f - b). Unbiased for every baseline, since none holds the particle's own cost.
    Williams (1992), "Simple statistical gradient-following algorithms"; Ranganath, Gerrish and Blei (2014), "Black Box
    Variational Inference", section 3; Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE Samples, Get a Baseline for
    Free!", for leave-one-out; for the optimal constant Ranganath et al., section 3.2.

    Args:
        baseline: "none", "moving_average" (of past costs), "leave_one_out" (mean of the other particles), "optimal"
            (for each coordinate of q's parameters the constant of least variance, by the other particles), "network"
            (a small one of `inputs`), or a module, a pair (init, apply) or a function of your own: see `Baselined`.
            Mnih and Gregor (2014), "Neural Variational Inference and Learning in Belief Networks", for networks.
        inputs: what a network or function reads, by name: data, sites above, deterministic values.
        learning_rate: of Adam, for a network.

    Raises:
        ValueError: an unknown baseline, or one that reads inputs without any.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "score", "baseline": "moving_average"}})
        >>> autovi.fit(model, data, estimators={"z": {"baseline": "network", "inputs": "x"}})
    """

    name: ClassVar[str] = "score"
    sequential: ClassVar[bool] = True
    special: ClassVar[tuple[str, ...]] = (OPTIMAL,)
    num_particles: ClassVar[int] = 8

    @property
    def _is_optimal(self) -> bool:
        return isinstance(self.baseline, str) and self.baseline == OPTIMAL

    def refuses(self, facts: Facts) -> str | None:
        gradients = facts.gradients
        if gradients.moving_support:
            moving = ", ".join(gradients.moving_support)
            return f"its support depends on its parameter {moving}, and the score misses what the moving edge does"
        if gradients.observation_only:
            return "its log density is not that of its draws"
        return None

    @property
    def local_costs(self) -> bool:
        return isinstance(self.baseline, str) and self.baseline in ("leave_one_out", OPTIMAL)

    @property
    def min_particles(self) -> int:
        return 3 if self._is_optimal else super().min_particles

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.identity() if self._is_optimal else super().optimizer

    def init(self, rng_key: jax.Array, layout: Layout) -> Any:
        return () if self._is_optimal else super().init(rng_key, layout)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(jax.lax.stop_gradient(drawn(noise, q)))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        if self._is_optimal:
            return by_coordinate(q, draw.value, cost), jnp.zeros(())
        return self.scored(q.log_prob(draw.value), cost, params)


def by_coordinate(q: Density, value: Any, cost: Cost) -> Scalar:
    """The surrogate with the best constant baseline of each parameter's coordinate, from the other particles.

    With G_k the gradient of sum log q(z_k) f_k and S_k that of sum log q(z_k), the estimate is the mean of G_k - a S_k,
    a = E[G S] / E[S^2] over the others.
    """
    leaves, tree = jax.tree.flatten(q.distribution)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

    def scored(weights: jax.Array) -> list[jax.Array]:
        def total(own: list[jax.Array]) -> jax.Array:
            given = dict(zip(places, own, strict=True))
            moved = jax.tree.unflatten(tree, [given.get(i, leaf) for i, leaf in enumerate(leaves)])
            return jnp.sum(jax.vmap(log_density)(moved, value) * weights)

        return jax.grad(total)([jax.lax.stop_gradient(leaves[i]) for i in places])

    weighted, plain = scored(jax.lax.stop_gradient(cost.value)), scored(jnp.ones_like(cost.value))
    total = jnp.zeros(())
    for place, g, s in zip(places, weighted, plain, strict=True):
        estimate = jax.lax.stop_gradient(g - _slope_of_others(g, s) * s)
        total += jnp.sum(leaves[place] * estimate) / estimate.shape[0]
    return total


def _slope_of_others(g: jax.Array, s: jax.Array) -> jax.Array:
    """E[g s] / E[s^2] over all particles but one, which is Cov(g, s) / Var(s) since a score has mean zero, and is known
    also where the others are all alike; 0 where their scores are zero."""
    others = lambda x: jnp.sum(x, 0, keepdims=True) - x  # noqa: E731
    squares = others(s * s)
    known = squares > 0
    return jnp.where(known, others(g * s) / jnp.where(known, squares, 1), 0)
