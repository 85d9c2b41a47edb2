"""Censored distributions: what is drawn from them is a draw of the base."""

from __future__ import annotations

from typing import Any

from jax import Array

from autovi.implicit import dispatch
from autovi.implicit.velocity import velocity


def draw_censored(rng_key: Array, fn: Any, shape: tuple[int, ...]) -> Array:
    """Draws of the base, of shape `shape`, with its gradient: NumPyro's samplers do not censor."""
    return dispatch.draw(rng_key, fn.base_dist, shape)


def censored_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """That of the base."""
    return velocity(fn.base_dist, value, moving.base_dist)
