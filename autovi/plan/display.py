"""A plan as text and as HTML."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from html import escape

from autovi.numbers import how_many
from autovi.plan.choices import Rows
from autovi.plan.grouping import Group, Line, fewest_columns, groups_of, names, num_sites

HEADER = ("site", "support", "shape", "family", "estimator", "baseline")
NARROWEST, WIDEST = 20, 120  # columns: with fewer nothing can be read, with more the eye does not find the next line
MAX_LINES = 8  # of sites in one group
MAX_REASON = 600  # characters
MAX_ROWS = 48  # of all groups, a reason counted as three: what a person reads before looking a site up
REASON_ROWS = 3
LONGEST_NAMES = 200  # characters, in HTML, where they are wrapped
INDENT = " " * 4
GAP = "  "
# Notebooks set the cells of a table to the right.
LEFT = 'style="text-align: left; vertical-align: top"'
BELOW = 'style="text-align: left; padding-left: 2em"'


def terminal_width() -> int:
    """The columns of the terminal; 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), WIDEST)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The lines of a paragraph, none longer than `width`."""
    # Names of sites have hyphens.
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def plan_text(plan: Rows, width: int | None = None) -> str:
    """The plan in lines of at most `width` columns (None: those of the terminal)."""
    width = terminal_width() if width is None else width
    shown = _Shown(plan)
    layout = _Layout(shown, width)
    out = [*wrapped(shown.title, width), *layout.header()]
    for group in shown.groups:
        out += [text for line in group.lines[:MAX_LINES] for text in layout.lines(line, group)]
        out += wrapped(_hidden(group), width, INDENT)
        out += wrapped(_reason(group), width, INDENT)
    return "\n".join([*out, *(text for paragraph in shown.closing for text in wrapped(paragraph, width))])


def plan_html(plan: Rows) -> str:
    """The plan as a table that takes its colours from the page."""
    shown = _Shown(plan)
    header = "".join(f"<th {LEFT}>{name}</th>" for name in shown.columns)
    body = "".join(_html_of(group, shown.columns) for group in shown.groups)
    below = "".join(f"<div>{escape(paragraph)}</div>" for paragraph in shown.closing)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><div><strong>{escape(shown.title)}</strong></div>{table}{below}</div>"


class _Shown:
    """What of a plan is shown: of many groups the first."""

    def __init__(self, plan: Rows):
        groups = groups_of(plan.choices)
        rows, count = 0, 0
        for group in groups:
            rows += min(len(group.lines), MAX_LINES) + REASON_ROWS
            if count and rows > MAX_ROWS:
                break
            count += 1
        self.groups = groups[:count]
        left = sum(num_sites(g.lines) for g in groups[count:])
        more = [f"… and {how_many(left, 'site')} more; plan.to_dict() has all"] * bool(left)
        way = [f"rungs: {'; '.join(plan.rungs)}"] * bool(plan.rungs)
        self.closing = [*more, *(f"note: {note}" for note in plan.notes), *way]
        self.title = f"Plan: {how_many(plan.num_particles, 'particle')} a step"
        self.columns = HEADER if any(g.baseline != "-" for g in self.groups) else HEADER[:-1]


def _cells(line: Line, group: Group, columns: Sequence[str]) -> tuple[str, ...]:
    """What a line says after the names of its sites."""
    return (line.support, line.shape, group.family, group.estimator, group.baseline)[: len(columns) - 1]


def _hidden(group: Group) -> str:
    """What is said of the lines that a group has too many: nothing, where it has not."""
    left = num_sites(group.lines[MAX_LINES:])
    return f"… and {how_many(left, 'site')} more; plan.to_dict() has all" if left else ""


def _reason(group: Group) -> str:
    return textwrap.shorten(group.why, MAX_REASON, placeholder=" … (plan[site].why goes on)")


class _Layout:
    """Columns where these leave room for the names; else each line's names, and below them what was chosen."""

    def __init__(self, shown: _Shown, width: int):
        lines = [(line, group) for group in shown.groups for line in group.lines[:MAX_LINES]]
        rows = [shown.columns[1:], *(_cells(line, group, shown.columns) for line, group in lines)]
        self.columns, self.width = shown.columns, width
        self.widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        room = width - sum(self.widths) - len(GAP) * len(self.widths)
        self.in_columns = room >= max([len(HEADER[0]), *(fewest_columns(line.sites) for line, _ in lines)])
        self.room = room
        self.names = max([len(HEADER[0]), *(len(names(line.sites, room)) for line, _ in lines)])

    def header(self) -> list[str]:
        return [self._row(self.columns[0], self.columns[1:])] if self.in_columns else []

    def lines(self, line: Line, group: Group) -> list[str]:
        cells = _cells(line, group, self.columns)
        if self.in_columns:
            return [self._row(names(line.sites, self.room), cells)]
        said = "; ".join(f"{what} {cell}" for what, cell in zip(self.columns[1:], cells, strict=True) if cell != "-")
        whole = names(line.sites, MAX_LINES // 2 * self.width)
        return [*wrapped(whole, self.width), *wrapped(said, self.width, GAP)]

    def _row(self, sites: str, cells: Sequence[str]) -> str:
        columns = zip((sites, *cells), (self.names, *self.widths), strict=True)
        return GAP.join(cell.ljust(width) for cell, width in columns).rstrip()


def _html_of(group: Group, columns: Sequence[str]) -> str:
    cells = [(names(x.sites, LONGEST_NAMES), *_cells(x, group, columns)) for x in group.lines[:MAX_LINES]]
    rows = ["".join(f"<td {LEFT}>{escape(cell)}</td>" for cell in row) for row in cells]
    said = "<br>".join(escape(text) for text in (_hidden(group), _reason(group)) if text)
    reason = f'<td {BELOW} colspan="{len(columns)}">{said}</td>'
    return "".join(f"<tr>{row}</tr>" for row in [*rows, reason])
