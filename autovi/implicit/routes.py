"""Which way each parameter's derivative is taken."""

from __future__ import annotations

import inspect
from typing import Any

import numpyro.distributions as dist

from autovi.distributions import registry
from autovi.implicit.guard import require_distribution


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
