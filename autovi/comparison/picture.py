"""The pair plot of a comparison. Matplotlib is imported with this file."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovi.result import export
from autovi.result.plots.figure import Picture

if TYPE_CHECKING:
    from autovi.comparison.comparing import Comparison

SHOWN, MOST = 4, 8
PANEL = 2.4  # inches


def pairs(found: Comparison, var_names: str | Sequence[str] | None, num_draws: int) -> Figure:
    """See `Comparison.plot`."""
    names = _chosen(found, var_names)
    size = max(4.5, PANEL * len(names))
    figure = Picture(figsize=(size, size), layout="constrained")
    grid = figure.subplots(len(names), len(names), squeeze=False)
    for row, below in enumerate(names):
        for column, beside in enumerate(names):
            ax = grid[row][column]
            if column > row:
                ax.set_axis_off()
            elif column == row:
                _density(ax, found, below)
            else:
                _points(ax, found, beside, below, num_draws)
            ax.set(xlabel=beside if row == len(names) - 1 else "", ylabel=below if column == 0 and row else "")
    if len(names) > 1:  # above the diagonal there is room
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="upper right")
    else:
        grid[0][0].legend(fontsize=8)
    figure.suptitle(f"{len(names)} of {len(found.scalars)} scalars", fontsize=9)
    return figure


def _chosen(found: Comparison, asked: str | Sequence[str] | None) -> list[str]:
    if asked is None:
        far = {s: max(_far(own[s].wasserstein) for own in found.distances.values()) for s in found.scalars}
        farthest = sorted(far, key=lambda s: -far[s])[:SHOWN]
        return [s for s in found.scalars if s in farthest]
    patterns = [asked] if isinstance(asked, str) else list(asked)
    named = lambda s: any(s == p or fnmatchcase(s.split("[")[0], p) for p in patterns)  # noqa: E731
    chosen = [s for s in found.scalars if named(s)]
    if not 0 < len(chosen) <= MOST:
        raise ValueError(f"var_names: expected 1 to {MOST} scalars of {list(found.scalars)}, got {chosen}")
    return chosen


def _far(distance: float) -> float:
    return -1.0 if np.isnan(distance) else distance


def _density(ax: Axes, found: Comparison, scalar: str) -> None:
    for number, (name, own) in enumerate(found.draws.items()):
        values = own[scalar].values
        if np.ptp(values) > 0:
            ax.plot(*export.density(values), color=f"C{number}", label=name)
        else:
            ax.axvline(values[0], color=f"C{number}", label=name)
    ax.set_yticks([])


def _points(ax: Axes, found: Comparison, x: str, y: str, num_draws: int) -> None:
    for number, own in enumerate(found.draws.values()):
        count = len(own[x].values)
        kept = np.linspace(0, count - 1, min(num_draws, count)).round().astype(int)
        ax.plot(own[x].values[kept], own[y].values[kept], ".", color=f"C{number}", ms=3, alpha=0.4, mew=0)
