"""Draws without replacement, ordered as they are drawn."""

from __future__ import annotations

from math import factorial

import jax
import jax.numpy as jnp
from jax import Array


def distinct_values(key: Array, log_p: Array, number: int) -> tuple[Array, Array]:
    """Values 0, 1, ... `[number, *batch]` by their log probabilities `[*batch, K]`, or all where they are fewer, and
    the log probability of all others `[*batch]`."""
    perturbed = log_p + jax.random.gumbel(key, log_p.shape, log_p.dtype)
    drawn = jax.lax.top_k(perturbed, min(number, log_p.shape[-1]))[1]
    inside = jnp.any(drawn[..., None] == jnp.arange(log_p.shape[-1]), -2)
    return jnp.moveaxis(drawn, -1, 0), jax.nn.logsumexp(log_p, -1, where=~inside)


def distinct_orders(key: Array, logits: Array, number: int) -> tuple[Array, Array]:
    """Orders `[number, *batch, n]` of items with log weights `[*batch, n]`, or all where they are fewer, and the log
    probability of all others `[*batch]`.

    The `number` largest of all n! log probabilities plus Gumbels, found from the first item on: of each prefix the
    largest below it is kept, and that of a longer one is drawn given that. Kool, van Hoof and Welling (2019),
    "Stochastic Beams and Where to Find Them", algorithm 1.
    """
    batch, n = logits.shape[:-1], logits.shape[-1]
    width = min(number, factorial(n))
    flat = logits.reshape(-1, n)
    keys = jax.random.split(key, len(flat))
    orders, out = jax.vmap(lambda key, logits: _beams(key, logits, width))(keys, flat)
    return jnp.moveaxis(orders, 1, 0).reshape(width, *batch, n), out.reshape(batch)


def _beams(key: Array, logits: Array, width: int) -> tuple[Array, Array]:
    n = len(logits)
    first, *keys = jax.random.split(key, n + 1)
    begin = jnp.arange(width) == 0
    log_p = jnp.where(begin, 0.0, -jnp.inf).astype(logits.dtype)
    best = jnp.where(begin, jax.random.gumbel(first, (), logits.dtype), -jnp.inf)
    orders, out = jnp.zeros((width, 0), int), -jnp.inf * jnp.ones((), logits.dtype)
    for key in keys:
        used = jnp.any(orders[:, :, None] == jnp.arange(n), 1)
        left = jax.nn.log_softmax(jnp.where(used, -jnp.inf, logits), -1)
        longer = (log_p[:, None] + left).reshape(-1)
        perturbed = longer.reshape(width, n) + jax.random.gumbel(key, (width, n), logits.dtype)
        below = _given_largest(perturbed, best).reshape(-1)
        best, kept = jax.lax.top_k(below, width)
        dropped = jnp.ones(width * n, bool).at[kept].set(False)
        out = jnp.logaddexp(out, jax.nn.logsumexp(longer, where=dropped))
        orders = jnp.concatenate([orders[kept // n], (kept % n)[:, None]], 1)
        log_p = longer[kept]
    return orders, out


def _given_largest(values: Array, largest: Array) -> Array:
    """Gumbels `[..., n]` given that the largest of them is this: -log(e^-largest - e^-max + e^-value)."""
    valid = jnp.isfinite(values)
    values, largest = jnp.where(valid, values, 0), jnp.where(jnp.any(valid, -1), largest, 0)[..., None]
    gap = values - jnp.max(values, -1, keepdims=True, where=valid, initial=-jnp.inf)
    gap = jnp.where(valid, gap, -1.0)
    log_rest = jnp.where(gap > -0.7, jnp.log(-jnp.expm1(gap)), jnp.log1p(-jnp.exp(gap)))
    v = largest - values + log_rest
    return jnp.where(valid, largest - jnp.maximum(v, 0) - jnp.log1p(jnp.exp(-jnp.abs(v))), -jnp.inf)
