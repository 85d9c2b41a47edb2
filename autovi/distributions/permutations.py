"""Distributions over permutations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample


class Permutation(constraints.ParameterFreeConstraint):
    """The support of permutations: integer vectors `[..., n]` that hold each of 0, 1, ..., n - 1 once."""

    is_discrete = True
    event_dim = 1

    def __call__(self, x: Any) -> Any:
        x = jnp.asarray(x)
        return jnp.all(jnp.sort(x, -1) == jnp.arange(x.shape[-1]), -1)

    def feasible_like(self, prototype: Any) -> Any:
        prototype = jnp.asarray(prototype)
        return jnp.broadcast_to(jnp.arange(prototype.shape[-1], dtype=prototype.dtype), prototype.shape)

    def __repr__(self) -> str:
        return "permutation"


class PermutationMatrix(constraints.ParameterFreeConstraint):
    """The support of permutation matrices `[..., n, n]`: a single one in every row and column, zeros elsewhere."""

    is_discrete = True
    event_dim = 2

    def __call__(self, x: Any) -> Any:
        x = jnp.asarray(x)
        whole = jnp.all((x == 0) | (x == 1), (-2, -1))
        return whole & jnp.all(jnp.sum(x, -1) == 1, -1) & jnp.all(jnp.sum(x, -2) == 1, -1)

    def feasible_like(self, prototype: Any) -> Any:
        prototype = jnp.asarray(prototype)
        return jnp.broadcast_to(jnp.eye(prototype.shape[-1], dtype=prototype.dtype), prototype.shape)

    def __repr__(self) -> str:
        return "permutation_matrix"


permutation = Permutation()
permutation_matrix = PermutationMatrix()


class PlackettLuce(dist.Distribution):
    r"""Permutations by drawing items without replacement, each with a chance in proportion to its weight exp(logit).

    A value is a vector of n integers, the items from the first place to the last: `items[value]` is in that order.

    .. math:: \log q(z) = \sum_{i=1}^n \Big( l_{z_i} - \log \sum_{j \ge i} e^{l_{z_j}} \Big)

    A constant added to all logits changes nothing; equal logits are the uniform distribution over n! permutations.
    Draws are the items by descending logit plus a standard Gumbel. The density is evaluated in log space. Draws have no
    derivative. Luce (1959), "Individual Choice Behavior"; Plackett (1975), "The Analysis of Permutations"; the draws
    are those of Yellott (1977), "The relationship between Luce's choice axiom, Thurstone's theory of comparative
    judgment, and the double exponential distribution".

    Args:
        logits: log weights of the items, `[*batch, n]`.
        validate_args: as of every distribution of NumPyro.

    Example:
        >>> order = numpyro.sample("order", autovi.distributions.PlackettLuce(jnp.zeros(5)))
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = permutation
    pytree_data_fields = ("logits",)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        if jnp.ndim(logits) < 1:
            raise ValueError(
                f"logits: expected at least one dimension, that of the items, got shape {jnp.shape(logits)}"
            )
        self.logits = logits
        super().__init__(jnp.shape(logits)[:-1], jnp.shape(logits)[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, without a derivative."""
        gumbels = jax.random.gumbel(key, self.shape(sample_shape), jnp.result_type(self.logits, float))
        return jnp.argsort(-(jax.lax.stop_gradient(self.logits) + gumbels), -1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """The log probability of each permutation."""
        return log_prob(self.logits, value)


class PlackettLuceMatrix(dist.Distribution):
    r"""The permutations of `PlackettLuce` as matrices: row i has its one in the column of the item in place i.

    So `value @ items` are the items in that order, and the model has values and derivatives between permutations too,
    as `gumbel_sinkhorn` and `birkhoff` want them. There the density is continued by

    .. math:: \log q(P) = \sum_i \Big( P_i l - \log \sum_k \sum_{j \ge i} P_{jk} e^{l_k} \Big).

    Args:
        logits: log weights of the items, `[*batch, n]`.
        validate_args: as of every distribution of NumPyro.

    Example:
        >>> matching = numpyro.sample("matching", autovi.distributions.PlackettLuceMatrix(jnp.zeros(5)))
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = permutation_matrix
    pytree_data_fields = ("logits",)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        shape = PlackettLuce(logits, validate_args=validate_args).shape()
        self.logits = logits
        super().__init__(shape[:-1], (*shape[-1:], *shape[-1:]), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, without a derivative."""
        return as_matrix(PlackettLuce(self.logits).expand(self.batch_shape).sample(key, sample_shape)).astype(int)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """The log probability of each permutation."""
        logits = jnp.asarray(self.logits)
        value = jnp.asarray(value, jnp.result_type(logits, float))
        there = jnp.cumsum(value[..., ::-1, :], -2)[..., ::-1, :]
        rows = jnp.broadcast_to(logits[..., None, :], jnp.broadcast_shapes(value.shape, logits[..., None, :].shape))
        return jnp.sum(value * rows, (-2, -1)) - jnp.sum(jax.nn.logsumexp(rows, -1, b=there), -1)


def as_matrix(order: Array) -> Array:
    """The permutation matrix of an order."""
    return jax.nn.one_hot(order, jnp.shape(order)[-1], dtype=jnp.result_type(float))


def soft_order(z: Array, temperature: float, iterations: int) -> Array:
    """The matrix `[..., n, n]` of exp((n - 1 - 2 i) z_j / temperature), rows and columns scaled until they add up to
    one: at a low temperature that of the order of z, from the largest on."""
    n = z.shape[-1]
    places = jnp.arange(n - 1, -n, -2, dtype=z.dtype)
    # Taken off whole columns this changes nothing in the limit, which is then nearly reached from the start: what is
    # left are the rows of a soft sort.
    apart = jnp.sum(jnp.abs(z[..., :, None] - z[..., None, :]), -1)
    scores = (places[:, None] * z[..., None, :] - apart[..., None, :]) / temperature

    def scaled(log_p: Array, _: None) -> tuple[Array, None]:
        log_p = log_p - jax.nn.logsumexp(log_p, -2, keepdims=True)
        return jax.nn.log_softmax(log_p, -1), None

    return jnp.exp(jax.lax.scan(scaled, jax.nn.log_softmax(scores, -1), None, iterations)[0])


def log_prob(logits: Array, order: Array) -> Array:
    """The log probability of an order."""
    return jnp.sum(by_place(logits, order) - left(logits, order), -1)


def by_place(logits: Array, order: Array) -> Array:
    """The logits of the items in an order."""
    shape = jnp.broadcast_shapes(jnp.shape(logits), jnp.shape(order))
    return jnp.take_along_axis(jnp.broadcast_to(logits, shape), jnp.broadcast_to(order, shape), -1)


def left(logits: Array, order: Array) -> Array:
    """The log of the weight of the items that are left at each place, its own item included."""
    ordered = by_place(logits, order)
    return jax.lax.cumlogsumexp(ordered, axis=ordered.ndim - 1, reverse=True)
