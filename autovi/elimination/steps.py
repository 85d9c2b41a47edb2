"""Quadratic factors integrated over a network: level by level, and along the steps of chains.

Along a chain the message after a step is a Gaussian factor of the last values, as far back as they are felt: the Kalman
filter in information form. Long chains go in blocks side by side, as those of tables do (`chain.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any

import jax
import jax.numpy as jnp

from autovi.elimination.eliminate import chains_among, swept
from autovi.elimination.network import Network
from autovi.elimination.quadratics import Integrating, Quadratic, product, standard
from autovi.model.lags import lagged

MIN_BLOCKED = 64  # steps from which on blocks pay
BLOCK = "%block"  # the axis of blocks


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
    steps, length = _steps(network, factors, [older[a] for a in after], after, time), network.sizes[time]
    if network.backward.issuperset(chains):
        steps = steps.of(*(jnp.flip(a, 0) for a in steps.parts))
    outside = [v for v in steps.variables if v not in {*after, *older.values()}]  # what all steps have in common
    # What is felt of the time before is in no factor of the first steps: any distribution stands for it.
    message = standard(network, after, steps.precision.dtype)
    message = message.along((), [*after, *outside], {v: network.sizes[v] for v in [*after, *outside]})
    if length >= MIN_BLOCKED and all(network.lags[v] == 1 for v in chains):
        side = isqrt(length)
        rest = length % side
        message = _through(message, _part(steps, 0, rest), rest, older, oldest, how)
        blocks = _in_blocks(_part(steps, rest, length), side, older, how)
        into = {a: _start(a) for a in after}
        message = _through(message, blocks, length // side, into, set(into.values()), how)
    else:
        message = _through(message, steps, length, older, oldest, how)
    sources = frozenset().union(*(f.sources for f in factors))
    return replace(how.without(message, set(after)), sources=sources)


def _steps(
    network: Network, factors: Sequence[Quadratic], before: Sequence[str], after: Sequence[str], time: str
) -> Quadratic:
    """All factors as one, with the axis of steps in front, which is none of its elements."""
    whole = product(factors)
    elements = (time, *(e for e in whole.elements if e != time))
    variables = tuple(dict.fromkeys([*before, *after, *whole.variables]))
    whole = whole.along(elements, variables, {v: network.sizes[v] for v in variables})
    return replace(whole, elements=elements[1:])


def _part(steps: Quadratic, start: int, end: int) -> Quadratic:
    return steps.of(*(a[start:end] for a in steps.parts))


def _start(variable: str) -> str:
    """The name of a variable at the start of its block."""
    return f"{variable}^"


def _in_blocks(steps: Quadratic, side: int, older: Mapping[str, str], how: Integrating) -> Quadratic:
    """Blocks of `side` steps, each as one step from the values at its start to those at its end. They go side by side:
    of T steps only about 2 sqrt(T) come one after the other."""
    dealt = (jnp.swapaxes(a.reshape(-1, side, *a.shape[1:]), 0, 1) for a in steps.parts)
    inside = steps.of(*dealt, elements=(BLOCK, *steps.elements))
    first = inside.of(*(a[0] for a in inside.parts)).renamed({old: _start(new) for new, old in older.items()})
    made = _through(first, _part(inside, 1, side), side - 1, older, set(older.values()), how)
    return replace(made, elements=made.elements[1:])


def _through(
    message: Quadratic, steps: Quadratic, length: int, older: Mapping[str, str], gone: set[str], how: Integrating
) -> Quadratic:
    """A message taken through all steps: each makes its variables `older`, and integrates those `gone` out."""
    if not length:
        return message
    variables, widths = message.variables, dict(zip(message.variables, message.widths, strict=True))
    shape = steps.constant.shape[1:]

    def whole(found: Quadratic) -> Quadratic:
        """The message in the one form that the loop carries."""
        found = found.along(steps.elements, variables, widths)
        return found.of(*(jnp.broadcast_to(a, (*shape, *a.shape[len(shape) :])) for a in found.parts))

    start = whole(message)

    def step(carry: Any, now: Any) -> tuple[Any, None]:
        product_here = product([start.of(*carry).renamed(older), steps.of(*now[0])])
        return whole(how.at_step(now[1]).without(product_here, gone)).parts, None

    carry, _ = jax.lax.scan(step, start.parts, (steps.parts, how.steps(length)), length=length)
    return start.of(*carry)
