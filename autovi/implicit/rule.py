"""What the library knows of a distribution class, the table of it, and how users add to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution

from autovi.distributions import registry
from autovi.distributions.table import ROUTES, Known
from autovi.implicit.attach import Velocity

# draw(rng_key, fn, shape): draws of shape `shape + fn.event_shape`, gradients attached; `fn`'s batch shape broadcasts
# to `shape`, every element of which is drawn independently.
DrawRule = Callable[[Array, Any, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Rule:
    """How the draws of one class are differentiated, and drawn.

    Attributes:
        velocity: d value for a value drawn from a distribution of the class; the first argument of `Velocity` is the
            distribution itself, the third the same distribution with tangents for parameters.
        draw: the class's draws with their gradient; None: NumPyro's sampler, with the velocity attached.
        validate: validate(fn) -> fn, run before anything else: refuses a distribution whose draws have no derivative,
            and forbids the parameters in which they have none. What is a constant to the caller still is one there.
    """

    velocity: Velocity
    draw: DrawRule | None = None
    validate: Callable[[Any], Any] | None = None


RULES: dict[type, Rule] = {}  # filled by `table` and by users


def rule_of(fn: Any) -> Rule | None:
    """The rule of the class of `fn`, or of an ancestor that draws and weighs values alike."""
    for cls in type(fn).__mro__:
        if cls in RULES:
            return RULES[cls] if acts_as(fn, cls) else None
    return None


def is_plain_transformed(fn: Any) -> bool:
    """Is `fn` no more than its base distribution and its transforms?"""
    return acts_as(fn, dist.TransformedDistribution)


def acts_as(fn: Any, cls: type) -> bool:
    """Is `fn` of that class, or of a subclass that draws and weighs values alike?"""
    same = all(getattr(type(fn), method, None) is getattr(cls, method) for method in ("sample", "log_prob"))
    return isinstance(fn, cls) and same


def register(
    cls: type[Distribution],
    velocity: Velocity,
    draw: DrawRule | None = None,
    *,
    routes: Mapping[str, str] | None = None,
    moving_support: tuple[str, ...] = (),
) -> None:
    """Makes a class's draws differentiable: `sample`, `reparameterize` and the `implicit` estimator then know it.

    dz = -(dS/dz)^-1 dS/dtheta dtheta, S the distribution function or another standardization: Figurnov, Mohamed and
    Mnih (2018), "Implicit Reparameterization Gradients", equation 5. Nothing is tried: the velocity is taken at its
    word.

    Args:
        cls: the distribution class; subclasses that draw and weigh values alike have the same rule.
        velocity: `velocity(distribution, value, moving)`, the derivative of a value as the parameters move: `moving` is
            the same distribution holding tangents. Linear in `moving`.
        draw: `draw(rng_key, distribution, shape)`, draws of shape `shape + event_shape` with their derivative; None:
            the class's own `sample`.
        routes: for the plan, parameter -> "analytic", "cdf", "quadrature" or "triangular"; None: all analytic.
        moving_support: parameters that move the support, in which the score function would be wrong.

    Raises:
        TypeError: not a distribution class.
        ValueError: a class of NumPyro's own, or an unknown route.

    Example:
        >>> autovi.implicit.register(Rayleigh, lambda fn, value, moving: value / fn.scale * moving.scale)
    """
    if not (isinstance(cls, type) and issubclass(cls, Distribution)):
        raise TypeError(f"register: expected a distribution class, got {cls!r}")
    if cls.__module__.startswith("numpyro."):
        raise ValueError(f"register: {cls.__name__} is NumPyro's own and has a rule; register a subclass")
    routes = dict.fromkeys(cls.arg_constraints, "analytic") if routes is None else dict(routes)
    unknown = sorted(set(routes.values()) - set(ROUTES))
    if unknown:
        raise ValueError(f"register: unknown routes {unknown}; expected some of {list(ROUTES)}")
    RULES[cls] = Rule(velocity, draw)
    registry.add(cls, Known("implicit", implicit=routes, moving_support=moving_support))


def require_distribution(fn: Any) -> None:
    """Raises a TypeError for anything else."""
    if not isinstance(fn, Distribution):
        raise TypeError(f"distribution: expected a NumPyro distribution, got {type(fn).__name__}")


def routes(distribution: Any) -> dict[str, str | None]:
    """For each parameter of a distribution, how its draws are differentiated in it.

    "explicit": the derivative of NumPyro's own map of noise, z = t(eps; theta), by JAX or in closed form. The others by
    dz/dtheta = -(dS/dz)^-1 dS/dtheta (Figurnov, Mohamed and Mnih, 2018, "Implicit Reparameterization Gradients",
    equation 5), S the distribution function: "analytic" in closed form, given the derivatives of the distributions
    inside; "cdf" by differentiating a `cdf`; "quadrature" by integrating the score; "triangular" with S the conditional
    distribution functions, one coordinate after the other. None: the draws have no derivative in it, or do not follow
    the log density, as those of censored distributions.

    Args:
        distribution: a NumPyro distribution; wrappers are read through.

    Returns:
        The route by the parameter's name. Attributes that are distributions themselves count as parameters:
        "base_dist", "mixing_distribution". NumPyro's `has_rsample` is not consulted.

    Raises:
        TypeError: not a distribution.

    Example:
        >>> autovi.implicit.routes(dist.StudentT(4.0))
        {'df': 'quadrature', 'loc': 'explicit', 'scale': 'explicit'}
    """
    require_distribution(distribution)
    fn = registry.strip(distribution)
    row = registry.lookup(fn)
    found: dict[str, str | None] = {}
    for name in dict.fromkeys([*_parameters(fn), *row.implicit, *row.not_pathwise]):
        missing = row.pathwise is None or name in row.not_pathwise
        found[name] = None if missing else row.implicit.get(name, "explicit")
    return found


def _parameters(fn: Any) -> list[str]:
    if isinstance(fn, (dist.MixtureGeneral, dist.MixtureSameFamily)):
        return ["mixing_distribution", "components"]
    names = [name for name in fn.arg_constraints if name in vars(fn)]
    # Truncated, gated and folded distributions take another one as it is.
    names += ["base_dist"] if "base_dist" in inspect.signature(type(fn)).parameters else []
    if names or type(fn) is not dist.TransformedDistribution:
        return names
    return [*_parameters(registry.strip(fn.base_dist)), "transforms"]
