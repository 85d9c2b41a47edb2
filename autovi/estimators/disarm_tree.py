"""DisARM on the binary decisions that make a category."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Scalar
from autovi.estimators.binary import along, each, inside
from autovi.estimators.categories import Categories, ascending, log_probs

TREE, STICKS = "tree", "stick_breaking"


@dataclass(frozen=True)
class DisarmTree(Categories):
    """d/dl_i E f(z) = E (f(z) - f(z')) / 2 d_i, for the logit l_i of each of K - 1 binary decisions that lead to z.

    For categorical sites; two evaluations of the cost for each particle, unbiased. z and z' take the decisions
    b_i = 1[u_i > 1 - p_i] and b'_i = 1[u_i < p_i] with the same uniforms. Of a decision that both meet
    d_i = (-1)^b'_i 1[b_i != b'_i] sigmoid(|l_i|), as in `disarm`; of one that only z meets d_i is b_i - p_i, the mean
    of that given b_i; of one that only z' meets p_i - b'_i; of others 0. "tree": the categories are the leaves of a
    balanced tree, log2 K decisions for a draw. "stick_breaking": this category or a later one, from the least likely
    on. Memory of K^2 numbers for each number of the site. The elements of one site share the two evaluations.
    Dong, Mnih and Tucker (2021), "Coupled Gradient Estimators for Discrete Latent Variables": DisARM-Tree, DisARM-SB.

    Args:
        ordering: "tree" or "stick_breaking".

    Raises:
        ValueError: another ordering.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "disarm_tree", "ordering": "stick_breaking"}})
    """

    ordering: str = TREE

    name: ClassVar[str] = "disarm_tree"

    def __post_init__(self) -> None:
        if self.ordering not in (TREE, STICKS):
            raise ValueError(f"ordering: expected {TREE!r} or {STICKS!r}, got {self.ordering!r}")

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        log_p = jax.lax.stop_gradient(log_probs(q))
        order = self._order(log_p)
        p = jax.nn.sigmoid(self._logits(log_p, order))
        u = inside(jax.random.uniform(noise, p.shape, p.dtype))
        return Draw(self._category(u > 1 - p, order), aux=self._category(u < p, order))

    def twins(self, draw: Draw) -> tuple[jax.Array, ...]:
        return (draw.aux,)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        log_p, value, twin = q.over(log_probs), draw.value, draw.aux
        order = self._order(log_p)
        logit = self._logits(log_p, order)
        (met, b), (met_too, b_too) = self._decisions(value, order), self._decisions(twin, order)
        p = jax.nn.sigmoid(logit)
        pair = (b - b_too) * jax.nn.sigmoid(jnp.abs(logit))
        direction = jnp.where(met & met_too, pair, jnp.where(met, b - p, jnp.where(met_too, p - b_too, 0)))
        gap = each(cost.value - cost.at(twin), value)[..., None]
        return along(0.5 * gap * direction, logit), jnp.zeros(())

    def _order(self, log_p: jax.Array) -> jax.Array:
        """The categories from the first leaf to the last."""
        alphabetical = jnp.broadcast_to(jnp.arange(log_p.shape[-1]), log_p.shape)
        return ascending(log_p) if self.ordering == STICKS else alphabetical

    def _logits(self, log_p: jax.Array, order: jax.Array) -> jax.Array:
        """l of every decision `[..., K - 1]`."""
        no, yes = leaves(log_p.shape[-1], self.ordering)
        ordered = jnp.take_along_axis(log_p, order, -1)[..., None, :]
        mass = lambda below: jax.nn.logsumexp(ordered, -1, where=below)  # noqa: E731
        return mass(yes) - mass(no)

    def _category(self, decisions: jax.Array, order: jax.Array) -> jax.Array:
        """The leaf that agrees with the decisions `[..., K - 1]` on its way, as a category."""
        no, yes = leaves(order.shape[-1], self.ordering)
        against = jnp.where(decisions[..., None], no, yes)
        leaf = jnp.argmin(jnp.any(against, -2), -1)
        return jnp.take_along_axis(order, leaf[..., None], -1)[..., 0]

    def _decisions(self, category: jax.Array, order: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Which decisions a category meets `[..., K - 1]`, and how they are taken there."""
        no, yes = leaves(order.shape[-1], self.ordering)
        leaf = jnp.argmax(order == category[..., None], -1)
        b = jnp.asarray(yes.T)[leaf]
        return b | jnp.asarray(no.T)[leaf], b.astype(float)


@cache
def leaves(number: int, ordering: str) -> tuple[np.ndarray, np.ndarray]:
    """The leaves `[number - 1, number]` below each decision that is answered no, and yes."""
    no, yes = np.zeros((2, max(number - 1, 0), number), bool)
    groups = [(0, number)] if number > 1 else []
    for i, (start, end) in enumerate(groups):
        middle = (start + end) // 2 if ordering == TREE else start + 1
        no[i, middle:end] = yes[i, start:middle] = True
        groups += [g for g in ((start, middle), (middle, end)) if g[1] - g[0] > 1]
    return no, yes
