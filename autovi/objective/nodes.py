"""A block as it was drawn, whatever guide it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.estimators.base import Draw, Estimator

Drawer = Callable[[str, Distribution], Draw]  # the value of a block: drawn by its estimator, or forced


class Node(NamedTuple):
    """A block as drawn: its distribution (unmasked), its draw, and log q of it, unscaled and unmasked."""

    q: Distribution
    draw: Draw
    log_q: jax.Array


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of an estimator's draw say of which site; those of JAX's own classes stay as they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"site {name!r}: {error}") from error


def draw_node(name: str, q: Distribution, draw: Drawer) -> Node:
    """A block's draw from `q` and its log density there."""
    drawn = draw(name, q)
    log_q = q.log_prob(drawn.value, drawn.aux) if drawn.aux else log_density(q, drawn.value)
    return Node(q, drawn, log_q)


def guide_term(node: Node, estimator: Estimator, scale: Any = 1.0, mask: Any = None) -> jax.Array:
    """-log q as a cost term. Its own gradient has mean zero unless the draw carries one, so it is stopped then."""
    log_q = node.log_q if estimator.pathwise else jax.lax.stop_gradient(node.log_q)
    return weighted(-log_q, scale, mask)


def weighted(term: jax.Array, scale: Any, mask: Any) -> jax.Array:
    """`scale * term` where `mask` is on, else 0."""
    term = term if isinstance(scale, float) and scale == 1.0 else scale * term
    return term if mask is None else jnp.where(mask, term, 0.0)
