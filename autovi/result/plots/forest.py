"""Intervals of many scalars, one a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autovi.result.plots.figure import SMALL, one_axes, say, short
from autovi.result.plots.selection import Element

QUANTILES = (0.03, 0.25, 0.5, 0.75, 0.97)


def draw(place: Any, elements: Sequence[Element], total: int) -> None:
    """Median, 50 % and 94 % interval with equal tails, a colour for each variable."""
    ax = one_axes(place)
    shown = f" ({len(elements)} of {total:,} scalars)" if total > len(elements) else ""
    ax.set_title(f"Posterior intervals{shown}")
    if not elements:
        say(ax, "no draws of a number")
        return
    variables = list(dict.fromkeys(e.variable for e in elements))
    for row, element in enumerate(elements):
        color = f"C{variables.index(element.variable) % 10}"
        if element.finite.size:
            outer_low, low, middle, high, outer_high = np.quantile(element.finite, QUANTILES)
            ax.plot([outer_low, outer_high], [row, row], color=color, lw=1.5, gid="94 %")
            ax.plot([low, high], [row, row], color=color, lw=4, solid_capstyle="butt", gid="50 %")
            ax.plot([middle], [row], "o", color=color, mfc="white", ms=5, gid="median")
    ax.set_yticks(range(len(elements)), [_label(e) for e in elements], fontsize=SMALL if len(elements) > 12 else None)
    ax.set(ylim=(len(elements) - 0.5, -0.5), xlabel="median, 50 % and 94 % interval")
    ax.grid(axis="x", alpha=0.3)


def _label(element: Element) -> str:
    lost = element.draws.size - element.finite.size
    label = short(element.label, 32)
    return f"{label} ({lost:,} draws not finite)" if lost else label
