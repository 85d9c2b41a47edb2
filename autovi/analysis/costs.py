"""Moves arrays between the dimensions of a site and those of the cost terms downstream of it.

`aligned[d]` is the dimension of the term along which it is elementwise in the site's batch dimension `d`, or None.
`lead` counts the dimensions in front (branches, particles) that both share.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Aligned = tuple[int | None, ...]


def to_site(term: jax.Array, aligned: Aligned, lead: int) -> jax.Array:
    """The cost of each element of the site: `term` summed over every dimension that is not the site's own.

    Returns an array of `lead + len(aligned)` dimensions; those along which the term is not elementwise have size 1.
    """
    kept = sorted(e for e in aligned if e is not None)
    drop = tuple(lead + e for e in range(term.ndim - lead) if e not in kept)
    term = jnp.sum(term, axis=drop)
    order = [lead + kept.index(e) for e in aligned if e is not None]
    term = jnp.transpose(term, [*range(lead), *order])
    return jnp.expand_dims(term, [lead + d for d, e in enumerate(aligned) if e is None])


def from_then_on(term: jax.Array, axis: int, strict: bool) -> jax.Array:
    """The sum of a term over all places from each on along an axis; over those after it if `strict`."""
    total = jnp.flip(jnp.cumsum(jnp.flip(term, axis), axis), axis)
    return total - term if strict else total


def to_term(weights: jax.Array, aligned: Aligned, ndim: int, lead: int) -> jax.Array:
    """The inverse for weights of a site's elements: dimensions put where a term of `ndim` dimensions has them.

    Dimensions of the site that are not aligned must have size 1.
    """
    weights = jnp.squeeze(weights, [lead + d for d, e in enumerate(aligned) if e is None])
    kept = [e for e in aligned if e is not None]
    weights = jnp.transpose(weights, [*range(lead), *(lead + kept.index(e) for e in sorted(kept))])
    return jnp.expand_dims(weights, [lead + e for e in range(ndim) if e not in kept])


def unique(aligned: Aligned) -> Aligned:
    """`aligned` with every term dimension named at most once: a second claim is dropped."""
    return tuple(e if e is not None and e not in aligned[:d] else None for d, e in enumerate(aligned))


def agreed(a: Aligned, b: Aligned) -> Aligned:
    """What two alignments of one term have in common."""
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))
