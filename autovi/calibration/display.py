"""A calibration as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from autovi.calibration.outcomes import Outcome
from autovi.numbers import how_many, with_error
from autovi.plan.display import GAP, LEFT, terminal_width, wrapped

HEADER = ("quantity", "bias", "50 %", "80 %", "90 %", "95 %", "p", "verdict")
MAX_ROWS = 25  # that a person reads; the summary has all
MOST_NUMBERS = 5  # of simulations that are named


def facts(calibration: Any) -> dict[str, str]:
    """What is known of all quantities together, by what it is of."""
    found = {"verdict": str(calibration.verdict)}
    if calibration.verdicts:
        found["fits"] = ", ".join(f"{count:,} {word}" for word, count in calibration.verdicts.items())
    if calibration.lost:
        found["without ranks"] = _lost(calibration.lost)
    alarms = f"right posteriors are called miscalibrated in {100 * calibration.level:g} % of calibrations at most"
    found["tests"] = (
        "three of each quantity (location, width, simultaneous ECDF band), p-values corrected for "
        f"{_tests(calibration)} (Holm); {alarms}"
    )
    if calibration.fixed:
        found["constant"] = f"{_listed(calibration.fixed)}: the same in all draws, and not ranked"
    return found | {"note": "; ".join(calibration.notes)} if calibration.notes else found


def calibration_text(calibration: Any, width: int | None = None) -> str:
    """The calibration in lines of at most `width` columns (None: those of the terminal), where the table leaves
    room."""
    width = terminal_width() if width is None else width
    cells = [HEADER, *map(_cells, _shown(calibration))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells] if len(cells) > 1 else []
    below = [line for name, said in facts(calibration).items() for line in wrapped(f"{name}: {said}", width)]
    return "\n".join([*wrapped(_title(calibration), width), *lines, *_more(calibration), *below])


def calibration_html(calibration: Any) -> str:
    """The calibration as a table that takes its colours from the page."""
    header = "".join(f"<th {LEFT}>{name}</th>" for name in HEADER)
    rows = [f"<tr>{''.join(f'<td {LEFT}>{escape(c)}</td>' for c in _cells(row))}</tr>" for row in _shown(calibration)]
    told = [*_more(calibration), *(f"{name}: {said}" for name, said in facts(calibration).items())]
    below = "".join(f"<div>{escape(line)}</div>" for line in told)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div><div><strong>{escape(_title(calibration))}</strong></div>{table}{below}</div>"


def _title(calibration: Any) -> str:
    asked, made = calibration.num_simulations, len(calibration.outcomes)
    stopped = f", stopped after {made:,}" if calibration.status == "stopped" else ""
    plain = ", of plain draws of q" if calibration.of == "plain" else ""
    return f"Calibration: {how_many(asked, 'simulation')}{stopped}{plain}"


def _shown(calibration: Any) -> list[Any]:
    """The rows that find room, what was found before the rest."""
    if len(calibration.rows) <= MAX_ROWS:
        return list(calibration.rows)
    return sorted(calibration.rows, key=lambda row: (row.is_calibrated, row.p_value))[:MAX_ROWS]


def _more(calibration: Any) -> list[str]:
    left = len(calibration.rows) - MAX_ROWS
    return [f"and {left:,} more, with larger p-values"] if left > 0 else []


def _cells(row: Any) -> tuple[str, ...]:
    value, error = with_error(row.bias.mean, row.bias.se)
    p = row.p_value
    bias = "-" if row.bias.mean != row.bias.mean else f"{value} ± {error}"
    covered = (f"{100 * c.share:.0f}" if c.share == c.share else "-" for c in row.coverage)
    return (row.quantity, bias, *covered, "-" if p != p else f"{p:.2g}" if p >= 1e-4 else "<0.0001", _said(row))


def _said(row: Any) -> str:
    return " and ".join(word.replace("_", " ") for word in row.words)


def _tests(calibration: Any) -> str:
    return how_many(3 * len(calibration.rows), "test")


def _lost(lost: Sequence[Outcome]) -> str:
    """Simulations without ranks by why, with their numbers and the first message."""
    by_status: dict[str, list[Outcome]] = {}
    for outcome in lost:
        by_status.setdefault(outcome.status, []).append(outcome)
    told = {"not_finite": "not finite", "raised": "the fit raised", "no_draws": "draws not finite"}
    parts = []
    for status, outcomes in by_status.items():
        named = _listed([str(o.number) for o in outcomes])
        parts.append(f"{len(outcomes):,} {told[status]} (number {named}: {outcomes[0].message})")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NUMBERS:,} more" if len(names) > MOST_NUMBERS else ""
    return ", ".join(names[:MOST_NUMBERS]) + more


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        c.ljust(w) if i in (0, len(cells) - 1) else c.rjust(w)
        for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(parts).rstrip()
