"""Draws of two dependent angles with their gradient: `SineBivariateVonMises`, and what its skewed form shares with it.

Triangular standardization: phi by its marginal distribution, psi by its distribution given phi, a von Mises that moves
with phi. All angles are centred: their locations are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.lax import bessel_i0e, bessel_i1e

from autovi.implicit.attach import attach
from autovi.implicit.circular.half_circle import Parts, Place, half_circle_velocity
from autovi.implicit.circular.von_mises import angle_slope, draw_angle, envelope, propose, wrap
from autovi.implicit.numerics.quadrature import cutoff
from autovi.implicit.numerics.sampling import until_accepted

HALVINGS = 12


class Sine(NamedTuple):
    """The density exp(first cos phi + second cos psi + correlation sin phi sin psi), up to a factor.

    With skewness it has the factor 1 + phi_skewness sin phi + psi_skewness sin psi too.
    """

    first: Array
    second: Array
    correlation: Array
    phi_skewness: Array | None = None
    psi_skewness: Array | None = None


def draw_sine_bivariate(rng_key: Array, fn: dist.SineBivariateVonMises, shape: tuple[int, ...]) -> Array:
    """Draws of a `SineBivariateVonMises`, of shape `shape + (2,)`, wrapped to [-pi, pi).

    Right for costs that are continuous on the torus, of period 2 pi in each angle. NumPyro's own sampler takes I0 for a
    sum of 250 terms, which is too few, and its draws wrong, where the concentration of psi is about 1,000. Singh,
    Hnizdo and Demchuk (2002), "Probabilistic model for two dependent circular variables".
    """
    sine = sine_of(fn)
    return wrap(locations(fn) + attach_pair(sine, *draw_pair(rng_key, jax.lax.stop_gradient(sine), shape)))


def sine_bivariate_velocity(fn: dist.SineBivariateVonMises, value: Array, moving: dist.SineBivariateVonMises) -> Array:
    """dlocation, and what the centred angles do as the concentrations and the correlation move."""
    sine = sine_of(fn)
    centred = wrap(value - locations(fn))
    pair = split_pair(sine, centred)
    return locations(moving) + jax.jvp(lambda sine: attach_pair(sine, *pair), (sine,), (sine_of(moving),))[1]


def sine_of(fn: dist.SineBivariateVonMises) -> Sine:
    """Its concentrations and correlation."""
    return Sine(fn.phi_concentration, fn.psi_concentration, fn.correlation)


def locations(fn: dist.SineBivariateVonMises) -> Array:
    """Its locations, along a last axis."""
    return jnp.stack([fn.phi_loc, fn.psi_loc], -1)


def conditional(sine: Sine, phi: Array) -> tuple[Array, Array]:
    """Location and concentration of psi given phi, a von Mises, without skewness."""
    side = sine.correlation * jnp.sin(phi)
    return jnp.arctan2(side, sine.second), jnp.sqrt(sine.second**2 + side**2)


def split_pair(sine: Sine, centred: Array) -> tuple[Array, Array]:
    """phi, and psi less its location given phi; `centred` holds phi and psi along its last axis."""
    phi = centred[..., 0]
    return phi, wrap(centred[..., 1] - conditional(sine, phi)[0])


def attach_pair(sine: Sine, phi: Array, apart: Array) -> Array:
    """phi and psi along a last axis with their gradient, from what `split_pair` or `draw_pair` gives."""
    phi = attach_phi(sine, phi)
    shift, kappa = conditional(sine, phi)
    moved = attach(apart, kappa, lambda kappa, value, moving: angle_slope(value, kappa) * moving)
    return jnp.stack([phi, shift + moved], -1)


def attach_phi(sine: Sine, phi: Array) -> Array:
    """phi with the gradient of its marginal distribution, skewness included."""

    def velocity(sine: Sine, phi: Array, moving: Sine) -> Array:
        return half_circle_velocity(_marginal, lambda square: _ends(sine, square), phi, sine, moving)

    return attach(phi, sine, velocity)


def _marginal(sine: Sine, square: Array) -> Callable[[Place], Parts]:
    """phi's density: exp(first cos phi) I0(kappa) (1 + sin phi (phi_skewness + psi_skewness lean)).

    kappa is psi's concentration given phi, and lean = correlation I1(kappa) / I0(kappa) / kappa.
    """
    slant = sine.correlation**2
    at_draw = jnp.sqrt(sine.second**2 + 4 * slant * square * (1 - square))
    scaled_at_draw = bessel_i0e(at_draw)

    def parts(place: Place) -> Parts:
        kappa = jnp.sqrt(sine.second**2 + slant * place.sine**2)
        scaled = bessel_i0e(kappa)
        more = 4 * slant * place.further * (1 - 2 * place.square + place.further) / (kappa + at_draw)  # kappa - at_draw
        exponent = more - 2 * sine.first * place.further + jnp.log(scaled / scaled_at_draw)
        one = jnp.ones_like(exponent)
        if sine.phi_skewness is None or sine.psi_skewness is None:
            return Parts(exponent, one, jnp.zeros_like(one))
        lean = sine.correlation * bessel_i1e(kappa) / (scaled * kappa)
        return Parts(exponent, one, place.sine * (sine.phi_skewness + sine.psi_skewness * lean))

    return parts


def _ends(sine: Sine, square: Array) -> tuple[Array, Array]:
    """v = sin^2(u/2) left and right of the draw's where phi's density is a cutoff below its value there.

    kappa - 2 first v, which the log density follows up to half a logarithm of kappa, is a concave function of v. Where
    it has fallen to m, (second^2 + correlation^2 4 v (1 - v)) = (m + 2 first v)^2, if m + 2 first v is positive.
    """
    slant = sine.correlation**2
    fallen = cutoff(square.dtype) + jnp.log1p(jnp.abs(sine.correlation)) / 2
    kappa = jnp.sqrt(sine.second**2 + 4 * slant * square * (1 - square))
    m = kappa - 2 * sine.first * square - fallen
    leading, middle = sine.first**2 + slant, slant - sine.first * m
    root = jnp.sqrt(jnp.maximum(middle**2 - leading * (m**2 - sine.second**2), 0.0))
    low, high = (middle - root) / (2 * leading), (middle + root) / (2 * leading)
    return (
        jnp.where(m + 2 * sine.first * low > 0, low, 0.0),
        jnp.where(m + 2 * sine.first * high > 0, high, 1.0),
    )


def draw_pair(rng_key: Array, sine: Sine, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Draws of phi, and of psi less its location given phi, without gradient or skewness."""
    phi_key, psi_key = jax.random.split(rng_key)
    phi = _draw_phi(phi_key, sine, shape)
    return phi, draw_angle(psi_key, conditional(sine, phi)[1], shape)


