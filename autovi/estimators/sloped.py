"""What estimators have in common that know the cost by its derivative at the draws of other particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts
from autovi.estimators.binary import each
from autovi.estimators.categories import log_probs
from autovi.estimators.onehot import refuses_weights, stop, value_of


@dataclass(frozen=True)
class Sloped(Estimator):
    """An estimator of sites that take one of a few values, in whose control variates the derivative of the cost is in
    w, one-hot vectors at the draws. All numbers of a draw are evaluated together, whether or not their costs can be
    told apart; particles are two at least.

    Where w sums to one its first coordinate says nothing: what is `[..., K - 1]` is of all others, of a Bernoulli of
    the value 1 alone.
    """

    on_request: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    @property
    def min_particles(self) -> int:
        return 2

    def refuses(self, facts: Facts) -> str | None:
        return refuses_weights(facts)

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        logits = stop(log_probs(q))
        w = jax.nn.one_hot(stop(q(rng_key=noise)), logits.shape[-1], dtype=logits.dtype)
        return Draw(value_of(q, w), aux=w)


class Drawn(NamedTuple):
    """What is known at the draws, `[particles, *batch, *event, K - 1]` each but the last two."""

    logits: jax.Array  # with respect to the first value, with their gradient in q's parameters
    w: jax.Array
    p: jax.Array
    slope: jax.Array  # of its own cost
    away: jax.Array  # the probabilities of the values that are not drawn, in the order of `others`
    place: jax.Array  # which value is drawn, no last axis

    @property
    def score(self) -> jax.Array:
        return self.w - self.p


def at_draws(q: Density, draw: Draw, cost: Cost) -> Drawn:
    """The cost's derivative and q at the draws of a `Sloped` estimator."""
    logits, w = q.over(log_probs), draw.aux[..., 1:]
    whole = lambda w: jnp.concatenate([1 - jnp.sum(w, -1, keepdims=True), w], -1)  # noqa: E731
    slope = jax.grad(lambda w: jnp.sum(cost.total(value_of(q.distribution, whole(w)))))(w)
    p, place = stop(jnp.exp(logits)), jnp.argmax(draw.aux, -1)
    return Drawn(logits[..., 1:] - logits[..., :1], w, p[..., 1:], stop(slope), others(p, place), place)


def others(x: jax.Array, place: jax.Array) -> jax.Array:
    """`x` `[..., K]` at all values but the one drawn, from the next one on: `[..., K - 1]`."""
    size = x.shape[-1]
    return _rolled(x, (size - place) % size)[..., 1:]


def placed(x: jax.Array, place: jax.Array) -> jax.Array:
    """What `others` gives, back in its places, 0 at the value drawn, without the first: `[..., K - 1]`."""
    return _rolled(zero_first(x), place)[..., 1:]


def beside(at: jax.Array, slope: jax.Array, drawn: Drawn) -> jax.Array:
    """What is `at` the draws with each number at each of its other values, of what is linear in w."""
    return each(at, slope) + others(zero_first(slope), drawn.place) - jnp.sum(slope * drawn.w, -1, keepdims=True)


def zero_first(x: jax.Array) -> jax.Array:
    """With a zero in front of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 0)])


def _rolled(x: jax.Array, by: jax.Array) -> jax.Array:
    """The last axis rolled, everywhere by a number of its own. Not by indices, whose derivative is slow on CPUs."""
    for bit in range((x.shape[-1] - 1).bit_length()):
        x = jnp.where((by >> bit & 1)[..., None] == 1, jnp.roll(x, 2**bit, -1), x)
    return x
