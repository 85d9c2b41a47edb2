"""The laws of NumPyro's log-concave distributions: those that truncations and copulas are built on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from autovi.implicit.log_concave.base import LogConcave
from autovi.implicit.log_concave.skewed import beta_law, gamma_law
from autovi.implicit.log_concave.symmetric import cosh_law, laplace_law, normal_law


def log_concave_of(fn: Any) -> LogConcave | None:
    """The law of `fn`, an instance of one of the classes below or of a subclass that only sets its parameters."""
    for cls, build in _BUILD.items():
        if isinstance(fn, cls) and type(fn).log_prob is cls.log_prob:
            return build(fn)
    return None


def _floats(*parameters: Any) -> list[Array]:
    dtype = jnp.result_type(*parameters, float)
    return [jnp.asarray(x, dtype) for x in parameters]


def _student(fn: dist.StudentT) -> LogConcave:
    df, loc, scale = _floats(fn.df, fn.loc, fn.scale)
    return cosh_law(df, loc, scale * jnp.sqrt(df), heavy=True)


def _cosh(fn: Any, power: int, width: float, heavy: bool) -> LogConcave:
    loc, scale = _floats(fn.loc, fn.scale)
    return cosh_law(power, loc, width * scale, heavy)


_BUILD: dict[type[dist.Distribution], Callable[[Any], LogConcave]] = {
    dist.Beta: lambda fn: beta_law(*_floats(fn.concentration1, fn.concentration0)),
    dist.Cauchy: lambda fn: _cosh(fn, 1, 1.0, heavy=True),
    dist.Gamma: lambda fn: gamma_law(*_floats(fn.concentration, fn.rate)),
    dist.Laplace: lambda fn: laplace_law(*_floats(fn.loc, fn.scale)),
    dist.Logistic: lambda fn: _cosh(fn, 2, 2.0, heavy=False),
    dist.Normal: lambda fn: normal_law(*_floats(fn.loc, fn.scale)),
    dist.SoftLaplace: lambda fn: _cosh(fn, 1, 1.0, heavy=False),
    dist.StudentT: _student,
}
