"""Supports, before the model runs: finite ones listed, others mapped to the real line."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from autovi.distributions.registry import lookup, strip


def bijection_to(support: Any) -> Transform | None:
    """NumPyro's bijection from the real line, or a space of reals, to a support; None where it has none.

    That a support has none is said by an exception only.
    """
    try:
        return biject_to(support)
    except NotImplementedError:
        return None


def support_size(fn: dist.Distribution) -> int | None:
    """How many values a draw of `fn` (one scalar) can take, as a Python int.

    None if the support is not a finite enumerable one, if a draw is not a scalar (`support_size(strip(fn))`
    is the number for one element of it), if the support differs between batch elements, or if it depends on
    the values of traced parameters. Other parameters may be traced.
    """
    bounds = _integer_bounds(fn)
    return None if bounds is None else bounds[1] - bounds[0] + 1


def support_values(fn: dist.Distribution) -> np.ndarray | None:
    """The values a draw of `fn` (one scalar) can take, ascending: a concrete integer array `(support_size,)`.

    None exactly where `support_size` is None. `support_values(dist.DiscreteUniform(3, 7))` is 3, 4, 5, 6, 7.
    """
    bounds = _integer_bounds(fn)
    return None if bounds is None else np.arange(bounds[0], bounds[1] + 1, dtype=jnp.result_type(int))


def _integer_bounds(fn: dist.Distribution) -> tuple[int, int] | None:
    """First and last value of the support of a scalar draw, or None (see `support_size`).

    Read from the constraint, not from the parameters: reshaping a parameter beside a traced one may make a
    tracer of it, while the support keeps what the user passed.
    """
    if fn.event_shape or not lookup(fn).enumerable:
        return None
    fn = strip(fn)
    support: Any = fn.support
    if support is constraints.boolean:
        return 0, 1
    if not isinstance(support, constraints.integer_interval):
        return None
    low, high = _concrete_int(support.lower_bound), _concrete_int(support.upper_bound)
    if low is None or high is None or high < low:
        return None
    # Inflation puts mass on zero even where the support of the base, which NumPyro reports, does not have it.
    if isinstance(fn, dist.ZeroInflatedProbs) and not low <= 0 <= high:
        return None
    return low, high


def _concrete_int(bound: Any) -> int | None:
    """`bound` as a Python int, None if it is traced or differs between batch elements."""
    if isinstance(bound, jax.core.Tracer):
        return None
    values = np.unique(np.asarray(bound))
    return int(values[0]) if values.size == 1 else None
