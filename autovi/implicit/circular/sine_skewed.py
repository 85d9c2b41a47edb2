"""Draws of `SineSkewed` with their gradient, over independent von Mises angles or `SineBivariateVonMises`.

Triangular standardization: each angle given those before it has a density proportional to

    exp(kappa cos t) (constant + cosine cos t + sine sin t)

about its location given them, where the later angles, integrated out, have added to the factor: nothing if they are
independent, since E sin = 0, and A(kappa) times the sine of its location for psi given phi.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from autovi.distributions import registry
from autovi.implicit.attach import attach, forbid
from autovi.implicit.circular.half_circle import Parts, Place, half_circle_velocity
from autovi.implicit.circular.sine_bivariate import (
    Sine,
    attach_phi,
    conditional,
    draw_pair,
    locations,
    sine_of,
    split_pair,
)
from autovi.implicit.circular.von_mises import draw_angle, wrap
from autovi.implicit.numerics.quadrature import cutoff
from autovi.implicit.validation import replaced

TOLERANCE = 1e-3  # of the length of a circle


class Tilted(NamedTuple):
    """The density exp(kappa cos t) (constant + cosine cos t + sine sin t), up to a factor."""

    kappa: Array
    constant: Array
    cosine: Array
    sine: Array


class Torus(NamedTuple):
    """The base distribution: `angles` a `Sine`, or the concentrations of independent angles along a last axis."""

    location: Array
    angles: Array | Sine


def draw_sine_skewed(rng_key: Array, fn: dist.SineSkewed, shape: tuple[int, ...]) -> Array:
    """Draws of a `SineSkewed`, of shape `shape + (d,)`, wrapped to [-pi, pi).

    A draw of the base is turned over, all angles at once, with probability (1 - sum_i skewness_i sin t_i) / 2. Right
    for costs that are continuous on the torus, of period 2 pi in each angle. Ameijeiras-Alonso and Ley (2022),
    "Sine-skewed toroidal distributions and their application in protein bioinformatics", section 2.3.
    """
    torus = _torus(fn)
    base_key, flip_key = jax.random.split(rng_key)
    fixed, skewness = jax.lax.stop_gradient((torus.angles, fn.skewness))
    if isinstance(fixed, Sine):
        phi, apart = draw_pair(base_key, fixed, shape)
        drawn = jnp.stack([phi, apart + conditional(fixed, phi)[0]], -1)
    else:
        drawn = draw_angle(base_key, fixed, shape + fn.event_shape)
    lean = jnp.sum(skewness * jnp.sin(drawn), -1, keepdims=True)
    kept = 2 * jax.random.uniform(flip_key, lean.shape, lean.dtype) - 1 < lean
    return wrap(torus.location + _attach(torus.angles, fn.skewness, jnp.where(kept, drawn, -drawn)))


def sine_skewed_velocity(fn: dist.SineSkewed, value: Array, moving: dist.SineSkewed) -> Array:
    """dlocation, and what the centred angles do as the other parameters move."""
    leaves, treedef = jax.tree.flatten(fn)
    of = lambda leaves: _torus(jax.tree.unflatten(treedef, leaves))  # noqa: E731
    torus, change = jax.jvp(of, (leaves,), (jax.tree.leaves(moving),))
    centred = wrap(value - torus.location)
    along = lambda angles, skewness: _attach(angles, skewness, centred)  # noqa: E731
    return change.location + jax.jvp(along, (torus.angles, fn.skewness), (change.angles, moving.skewness))[1]


def validate_sine_skewed(fn: dist.SineSkewed) -> dist.SineSkewed:
    """A base whose angles can be differentiated; that of a uniform one must be the whole circle, and stay it.

    Its length is looked at where the ends are constants; where they are traced another length gives draws that are NaN.
    """
    base = registry.strip(fn.base_dist)
    if type(base) not in (dist.SineBivariateVonMises, dist.Uniform, dist.VonMises):
        raise TypeError(
            f"SineSkewed: its base {type(base).__name__} is not one whose draws autovi can differentiate; expected "
            "VonMises or Uniform(-pi, pi), each made an event by to_event(1), or SineBivariateVonMises"
        )
    if type(base) is not dist.Uniform:
        return fn
    ends = (base.low, base.high)
    if not any(isinstance(end, jax.core.Tracer) for end in ends):
        length = np.subtract(*map(np.asarray, ends[::-1]))
        if np.any(np.abs(length - 2 * pi) > TOLERANCE):
            raise ValueError(f"SineSkewed: its base Uniform covers a length of {length}, not the circle's 2 pi")
    whole = forbid(fn.base_dist, "SineSkewed: low and high, the ends of a circle, cannot move")
    return replaced(fn, {"base_dist": whole})


def _torus(fn: dist.SineSkewed) -> Torus:
    """The base's parameters."""
    base = registry.strip(fn.base_dist)
    shape = fn.batch_shape + fn.event_shape
    if isinstance(base, dist.SineBivariateVonMises):
        return Torus(locations(base), sine_of(base))
    if isinstance(base, dist.VonMises):
        return Torus(jnp.broadcast_to(base.loc, shape), jnp.broadcast_to(base.concentration, shape))
    # Draws that are not numbers where a length that was traced is not that of the circle.
    middle = jnp.where(jnp.abs(base.high - base.low - 2 * pi) < TOLERANCE, (base.low + base.high) / 2, jnp.nan)
    location = jnp.broadcast_to(middle, shape)
    return Torus(location, jnp.zeros_like(location))


def _attach(angles: Array | Sine, skewness: Array, centred: Array) -> Array:
    """`centred`, drawn with skewness, with its gradient."""
    if isinstance(angles, Sine):
        return _attach_pair(angles._replace(phi_skewness=skewness[..., 0], psi_skewness=skewness[..., 1]), centred)
    given, attached = jnp.ones_like(skewness[..., 0]), []
    for i in range(centred.shape[-1]):
        tilted = Tilted(angles[..., i], given, jnp.zeros_like(given), skewness[..., i])
        attached.append(_attach_tilted(tilted, centred[..., i]))
        given = given + skewness[..., i] * jnp.sin(attached[-1])
    return jnp.stack(attached, -1)


def _attach_pair(sine: Sine, centred: Array) -> Array:
    assert sine.phi_skewness is not None and sine.psi_skewness is not None
    phi, apart = split_pair(jax.lax.stop_gradient(sine), centred)
    phi = attach_phi(sine, phi)
    shift, kappa = conditional(sine, phi)
    constant = 1 + sine.phi_skewness * jnp.sin(phi)
    tilted = Tilted(kappa, constant, sine.psi_skewness * jnp.sin(shift), sine.psi_skewness * jnp.cos(shift))
    return jnp.stack([phi, shift + _attach_tilted(tilted, apart)], -1)


def _attach_tilted(tilted: Tilted, t: Array) -> Array:
    def velocity(tilted: Tilted, t: Array, moving: Tilted) -> Array:
        return half_circle_velocity(_density, lambda square: _ends(tilted, square), t, tilted, moving)

    return attach(t, tilted, velocity)


def _density(tilted: Tilted, square: Array) -> Callable[[Place], Parts]:
    def parts(place: Place) -> Parts:
        even = tilted.constant + tilted.cosine * (1 - 2 * place.square)
        return Parts(-2 * tilted.kappa * place.further, even, tilted.sine * place.sine)

    return parts


def _ends(tilted: Tilted, square: Array) -> tuple[Array, Array]:
    return jnp.zeros_like(square), square + cutoff(square.dtype) / (2 * tilted.kappa)
