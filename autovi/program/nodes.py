"""A block as it was drawn, whatever guide it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density, relaxed_log_density, weighted_log_density
from autovi.distributions.noise import Mapped
from autovi.estimators.base import Draw
from autovi.families.base import Family, Layout
from autovi.model.traced import Traced

Density = Callable[[Distribution, Any], jax.Array]


class Node(NamedTuple):
    """A block as drawn: its distribution (unmasked; nothing where it cannot leave the graph), its draw, and log q of
    it, unscaled and unmasked."""

    q: Any
    draw: Draw
    log_q: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Conditional:
    """The distribution of a block of the engine's own guide, once its parents' values are known."""

    params: Any
    constants: Any  # of a fixed map before the block: None without one
    family: Family = field(metadata={"static": True})
    layout: Layout = field(metadata={"static": True})

    def given(self, parents: jax.Array | None = None) -> Distribution:
        """The distribution given a vector of the parents' values; None where the block has no parents."""
        params = self.params if parents is None else self.family.given(self.params, parents)
        q = self.family.member(params, self.layout)
        return q if self.constants is None else Mapped(q, **self.constants)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of an estimator's draw say of which site; those of JAX's own classes stay as they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"site {name!r}: {error}") from error


def density_of(traced: Traced, node: str) -> Density:
    """log q of any value of a node: of whole ones, of those between them, or of weights of them."""
    if node in traced.one_hot:
        return weighted_log_density
    return relaxed_log_density if node in traced.relaxed else log_density


def log_q_of(q: Distribution, draw: Draw, density: Density) -> jax.Array:
    """log q of a draw, as the estimator has it, or by the sampler's intermediates where it left some."""
    if draw.log_q is not None:
        return draw.log_q
    if jax.tree.leaves(draw.intermediates):
        return q.log_prob(draw.value, draw.intermediates)
    return density(q, draw.value)
