"""Unknown scales: what they are about, from what the data say of the values that have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from autovi.ladder.pseudo_data import places_of
from autovi.program.program import Program

# On the unconstrained scale, that an unknown scale is moved at once: farther away the data may say something else.
FARTHEST = 1.5
GRID = 121  # moves that are compared


class Site(NamedTuple):
    """Of a non-centred site at a place: `precision` and `value` of its pseudo-data, `location`, `log_scale`, and
    `slope`, that of its mean log scale in the point."""

    precision: np.ndarray
    value: np.ndarray
    location: np.ndarray
    log_scale: np.ndarray
    slope: np.ndarray


def rescaled(program: Program, point: np.ndarray, sites: Mapping[str, Site]) -> np.ndarray:
    r"""The point with unknown scales where the pseudo-data of the values that have them are most likely.

    Given the pseudo-data d with precisions w, the values that have a scale s times r have the evidence
    :math:`\prod_i N(d_i; m_i, r^2 s_i^2 + 1 / w_i)`. The r with the highest product of it and r is taken (r for the
    change to the logarithm, on whose scale a start is), where the scale depends on one number alone. The elements of
    vectors count as independent.
    """
    found, places = np.array(point, np.float64), places_of(program)
    scales = [n for n in program.plan.scales if n in places]
    moves = np.linspace(-FARTHEST, FARTHEST, GRID)
    gains: dict[int, np.ndarray] = {}
    for name, site in sites.items():
        parents = [n for n in scales if np.abs(site.slope[places[n]]).sum() > 0]
        if name not in places or len(parents) != 1 or places[parents[0]].stop - places[parents[0]].start != 1:
            continue
        place = places[parents[0]].start
        evidence = _log_evidence(site, float(site.slope[place]) * moves)
        gains[place] = gains.get(place, moves * np.sign(site.slope[place])) + evidence
    for place, gain in gains.items():
        found[place] += moves[np.argmax(gain)]
    return found


def _log_evidence(site: Site, log_ratios: np.ndarray) -> np.ndarray:
    known = site.precision > 0
    precision, apart = site.precision[known], (site.value - site.location)[known]
    odds = np.exp(np.minimum(2 * (site.log_scale[known] + log_ratios[:, None]) + np.log(precision), 200.0))
    return -0.5 * np.sum(np.log1p(odds) + precision * apart**2 / (1 + odds), axis=1)


def as_site(place: Any, name: str, precision: np.ndarray, value: np.ndarray) -> Site:
    """What of a place (`pseudo_data.Place`, as arrays of the host) is a site's."""
    wide = lambda x: np.asarray(x, np.float64).ravel()  # noqa: E731
    return Site(
        wide(precision),
        wide(value),
        wide(place.locations[name]),
        wide(place.log_scales[name]),
        wide(place.slopes[name]),
    )
