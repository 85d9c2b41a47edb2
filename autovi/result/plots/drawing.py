"""The kinds of figures, and how panels make a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from autovi.result.plots import forest, gradients, loss, marginals, weights
from autovi.result.plots.figure import Picture
from autovi.result.plots.selection import Selection
from autovi.result.posterior import Posterior

# Inches: a panel among others, and the rows of a figure of its own.
PANEL = (6.0, 4.2)
ROW = {"marginals": 2.3, "forest": 0.27}


class Kind(NamedTuple):
    """How to draw a kind from the fit or, where it has limits, from the scalars: so many alone, so many in a panel."""

    draw: Callable[..., None]
    alone: int = 0
    in_panel: int = 0


KINDS = {
    "loss": Kind(loss.draw),
    "weights": Kind(weights.draw),
    "gradients": Kind(gradients.draw),
    "marginals": Kind(marginals.draw, 12, 6),
    "forest": Kind(forest.draw, 40, 15),
}
OVERVIEW = ("loss", "weights", "gradients", "marginals")


def draw(
    fit: Posterior,
    kind: str | Sequence[str],
    var_names: str | Sequence[str] | None,
    coords: Mapping[str, Any] | None,
    ax: Axes | None,
) -> Figure | SubFigure:
    """See `plot`."""
    kinds = _kinds(kind)
    if (var_names is not None or coords is not None) and not any(KINDS[k].alone for k in kinds):
        raise ValueError(f"var_names, coords: {', '.join(map(repr, kinds))} shows no variables; leave them out")
    selection = Selection(fit, var_names, coords)
    if len(kinds) == 1:
        return _alone(kinds[0], fit, selection, ax)
    if ax is not None:
        raise ValueError(f"ax: expected one kind for one pair of axes, got {', '.join(map(repr, kinds))}")
    rows = math.ceil(len(kinds) / 2)
    figure = Picture(figsize=(2 * PANEL[0], rows * PANEL[1]), layout="constrained")
    places = figure.subfigures(rows, 2, squeeze=False).flat
    for name, place in zip(kinds, places, strict=False):
        _draw(name, place, fit, selection, KINDS[name].in_panel)
    return figure


def _kinds(kind: str | Sequence[str]) -> tuple[str, ...]:
    kinds = OVERVIEW if kind == "overview" else (kind,) if isinstance(kind, str) else tuple(kind)
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kind: expected 'overview' or some of {list(KINDS)}, got {kind!r}")
    return kinds


def _alone(name: str, fit: Posterior, selection: Selection, ax: Axes | None) -> Figure | SubFigure:
    limit = KINDS[name].alone
    if ax is not None:
        _draw(name, ax, fit, selection, limit)
        return ax.figure
    figure = Picture(figsize=_size(name, len(selection.elements(limit)) if limit else 0), layout="constrained")
    _draw(name, figure, fit, selection, limit)
    return figure


def _size(name: str, scalars: int) -> tuple[float, float]:
    width, height = PANEL
    if name == "marginals":
        columns = max(1, min(marginals.COLUMNS, scalars))
        rows = math.ceil(scalars / columns)
        return max(4.5, 3.4 * columns), max(3.2, 0.5 + ROW[name] * rows)
    return width + 1.0, max(2.5, 1.3 + ROW[name] * scalars) if name == "forest" else height


def _draw(name: str, place: Any, fit: Posterior, selection: Selection, limit: int) -> None:
    if limit:
        KINDS[name].draw(place, selection.elements(limit), selection.total)
    else:
        KINDS[name].draw(place, fit)
