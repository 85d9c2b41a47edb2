"""An audit as text and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from autovi.numbers import how_many, number
from autovi.plan.display import GAP, INDENT, LEFT, terminal_width, wrapped
from autovi.plan.grouping import names

HEADER = ("site", "parameter", "estimator", "against", "z", "variance", "signal/noise", "time")
NUMBERS = 4  # the last columns, which are set to the right
MAX_NAMES = 24  # columns
NO_NOISE = 1e5  # signal over noise: what is left is rounding
MAX_ROWS = 40  # of arrays alike, all that a person reads


class Audit(Protocol):
    """What of an audit is shown."""

    @property
    def rows(self) -> tuple[Any, ...]:
        """Its rows."""

    @property
    def threshold(self) -> float:
        """The |z| of a bias."""

    @property
    def num_tests(self) -> int:
        """How many numbers were compared."""

    @property
    def num_samples(self) -> int:
        """How many gradients of each estimator."""

    @property
    def num_particles(self) -> int:
        """Of each."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""

    @property
    def work(self) -> Mapping[tuple[str, ...], Mapping[str, float]]:
        """Variance times time."""


def check_text(check: Audit, width: int | None = None) -> str:
    """The audit in lines of at most `width` columns (None: those of the terminal), where the table leaves room."""
    width = terminal_width() if width is None else width
    groups = _groups(check)
    cells = [HEADER, *(row for rows, _ in groups for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    out = [*wrapped(_title(check), width), _line(HEADER, widths)]
    for rows, said in groups:
        out += [_line(row, widths) for row in rows]
        out += wrapped(said, width, INDENT)
    return "\n".join([*out, *(text for paragraph in _closing(check) for text in wrapped(paragraph, width))])


def check_html(check: Audit) -> str:
    """The audit as a table that takes its colours from the page."""
    header = "".join(f"<th {LEFT}>{name}</th>" for name in HEADER)
    body = ""
    for rows, said in _groups(check):
        for row in rows:
            body += f"<tr>{''.join(f'<td {LEFT}>{escape(cell)}</td>' for cell in row)}</tr>"
        body += f'<tr><td {LEFT} colspan="{len(HEADER)}">{escape(said)}</td></tr>'
    below = "".join(f"<div>{escape(paragraph)}</div>" for paragraph in _closing(check))
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><div><strong>{escape(_title(check))}</strong></div>{table}{below}</div>"


def _title(check: Audit) -> str:
    samples, particles = how_many(check.num_samples, "gradient"), how_many(check.num_particles, "particle")
    return f"Gradients: {samples} of each estimator, {particles} each; {_meaning(check)}"


def _meaning(check: Audit) -> str:
    if not check.num_tests:
        return "nothing was compared"
    numbers = how_many(check.num_tests, "number")
    return f"|z| above {check.threshold:.1f} is a bias ({numbers} compared; a false alarm in one of 2,000 such tables)"


def _groups(check: Audit) -> list[tuple[list[tuple[str, ...]], str]]:
    """For every estimator at a site the lines of its parameters, and what is said of it."""
    found: dict[tuple[tuple[str, ...], str], list[Any]] = {}
    for row in check.rows:
        found.setdefault((row.sites, row.estimator), []).append(row)
    return [([_cells(row) for row in rows[:MAX_ROWS]], _said(rows)) for rows in found.values()]


def _cells(row: Any) -> tuple[str, ...]:
    z = "-" if row.z != row.z else f"{row.z:.1f}"
    told = lambda x: f"{x:.2g}" if x == x else "-"  # noqa: E731
    sites, seconds = names(row.sites, MAX_NAMES), _time(row.seconds)
    noise = (told(row.variance), "no noise" if row.signal_to_noise >= NO_NOISE else told(row.signal_to_noise))
    return (sites, row.parameter, row.estimator, row.reference or "-", z, *noise, seconds)


def _time(seconds: float) -> str:
    unit, word = next(((u, w) for u, w in ((1.0, "s"), (1e-3, "ms")) if seconds >= u), (1e-6, "µs"))
    return f"{seconds / unit:.2g} {word}" if seconds / unit < 100 else f"{seconds / unit:.0f} {word}"


def _said(rows: Sequence[Any]) -> str:
    """The verdicts of an estimator's rows in words, those alike together."""
    by_word: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        by_word.setdefault((row.verdict, row.why), []).append(row)
    sentences = []
    for (word, why), members in by_word.items():
        sentence = _sentence(word, why, members)
        where = f"{', '.join(r.parameter for r in members[:3])}{', …' if len(members) > 3 else ''}: "
        sentences.append((where if len(by_word) > 1 else "") + sentence)
    return "; ".join(sentences)


def _sentence(word: str, why: str, rows: Sequence[Any]) -> str:
    if word != "agrees":
        return f"{word.upper() if word == 'biased' else word.replace('_', ' ')}, {why}"
    most = max(row.detectable for row in rows)
    shows = "to rounding" if most < 1e-4 else f"a bias of {number(100 * most)} % of the gradient would have shown"
    return f"agrees with {rows[0].reference}, {shows}{f'; {why}' if why else ''}"


def _closing(check: Audit) -> list[str]:
    """The ranking where estimators were compared, and the notes."""
    ranked = []
    for sites, work in check.work.items():
        rows = [row for row in check.rows if row.sites == sites]
        if len(work) > 1:
            ranked.append(f"variance x time at {names(sites, MAX_NAMES)}: {_ranking(work, rows)}")
    return [*ranked, *(f"note: {note}" for note in check.notes)]


def _ranking(work: Mapping[str, float], rows: Sequence[Any]) -> str:
    """Estimators from the cheapest on, as multiples of the first that has noise."""
    wrong = {row.estimator for row in rows if row.verdict in ("biased", "not_finite")}
    noisy = {row.estimator for row in rows if row.signal_to_noise < NO_NOISE}
    order = sorted((n for n in work if n not in wrong), key=lambda n: (n in noisy, work[n]))
    least = next((work[n] for n in order if n in noisy), 0.0)
    return ", ".join(f"{n} {number(work[n] / least)}" if n in noisy else f"{n} no noise" for n in order)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left, right = len(cells) - NUMBERS, list(zip(cells, widths, strict=True))
    parts = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(right)]
    return GAP.join(parts).rstrip()
