"""Whether the supports of a mixture's components leave a gap: mass that jumps over it has no pathwise derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints


def gap_between(supports: Sequence[Any]) -> str | None:
    """Why the union of the supports of univariate distributions may not be an interval; None where it is one.

    Ends that are traced are not known: then one that all have in common, a constant or none at all, settles it.
    """
    if all(support is supports[0] for support in supports):
        return None
    lower, upper = zip(*map(_ends, supports), strict=True)
    if _all_equal(lower) or _all_equal(upper):
        return None
    if not all(map(_is_known, lower + upper)):
        return "the supports of its components end where parameters say, so that there may be a gap between them"
    low, high = np.split(np.stack(np.broadcast_arrays(*lower, *upper)), 2)
    order = np.argsort(low, axis=0)
    low, high = np.take_along_axis(low, order, 0), np.take_along_axis(high, order, 0)
    reached = np.maximum.accumulate(high, axis=0)
    return "there is a gap between the supports of its components" if np.any(low[1:] > reached[:-1]) else None


def _ends(support: Any) -> tuple[ArrayLike, ArrayLike]:
    """Not a number where they are not known."""
    below, above = (hasattr(support, f"{end}_bound") for end in ("lower", "upper"))
    if not below and not above and support is not constraints.real:
        return np.nan, np.nan
    return (support.lower_bound if below else -np.inf), (support.upper_bound if above else np.inf)


def _is_known(end: ArrayLike) -> bool:
    return not isinstance(end, jax.core.Tracer) and not np.any(np.isnan(np.asarray(end)))


def _all_equal(ends: Sequence[ArrayLike]) -> bool:
    return all(map(_is_known, ends)) and all(np.all(np.equal(end, ends[0])) for end in ends)
