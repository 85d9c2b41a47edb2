"""The unordered set estimator: several values without replacement, each weighted by how likely it is in the set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from autovi.distributions.beams import distinct_orders, distinct_values
from autovi.distributions.permutations import PlackettLuce
from autovi.distributions.registry import strip
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar, of_possible, refuses_to_list
from autovi.estimators.binary import BERNOULLI
from autovi.estimators.categories import CATEGORICAL, along_probs, log_probs

PERMUTATIONS = "PlackettLuce"
MOST = 10  # members of a set, of which all subsets are gone through


@dataclass(frozen=True)
class UnorderedSet(Estimator):
    r"""d/dtheta E f(z) = E sum_{s in S} q(s) R(S, s) (f(s) - b_s) d/dtheta log q(s), S drawn without replacement.

    For categorical, Bernoulli and Plackett-Luce sites; `evaluations` k of the cost for each particle, at k different
    values, unbiased. h(T), the probability that the part T of S is drawn when the rest of S has been taken out, follows
    from :math:`h(T) = \sum_{s \in T} q(s) h(T \setminus s) / (1 - q(S \setminus T))`, h of the empty set being 1, for
    all 2^k parts; then

    .. math:: R(S, s) = \frac{h(S \setminus s)}{h(S)}, \qquad
              b_s = q(s) f(s) + \sum_{s' \ne s} q(s') \frac{h(S \setminus \{s, s'\})}{h(S \setminus s)} f(s').

    With as many evaluations as values it is the sum over all of them, without noise. The set is of one particle: its
    first member is the particle's own value, an independent draw from q as in any other particle, and the others are
    counterfactuals at the same noise. So all other sites, and the objective, see ordinary particles, and the members of
    a set differ in this site alone. Each element of a plate has a set of its own; elements that share a cost are
    refused. Kool, van Hoof and Welling (2020), "Estimating Gradients for Discrete Random Variables by Sampling without
    Replacement", theorem 2 and section 4.2; sets of permutations are found by stochastic beams.

    Args:
        evaluations: k, 2 to 10; of a site with fewer values all of them.

    Raises:
        ValueError: another number of evaluations.

    Example:
        >>> autovi.fit(model, data, estimators={"z": {"estimator": "unordered_set", "evaluations": 3}})
    """

    evaluations: int = 4

    name: ClassVar[str] = "unordered_set"
    on_request: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 2 <= self.evaluations <= MOST:
            raise ValueError(f"evaluations: expected 2 to {MOST}, got {self.evaluations}")

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution == PERMUTATIONS:
            return facts.entangled
        if facts.distribution not in (*CATEGORICAL, *BERNOULLI):
            return "it is for categorical, Bernoulli and Plackett-Luce sites only"
        # The second member of a set is no draw from q: beside the second members of other elements its cost is not f.
        return refuses_to_list(facts)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        fn = strip(q)
        if isinstance(fn, PlackettLuce):
            logits = jnp.broadcast_to(jax.lax.stop_gradient(fn.logits), q.shape())
            members, out = distinct_orders(noise, logits, self.evaluations)
        else:
            members, out = distinct_values(noise, jax.lax.stop_gradient(log_probs(q)), self.evaluations)
        return Draw(members[0], aux=(members, out))

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        members, out = jnp.moveaxis(draw.aux[0], 1, 0), draw.aux[1]
        costs = jnp.concatenate([cost.value[None], jax.lax.map(cost.at, members[1:])])
        chosen = jnp.moveaxis(jax.vmap(q.log_prob)(members), 0, -1)
        costs = jnp.moveaxis(costs, 0, -1)
        # A set as large as the support has values of probability zero too.
        costs = of_possible(costs, jnp.where(jnp.isneginf(chosen), 0, 1))
        chosen = jnp.maximum(chosen, jnp.log(jnp.finfo(chosen.dtype).tiny))
        weight, baseline = _weights(*jax.lax.stop_gradient((chosen, out)))
        # A number taken off all costs changes nothing but the rounding.
        costs = costs - jnp.mean(costs, -1, keepdims=True)
        slope = weight * (costs - jnp.einsum("...st,...t->...s", baseline, costs))
        return along_probs(slope, chosen, len(draw.value)), jnp.zeros(())


def _weights(own: jax.Array, out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q(s) R(S, s) `[..., k]`, and what multiplies f(s') in b_s `[..., k, k]`, by the log probabilities of the members
    `[..., k]` and that of all other values `[...]`."""
    k = own.shape[-1]
    h = _subsets(own, out[..., None])
    every, bit, eye = 2**k - 1, 1 << np.arange(k), np.eye(k, dtype=bool)
    without = h[..., every - bit]
    two = h[..., np.where(eye, 0, every - bit[:, None] - bit[None, :])]
    rest = jnp.where(eye, 0.0, two - without[..., :, None])
    return jnp.exp(own + without - h[..., every, None]), jnp.exp(own[..., None, :] + rest)


def _subsets(own: jax.Array, out: jax.Array) -> jax.Array:
    """log h of each subset `[..., 2^k]`, by the bits of its number; `own` are the members' log probabilities, `out`
    that of all values outside of the set, so that nothing is taken from 1."""
    k = own.shape[-1]
    h = jnp.zeros((*own.shape[:-1], 2**k), own.dtype)
    for size in range(1, k + 1):
        number, there, before = _level(k, size)
        left = jnp.logaddexp(out, jax.nn.logsumexp(own[..., there], -1))
        h = h.at[..., number].set(jax.nn.logsumexp(own[..., there] + h[..., before], -1) - left)
    return h


@cache
def _level(k: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The subsets of a size by their numbers, their members, and the number of each without that member."""
    there = np.array(list(combinations(range(k), size)))
    bits = 1 << there
    number = bits.sum(-1)
    return number, there, number[:, None] - bits