def _draw_phi(rng_key: Array, sine: Sine, shape: tuple[int, ...]) -> Array:
    """Rejection from exp(-rate sin^2 phi), which is a von Mises of twice the angle.

    phi and phi + pi have one sine and together the density exp(h(sin^2 phi)), h(y) = log cosh(first sqrt(1 - y)) + log
    I0(sqrt(second^2 + correlation^2 y)). Both terms are concave, so h lies below each of its tangents.
    """
    first, second, correlation = (jnp.broadcast_to(x, shape) for x in sine[:3])
    axis_key, side_key = jax.random.split(rng_key)
    square = _touch(sine)
    rate = jnp.broadcast_to(_fall(sine, square), shape)
    width, ceiling = envelope(jnp.abs(rate) / 2)
    at, kappa_at = jnp.sqrt(1 - square), jnp.sqrt(second**2 + correlation**2 * square)
    level = jnp.log1p(jnp.exp(-2 * first * at)) + jnp.log(bessel_i0e(kappa_at))

    def propose_axis(noise: Array) -> tuple[Array, Array]:
        r, exponent = propose(noise, jnp.abs(rate) / 2, width, ceiling)
        sine_phi, cosine = _axis(r, rate)
        kappa = jnp.sqrt(second**2 + (correlation * sine_phi) ** 2)
        slope = correlation**2 / (kappa + kappa_at) - first / (cosine + at) + rate
        exponent += (sine_phi**2 - square) * slope - level
        exponent += jnp.log1p(jnp.exp(-2 * first * cosine)) + jnp.log(bessel_i0e(kappa))
        return r, exponent

    sine_phi, cosine = _axis(until_accepted(axis_key, propose_axis, rate)[1], rate)
    front = jax.random.uniform(side_key, shape, cosine.dtype) < jax.nn.sigmoid(2 * first * cosine)
    return jnp.arctan2(sine_phi, jnp.where(front, cosine, -cosine))


def _axis(r: Array, rate: Array) -> tuple[Array, Array]:
    """sin phi and |cos phi| for r = tan(t/4), t the von Mises angle: phi is t/2, or for negative rates (t + pi)/2."""
    shrink = 1 / (1 + r * r)
    sine, cosine = 2 * r * shrink, (1 - r * r) * shrink
    return jnp.where(rate < 0, jnp.copysign(cosine, r), sine), jnp.where(rate < 0, jnp.abs(sine), cosine)


def _fall(sine: Sine, square: Array) -> Array:
    """-h'(y) at y = `square`."""
    cosine = jnp.sqrt(1 - square)
    kappa = jnp.sqrt(sine.second**2 + sine.correlation**2 * square)
    lean = bessel_i1e(kappa) / (bessel_i0e(kappa) * kappa)
    return (sine.first * jnp.tanh(sine.first * cosine) / cosine - sine.correlation**2 * lean) / 2


def _touch(sine: Sine) -> Array:
    """The y at whose tangent most proposals are accepted: about their own mean of sin^2 phi, found by bisection."""

    def halve(i: Array, low: Array) -> Array:
        middle = low + 0.5 ** (i + 1)
        half_rate = _fall(sine, middle) / 2
        mean = (1 - half_rate / (0.5 + jnp.sqrt(half_rate**2 + 2.25))) / 2
        return jnp.where(mean > middle, middle, low)

    low = jax.lax.fori_loop(0, HALVINGS, halve, jnp.zeros_like(sine.first))
    return low + 0.5 ** (HALVINGS + 1)
