"""Densities of single scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autovi.result import export
from autovi.result.plots.figure import FITTED, MEASURED, SMALL, note, say, short
from autovi.result.plots.selection import Element

COLUMNS = 3
MOST_BARS = 60
SAME = 8  # units in the last place within which all draws are one number


def draw(place: Any, elements: Sequence[Element], total: int) -> None:
    """A panel for each scalar.

    Raises:
        ValueError: axes for one panel, and several scalars.
    """
    if isinstance(place, Axes):
        if total != 1:
            raise ValueError(
                f"ax: expected one scalar for one pair of axes, got {total}; name it by var_names= and coords="
            )
        draw_one(place, elements[0])
        return
    columns = min(COLUMNS, len(elements)) or 1
    grid = place.subplots(max(1, math.ceil(len(elements) / columns)), columns, squeeze=False)
    if not elements:
        say(grid[0, 0], "no draws of a number")
    for ax in grid.flat[len(elements) :]:
        ax.set_axis_off()
    room = 34 if isinstance(place, Figure) else 20  # letters
    for ax, element in zip(grid.flat, elements, strict=False):
        draw_one(ax, element, room)
    shown = f" ({len(elements)} of {total:,} scalars)" if total > len(elements) else ""
    place.suptitle(f"Posterior marginals{shown}")


def draw_one(ax: Axes, element: Element, room: int = 50) -> None:
    """The density of a continuous scalar, probabilities of an integer one; below it median and 94 % interval."""
    ax.set_title(short(element.label, room), fontsize=10)
    draws = element.finite
    if lost := element.draws.size - draws.size:
        note(ax, f"{lost:,} of {element.draws.size:,}\ndraws not finite")
    if draws.size == 0:
        say(ax, "no finite draw")
    elif draws.dtype.kind in "iu":
        _draw_bars(ax, draws)
    elif np.ptp(draws) <= SAME * np.finfo(np.float32).eps * np.abs(draws).max():
        say(ax, f"{'one draw' if element.draws.size == 1 else 'all draws'}: {draws[0]:.4g}")
    else:
        _draw_density(ax, draws)
    ax.tick_params(labelsize=SMALL)


def _draw_bars(ax: Axes, draws: np.ndarray) -> None:
    values, counts = np.unique(draws, return_counts=True)
    width = 0.8
    if values.size > MOST_BARS:
        width = math.ceil((int(values[-1]) - int(values[0]) + 1) / MOST_BARS)
        edges = np.arange(int(values[0]), int(values[-1]) + width + 1, width)
        counts, values = np.histogram(draws, edges - 0.5)[0], edges[:-1] + (width - 1) / 2
    ax.bar(values, counts / draws.size, width=width, color=MEASURED)
    if values.size == 1:  # one bar of the usual width, not a panel full of it
        ax.set_xlim(values[0] - 1.5, values[0] + 1.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    ax.set_ylabel("probability", fontsize=SMALL)
    ax.set_ylim(bottom=0)


def _draw_density(ax: Axes, draws: np.ndarray) -> None:
    grid, height = export.density(draws)
    ax.plot(grid, height, color=MEASURED)
    ax.fill_between(grid, height, color=MEASURED, alpha=0.2, lw=0)
    low, middle, high = np.quantile(draws, [0.03, 0.5, 0.97])
    ax.plot([low, high], [0, 0], color=FITTED, lw=3, solid_capstyle="butt", clip_on=False, zorder=3)
    ax.plot([middle], [0], "o", color=FITTED, ms=6, clip_on=False, zorder=4)
    ax.set_ylabel("density", fontsize=SMALL)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
