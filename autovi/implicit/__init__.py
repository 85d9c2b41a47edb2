"""Implicit reparameterization: draws of any continuous distribution with the right derivative in its parameters.

The two tricks, the formula of every distribution, and when implicit gradients lose: docs/implicit.md.
"""

from __future__ import annotations

from typing import Any

from jax import Array

import autovi.implicit.table  # noqa: F401
from autovi.implicit.attach import attach
from autovi.implicit.dispatch import draw, reparameterize
from autovi.implicit.generic.by_log_prob import unnormalized_velocity
from autovi.implicit.generic.checking import CheckReport
from autovi.implicit.generic.rules import check
from autovi.implicit.multivariate.factorized import draw_sequential, factorized, sequential
from autovi.implicit.rule import register, routes
from autovi.implicit.univariate.gamma import loggamma
from autovi.implicit.validation import validated
from autovi.keys import as_key

__all__ = [
    "CheckReport",
    "attach",
    "check",
    "draw_sequential",
    "factorized",
    "loggamma",
    "register",
    "reparameterize",
    "routes",
    "sample",
    "sequential",
    "unnormalized_velocity",
]


def sample(rng_key: Array | int, distribution: Any, sample_shape: tuple[int, ...] = ()) -> Array:
    """Draws that are differentiable in the parameters of the distribution, by implicit reparameterization where no
    explicit map of noise would do.

    dz/dtheta = -(dS/dz)^-1 dS/dtheta at fixed S(z; theta): Figurnov, Mohamed and Mnih (2018), "Implicit
    Reparameterization Gradients", equation 5. `routes` says how it is taken for each parameter. Right in expectation
    for costs that are continuous in z, and on a circle periodic; second derivatives too.

    Args:
        rng_key: a JAX key, or an integer.
        distribution: a NumPyro distribution; wrappers, transforms and batches are read through. One that the library
            does not know is tried on a few values first (`check`).
        sample_shape: as for NumPyro's `sample`.

    Returns:
        Draws of shape `sample_shape + batch_shape + event_shape`.

    Raises:
        TypeError: not a distribution, or one whose draws have no derivative; or someone differentiates in a parameter
            in which they have none, such as the gate of a hurdle distribution; or `sample_shape` is no tuple.
        ValueError: discrete values, a distribution of one's own that fails a check, or `rng_key` is no key.

    Example:
        >>> mean = lambda a: autovi.implicit.sample(0, dist.Gamma(a, 2.0), (1000,)).mean()
        >>> jax.grad(mean)(3.0)  # about 1/2
    """
    distribution = validated(distribution)
    if not isinstance(sample_shape, (tuple, list)):
        raise TypeError(f"sample_shape: expected a tuple of integers, got {sample_shape!r}")
    return draw(as_key(rng_key), distribution, (*sample_shape, *distribution.batch_shape))


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
