"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from autovi.estimators.base import Estimator

Weights = Float[Array, " particles"]
Scalar = Float[Array, ""]


@dataclass(frozen=True)
class Objective(ABC):
    """What is maximized: a function of the particles' log weights log p(x, z) - log q(z), in nats.

    Where it is their mean, every site has a cost of its own, the terms downstream of it (`local_costs`). Where it is
    not, every site's score is multiplied by the same `signal`, the gradient through draws that are `doubly`
    reparameterized by `through`, and log q of a draw at a fixed value is no mere noise.
    """

    name: ClassVar[str]
    local_costs: ClassVar[bool]
    drawn_by: ClassVar[str] = "guide function"  # who draws where the plan's blocks do not
    counted: ClassVar[str] = "num_particles"  # the argument that says how many particles there are

    @abstractmethod
    def value(self, log_weights: Weights) -> Scalar:
        """The estimate of the objective from one set of particles, differentiable in the log weights."""

    @abstractmethod
    def refuses(self, estimator: Estimator) -> str | None:
        """Why the estimator would be wrong under this objective: None when it is right."""

    def signal(self, log_weights: Weights) -> Weights:
        """What the score of each particle is multiplied by, for a mean over particles; without local costs only."""
        raise TypeError(f"{type(self).__name__}: it has local costs")

    def taken(self, estimator: Estimator, num_particles: int | None) -> Estimator:
        """What the rules take for an estimator with its default options, of which nobody has said anything."""
        return estimator

    def through(self, log_weights: Weights) -> Weights:
        """What the gradient through a draw is multiplied by, beside the particle's weight in `value`, that makes up for
        the score of q which estimators that are `doubly` leave out; without local costs only."""
        raise TypeError(f"{type(self).__name__}: it has local costs")

    @property
    def in_parts(self) -> bool:
        """Is its expectation over batches that of the whole, where the terms of a batch are scaled?"""
        return True

    @property
    def closed(self) -> frozenset[str]:
        """The kinds of cost terms, "p" of priors and "q", that are taken in closed form where that is known."""
        return frozenset()

    @property
    def min_particles(self) -> int:
        """The number of particles below which it cannot work."""
        return 1

    @property
    def group_size(self) -> int:
        """The number of which that of the particles must be a multiple."""
        return 1


class Weighted(Objective):
    """E 1/b log (1/K sum_k w_k^b), w_k = p(x, z_k) / q(z_k), b the `power`: the mean log weight where b is 0.

    The gradient through the draws weights particle k by v_k = w_k^b / sum w^b. Sites with the score function get
    VIMCO's signal, L - L_{-k}, where L_{-k} has the geometric mean of the other weights in the place of w_k: Mnih and
    Rezende (2016), "Variational Inference for Monte Carlo Objectives", equation 10. That holds a baseline of its own,
    so that one made of the other particles would be wrong on top of it, as they are part of L. Draws that are `doubly`
    reparameterized have v_k (1 - b + b v_k) in the place of v_k: Tucker, Lawson, Gu and Maddison (2019), "Doubly
    Reparameterized Gradient Estimators", section 5.

    K is `num_samples`, or all particles of a step; of several groups of K the mean is taken.
    """

    local_costs: ClassVar[bool] = False
    num_samples: int | None

    def __post_init__(self) -> None:
        if self.num_samples is not None and (not isinstance(self.num_samples, int) or self.num_samples < 2):
            raise ValueError(f"num_samples: expected an integer of at least 2 or None, got {self.num_samples!r}")

    @property
    @abstractmethod
    def power(self) -> float:
        """b."""

    def value(self, log_weights: Weights) -> Scalar:
        return jnp.mean(jax.vmap(self._bound)(self._groups(log_weights)))

    def signal(self, log_weights: Weights) -> Weights:
        return jnp.ravel(jax.vmap(self._signal)(self._groups(log_weights)))

    def through(self, log_weights: Weights) -> Weights:
        share = jax.nn.softmax(self.power * self._groups(log_weights), axis=1)
        return jnp.ravel(1 - self.power + self.power * share)

    def refuses(self, estimator: Estimator) -> str | None:
        if estimator.integrates and not estimator.marginalizes:
            return "the expectation of a weighted mean over one site's values is not the mean of its terms"
        if estimator.held and not estimator.doubly:
            return "the part of the gradient that it leaves out has mean zero, but not weighted by the particles"
        if estimator.corrected:
            return "its correction needs a cost of the site's own, which a weighted mean of particles does not give"
        if estimator.has_surrogate and estimator.local_costs:
            return "it needs a cost of the site's own; {'estimator': 'score', 'baseline': 'none'} gets VIMCO's signal"
        if estimator.local:
            return "it is right for each term by itself, and a particle's weight is that of all terms at one draw"
        if estimator.coupled:
            return "its particles depend on one another, and the bound is that of independent ones"
        return None

    @property
    def min_particles(self) -> int:
        return self.num_samples or 2

    @property
    def group_size(self) -> int:
        return self.num_samples or 1

    @property
    def in_parts(self) -> bool:
        return self.power == 0  # the logarithm of a mean of exponentials of what is right in the mean alone is not

    def _groups(self, log_weights: Weights) -> Float[Array, "groups samples"]:
        return log_weights.reshape(-1, self.num_samples or log_weights.shape[0])

    def _bound(self, log_weights: Weights) -> Scalar:
        if self.power == 0:
            return jnp.mean(log_weights)
        # Around the largest term, so that nothing overflows, and by its excess, so that a small power keeps its digits.
        largest = self._largest(log_weights)
        excess = jnp.mean(jnp.expm1(self.power * (log_weights - largest)))
        return largest + jnp.log1p(excess) / self.power

    def _largest(self, log_weights: Weights) -> Scalar:
        largest = jax.lax.stop_gradient(jnp.max(log_weights) if self.power > 0 else jnp.min(log_weights))
        return jnp.where(jnp.isfinite(largest), largest, 0.0)

    def _signal(self, log_weights: Weights) -> Weights:
        count = log_weights.shape[0]
        others = (jnp.sum(log_weights) - log_weights) / (count - 1)
        if self.power == 0:
            return log_weights - others
        # The mean of w^b with the others' in the place of particle k's, over that with its own: what changes is one
        # term. The scores add up over the particles of a group, and estimators take a mean.
        own, instead = (jnp.expm1(self.power * (x - self._largest(log_weights))) for x in (log_weights, others))
        change = (instead - own) / jnp.sum(own + 1)
        # Where the particle has most of the weight nothing is left of 1 + change: there from the logarithms themselves.
        most = change < -0.5
        replaced = jnp.where(jnp.eye(count, dtype=bool), others[:, None], log_weights[None, :])
        kept = jax.nn.logsumexp(self.power * replaced, axis=1)
        large = jax.nn.logsumexp(self.power * log_weights) - kept
        small = -jnp.log1p(jnp.where(most, 0.0, change))
        return count / self.power * jnp.where(most, large, small)
