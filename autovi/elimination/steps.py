"""Quadratic factors integrated over a network: level by level, and along the steps of chains.

Along a chain the message after a step is a Gaussian factor of the last values, as far back as they are felt: the Kalman
filter in information form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from autovi.elimination.eliminate import chains_among, swept
from autovi.elimination.network import Network
from autovi.elimination.quadratics import Integrating, Quadratic, product, standard
from autovi.model.lags import lagged


def integrated_out(network: Network, factors: Sequence[Quadratic], how: Integrating) -> list[Quadratic]:
    """Factors of no variable, over axes of elements alone, whose sum is the log of the integral.

    Raises:
        Intractable: it cannot be done element by element; the message says what is coupled.
    """
    return swept(network, factors, partial(_integrated, how=how))


def _integrated(network: Network, factors: Sequence[Quadratic], local: Collection[str], how: Integrating) -> Quadratic:
    there, chains, time = chains_among(network, factors, local)
    if time is None:
        return how.without(product(factors), there)
    steps = list(factors)
    for variable in sorted(there - chains):
        having = [f for f in steps if variable in f.variables]
        steps = [f for f in steps if variable not in f.variables]
        steps.append(how.without(product(having), {variable}))
    return _chained(network, steps, sorted(chains), time, how)


def _chained(
    network: Network, factors: Sequence[Quadratic], chains: Sequence[str], time: str, how: Integrating
) -> Quadratic:
    after = [lagged(v, lag) for v in chains for lag in range(network.lags[v])]
    older = {lagged(v, lag): lagged(v, lag + 1) for v in chains for lag in range(network.lags[v])}
    oldest = {lagged(v, network.lags[v]) for v in chains}
    moving = [_in_front(f, time) for f in factors if time in f.elements]
    still = [f for f in factors if time not in f.elements]
    # What is felt of the time before is in no factor of the first steps: any distribution stands for it.
    before = standard(network, after, factors[0].precision.dtype)
    rows = [(f.precision, f.shift, f.constant) for f in moving]
    first = _at([jax.tree.map(lambda a: a[0], row) for row in rows], moving)
    elements = tuple(dict.fromkeys(e for f in [*first, *still] for e in f.elements))
    widths = {v: network.sizes[v] for v in after}
    shape = [network.sizes[e] for e in elements]

    def whole(message: Quadratic) -> Quadratic:
        """The message in the one form that the loop carries."""
        found = message.along(elements, after, widths)
        parts = (found.precision, found.shift, found.constant)
        return found.of(*(jnp.broadcast_to(a, (*shape, *a.shape[len(shape) :])) for a in parts))

    def step(carry: Any, now: tuple[list[Any], Any]) -> tuple[Any, None]:
        message = start.of(*carry).renamed(older)
        made = how.at_step(now[1]).without(product([message, *_at(now[0], moving), *still]), oldest)
        made = whole(made)
        return (made.precision, made.shift, made.constant), None

    start = whole(before)
    carry = (start.precision, start.shift, start.constant)
    carry, _ = jax.lax.scan(step, carry, (rows, how.steps(network.sizes[time])))
    sources = frozenset().union(*(f.sources for f in factors))
    return replace(how.without(start.of(*carry), set(after)), sources=sources)


def _in_front(factor: Quadratic, time: str) -> Quadratic:
    """The same with the axis of steps in front."""
    at = factor.elements.index(time)
    parts = (jnp.moveaxis(a, at, 0) for a in (factor.precision, factor.shift, factor.constant))
    return factor.of(*parts, elements=tuple(e for e in factor.elements if e != time))


def _at(rows: Sequence[Any], moving: Sequence[Quadratic]) -> list[Quadratic]:
    """The factors of one step, from its rows of those that differ."""
    return [f.of(*row) for f, row in zip(moving, rows, strict=True)]
