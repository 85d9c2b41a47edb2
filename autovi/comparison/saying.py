"""A comparison in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autovi.comparison.distances import Distance
from autovi.numbers import how_many

# In standard deviations of the reference, and of the log of a standard deviation: less is of no consequence.
ALIKE = 0.1
ERRORS = 4.0  # standard errors, within which a difference may be chance: one scalar in 10,000, and there are many
TOLD = 0.075  # sds, to which a mean has to be known: of 400 draws each it is to 0.071


def said(
    reference: str, distances: Mapping[str, Mapping[str, Distance]], missing: Mapping[str, tuple[str, ...]]
) -> str:
    """What of the distances is worth a line."""
    parts = [_of_one(name, reference, own) for name, own in distances.items()]
    if missing:
        lacking = ", ".join(f"{v!r} (not in {', '.join(map(repr, names))})" for v, names in missing.items())
        parts.append(f"not compared: {lacking}")
    return "; ".join(parts)


def _of_one(name: str, reference: str, own: Mapping[str, Distance]) -> str:
    known = {s: d for s, d in own.items() if not math.isnan(d.wasserstein)}
    if not known:
        return f"{name!r}: nothing to compare with {reference!r}"
    off = {s: d for s, d in known.items() if differs(d)}
    chosen = off or known
    worst = max(chosen, key=lambda s: chosen[s].wasserstein - chosen[s].wasserstein_noise)
    d = known[worst]
    at = (
        f"mean {d.mean_shift:+.2f} ± {d.mean_shift_se:.2f} sds, sd times {math.exp(d.log_sd_ratio):.2f}, Wasserstein "
        f"{d.wasserstein:.2f} sds (by chance {d.wasserstein_noise:.2f})"
    )
    if off:
        share = f"{len(off)} of {how_many(len(known), 'scalar')}"
        return f"{name!r} differs from {reference!r} at {share}, most at {worst!r}: {at}"
    told = "" if all(is_told(d) for d in known.values()) else ", as far as so few draws tell"
    return f"{name!r} agrees with {reference!r} at {how_many(len(known), 'scalar')}{told}; farthest at {worst!r}: {at}"


def differs(d: Distance) -> bool:
    """Is a scalar off by more than is of no consequence, and not by chance?"""
    mean = abs(d.mean_shift) > ALIKE + ERRORS * d.mean_shift_se
    sd = abs(d.log_sd_ratio) > ALIKE + ERRORS * d.log_sd_ratio_se
    return mean or sd or d.wasserstein > ALIKE + ERRORS * d.wasserstein_noise


def is_told(d: Distance) -> bool:
    """Would there be a difference that matters, would it show?"""
    return d.mean_shift_se <= TOLD
