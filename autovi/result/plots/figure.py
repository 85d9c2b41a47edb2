"""What the kinds of figures have in common."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours of the user's style: what is measured, what is fitted to it or averaged, and what to look out for.
MEASURED, FITTED, MARKED, PALE = "C0", "C1", "C3", "0.6"
SMALL = 9.0  # points: the smallest letters


class Picture(Figure):
    """A figure that notebooks show, though pyplot, which would keep it open, does not know it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def one_axes(place: Any) -> Axes:
    """The axes given, or the only ones in the figure or the part of a figure given."""
    return place if isinstance(place, Axes) else place.subplots()


def say(ax: Axes, text: str) -> None:
    """A sentence in place of what cannot be shown."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", wrap=True, color="0.3")
    ax.set(xticks=[], yticks=[])


def note(ax: Axes, text: str) -> None:
    """A remark below the title."""
    ax.text(0.99, 0.98, text, transform=ax.transAxes, ha="right", va="top", fontsize=SMALL, color="0.3")


def short(name: str, room: int) -> str:
    """The name, its middle left out where it is longer than the room for it."""
    return name if len(name) <= room else f"{name[: room // 2 - 1]}…{name[-(room // 2) :]}"


def count(number: int, what: str) -> str:
    """The number with its noun: "1 step", "2,000 steps"."""
    return f"{number:,} {what}{'s' * (number != 1)}"
