"""Distribution classes that users make known to the library."""

from __future__ import annotations

from collections.abc import Mapping

from numpyro.distributions import Distribution

from autovi.distributions import registry
from autovi.distributions.gradients import ROUTES, Gradients
from autovi.implicit.attach import Velocity
from autovi.implicit.rule import RULES, Drawer, Rule


def register(
    cls: type[Distribution],
    velocity: Velocity,
    draw: Drawer | None = None,
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
    registry.add(cls, Gradients("implicit", implicit=routes, moving_support=moving_support))
