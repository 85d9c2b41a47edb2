"""The figure of a calibration: how far ranks are from uniform, by ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from autovi.calibration.bands import band, counts_below

MOST_PANELS = 12
COLUMNS = 4
PANEL = (3.2, 2.6)  # inches


def plot(calibration: Any, quantities: str | Sequence[str] | None, probability: float) -> Any:
    """See `Calibration.plot`."""
    try:
        from autovi.result.plots.figure import MARKED, MEASURED, PALE, SMALL, Picture, short
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise ImportError("plot: it needs matplotlib: pip install 'autovi[plots]'") from error
    names = _chosen(calibration, quantities)
    columns = min(COLUMNS, max(len(names), 1))
    lines = -(-max(len(names), 1) // columns)
    picture = Picture(figsize=(PANEL[0] * columns, PANEL[1] * lines), layout="constrained")
    panels = picture.subplots(lines, columns, squeeze=False).ravel()
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(panels, names, strict=False):
        ranks = calibration.ranks[name]
        ranks = ranks[ranks == ranks]
        found = band(len(ranks), probability)
        away = counts_below(ranks, found.points) / len(ranks) - found.points
        ends = lambda values: [0.0, *values, 0.0]  # noqa: E731
        points = [0.0, *found.points, 1.0]
        ax.fill_between(
            points, ends(found.lower - found.points), ends(found.upper - found.points), color=PALE, alpha=0.4
        )
        row = calibration[name]
        ax.step(points, ends(away), where="post", color=MEASURED if row.is_calibrated else MARKED)
        ax.axhline(0.0, color=PALE, lw=0.8)
        ax.set_title(short(name, 28), fontsize=SMALL + 1)
        ax.tick_params(labelsize=SMALL - 1)
    picture.supxlabel("fractional rank of the truth", fontsize=SMALL)
    picture.supylabel("ECDF less uniform", fontsize=SMALL)
    return picture


def _chosen(calibration: Any, asked: str | Sequence[str] | None) -> list[str]:
    rows = [row for row in calibration.rows if row.count]
    names = [row.quantity for row in sorted(rows, key=lambda row: row.is_calibrated)]
    if asked is None:
        return names[:MOST_PANELS]
    patterns = [asked] if isinstance(asked, str) else list(asked)
    # Brackets of elements are no classes of characters.
    matches = lambda name, p: name == p or name.split("[")[0] == p or fnmatchcase(name, p)  # noqa: E731
    if unknown := [p for p in patterns if not any(matches(name, p) for name in names)]:
        raise ValueError(f"quantities: expected names or globs of {names}, got {unknown}")
    return [name for name in names if any(matches(name, p) for p in patterns)]
