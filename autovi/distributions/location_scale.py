"""The distributions that have a location and a scale, or a scale alone: how each is read, one row a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions.transforms import ExpTransform, IdentityTransform, IndependentTransform

from autovi.distributions.coordinates import Coordinates, Positive, PseudoData, Triangular, Univariate, Walk, finite_log
from autovi.distributions.densities import log_density, read_through
from autovi.distributions.registry import strip
from autovi.distributions.supports import bijection_to

# (distribution, standardized value) -> the log density of the value, on the distribution's own scale.
Standard = Callable[[Any, Array], Array]


@dataclass(frozen=True)
class Row:
    """How a class is read.

    Args:
        coordinates: its distribution -> the coordinates that its parameters give.
        density: the log density from the standardized value; None where that from the value is as good.
    """

    coordinates: Callable[[Any], Coordinates]
    density: Standard | None = None


def _real(unit: Callable[[Any], dist.Distribution], location: str = "loc", scale: str = "scale") -> Row:
    """Names the attributes that hold location and scale; `unit` is the distribution with location 0 and scale 1."""

    def density(fn: Any, standardized: Array) -> Array:
        return log_density(unit(fn), standardized) - finite_log(getattr(fn, scale))

    return Row(lambda fn: Univariate(getattr(fn, location), getattr(fn, scale)), density)


def _positive(scale: str, exponent: int = 1) -> Row:
    """Names the attribute that holds the scale, or with exponent -1 its inverse. A quotient of positive values keeps
    its digits, so the density needs no other way."""
    return Row(lambda fn: Positive(getattr(fn, scale), exponent=exponent))


def _log_normal(fn: Any, standardized: Array) -> Array:
    log_value = fn.loc + fn.scale * standardized
    return log_density(dist.Normal(0.0, 1.0), standardized) - finite_log(fn.scale) - log_value


def _triangular(unit: Callable[[Any], dist.Distribution]) -> Row:
    def density(fn: Any, standardized: Array) -> Array:
        diagonal = jnp.diagonal(fn.scale_tril, axis1=-2, axis2=-1)
        return log_density(unit(fn), standardized) - jnp.sum(finite_log(diagonal), axis=-1)

    return Row(lambda fn: Triangular(fn.loc, fn.scale_tril), density)


def _walk(fn: Any, increments: Array) -> Array:
    return jnp.sum(log_density(dist.Normal(0.0, 1.0), increments), axis=-1) - fn.num_steps * finite_log(fn.scale)


LOCATION_SCALE: dict[str, Row] = {
    "AsymmetricLaplace": _real(lambda fn: dist.AsymmetricLaplace(0.0, 1.0, fn.asymmetry)),
    "AsymmetricLaplaceQuantile": _real(lambda fn: dist.AsymmetricLaplaceQuantile(0.0, 1.0, fn.quantile)),
    "Cauchy": _real(lambda fn: dist.Cauchy(0.0, 1.0)),
    "Dagum": _positive("scale"),
    "Exponential": _positive("rate", -1),
    "Gamma": _positive("rate", -1),
    "GaussianRandomWalk": Row(lambda fn: Walk(fn.scale), _walk),
    "Gompertz": _positive("rate", -1),
    "Gumbel": _real(lambda fn: dist.Gumbel(0.0, 1.0)),
    "HalfCauchy": _positive("scale"),
    "HalfNormal": _positive("scale"),
    "InverseGamma": _positive("rate"),  # the rate of the gamma variable whose inverse it is
    "Laplace": _real(lambda fn: dist.Laplace(0.0, 1.0)),
    "LogNormal": Row(lambda fn: Univariate(fn.loc, fn.scale), _log_normal),
    "Logistic": _real(lambda fn: dist.Logistic(0.0, 1.0)),
    "MultivariateNormal": _triangular(lambda fn: dist.Normal(0.0, 1.0).expand(fn.event_shape).to_event(1)),
    "MultivariateStudentT": _triangular(
        lambda fn: dist.MultivariateStudentT(fn.df, jnp.zeros(fn.event_shape), jnp.eye(*fn.event_shape))
    ),
    "Normal": _real(lambda fn: dist.Normal(0.0, 1.0)),
    "SoftLaplace": _real(lambda fn: dist.SoftLaplace(0.0, 1.0)),
    "StudentT": _real(lambda fn: dist.StudentT(fn.df, 0.0, 1.0)),
    "Weibull": _positive("scale"),
}


def coordinates_of(fn: dist.Distribution) -> Coordinates | None:
    """The partly non-centred coordinates of a site's distribution, wrappers read through; None where it has none.

    A subclass of a listed class may mean something else by its attributes, and has none either.

    Example:
        >>> coordinates_of(dist.Normal(1.0, 2.0).expand([3])).spread
        2.0
    """
    row = _row(fn)
    return None if row is None else row.coordinates(strip(fn))


def standardized_log_density(fn: dist.Distribution, node: Array, at: PseudoData) -> Array | None:
    """The log density of `fn` at the value of a node, from the standardized value: as `log_density` there, with the
    digits that (x - m) / s loses. None where the class has no such formula.

    Returns:
        The batch shape of `fn`, masked elements 0.
    """
    row = _row(fn)
    if row is None or row.density is None:
        return None
    standardized = row.coordinates(strip(fn)).standardized(node, at)
    return read_through(row.density, fn, standardized)


def _row(fn: dist.Distribution) -> Row | None:
    base = strip(fn)
    name = type(base).__name__
    if name not in LOCATION_SCALE or getattr(dist, name) is not type(base):
        return None
    plain = bijection_to(base.support)
    while isinstance(plain, IndependentTransform):
        plain = plain.base_transform
    return LOCATION_SCALE[name] if isinstance(plain, IdentityTransform | ExpTransform) else None
