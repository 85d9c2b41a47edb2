"""Quantiles of log-concave laws, away from their mode: values only, to which the callers attach the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from autovi.implicit.log_concave.base import FAR, LogConcave


def descend(law: LogConcave, start: Array, direction: Array, nats: Array, beyond: Array) -> Array:
    """The length t, away from the mode, beyond which lies the share e^-nats of the mass beyond `start`; values only.

    In closed form where the law has one. Where that fails, far in a tail, and for other laws by Newton's method.

    Args:
        law: the distribution.
        start: its coordinate, broadcast with the others.
        direction: -1 or 1, away from the mode.
        nats: not negative.
        beyond: `law.outward(start, direction, FAR)`.
    """
    arguments = jax.lax.stop_gradient((start, direction, nats, beyond))
    start, direction, nats, beyond = jnp.broadcast_arrays(*arguments)
    nats = jnp.maximum(nats, float(jnp.finfo(nats.dtype).tiny) ** 0.75)  # at the mode there is no slope to divide by
    if law.depth is None:
        return _newton(law, start, direction, nats, beyond)
    length, usable = law.depth(start, direction, nats)
    length = jax.lax.stop_gradient(jnp.maximum(length, 0.0))
    if usable is None:
        return length
    otherwise = lambda: jnp.where(usable, length, _newton(law, start, direction, nats, beyond))  # noqa: E731
    return jax.lax.cond(jnp.all(usable), lambda: length, otherwise)


def _newton(law: LogConcave, start: Array, direction: Array, nats: Array, beyond: Array) -> Array:
    """Exact in every tail, since it works with logarithms and with integrals relative to where they start.

    g(t) = -log(share of the mass beyond t) is convex for a log-concave density. The tangent at 0 reaches `nats` beyond
    the solution, and so does the fall of the density itself: from there Newton's method comes down to it.
    """
    near = nats < 0.5  # the mass up to t keeps the digits that the mass beyond it would lose

    def step(_: int, length: Array) -> Array:
        here = jnp.where(near, start, start + direction * length)
        mass = law.outward(here, direction, jnp.where(near, length, FAR))
        fall = law.fall(start, direction * length)
        rest = jnp.where(near, (beyond - mass) * jnp.exp(fall), mass)  # the mass beyond t, relative to t
        lost = jnp.where(near, -jnp.log1p(-mass / beyond), fall + jnp.log(beyond / mass))
        return jnp.maximum(length - (lost - nats) * rest, 0.0)

    first = jnp.minimum(nats * beyond, law.reach(start, direction, nats))
    # A loop that is not written out: it compiles once, and its steps are not merged into one that computes more.
    steps = 5 if jnp.finfo(nats.dtype).bits <= 32 else 7
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, first))
