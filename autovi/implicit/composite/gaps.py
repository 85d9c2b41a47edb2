"""Whether the components of a mixture leave a gap between them: mass that jumps over it has no pathwise derivative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autovi.implicit.composite.supports import Ends, all_equal, is_known


def gap_between(ends: Sequence[Ends]) -> str | None:
    """Why intervals may not make one together; None where they do.

    Ends that are traced are not known: then one that all have in common, a constant or none at all, settles it.
    """
    known = [pair for pair in ends if pair is not None]
    if len(ends) == 1:
        return None
    if len(known) < len(ends):
        return "the supports of its components are not known to be intervals, so that there may be a gap between them"
    lower, upper = zip(*known, strict=True)
    if all_equal(lower) or all_equal(upper):
        return None
    if not all(map(is_known, lower + upper)):
        return "the supports of its components end where parameters say, so that there may be a gap between them"
    low, high = np.split(np.stack(np.broadcast_arrays(*lower, *upper)), 2)
    order = np.argsort(low, axis=0)
    low, high = np.take_along_axis(low, order, 0), np.take_along_axis(high, order, 0)
    reached = np.maximum.accumulate(high, axis=0)
    return "there is a gap between the supports of its components" if np.any(low[1:] > reached[:-1]) else None
