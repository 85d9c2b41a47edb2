"""A small figure for the page of each estimator: its variance on every problem beside that of the others.

    python -m benchmarks.estimators.pages FILE [FILE ...] --output docs/estimators/figures

The files are `estimators.json` of `python -m benchmarks.estimators`; rows of a later one stand for those of an earlier.
The figures are written as text, a few thousand characters each, the same for the same rows.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from autovi.estimators import ESTIMATORS
from benchmarks.estimators.measuring import Row

REFERENCE = "score, leave_one_out"
LEAST, MOST = -4, 4  # powers of ten; what is beyond is drawn at the edge, as a triangle
TICKS = {-4: "≤ 0.0001", -2: "0.01", 0: "1", 2: "100", 4: "≥ 10000"}
WIDTH, LEFT, RIGHT, TOP, LINE = 480, 110, 450, 34, 20
STYLE = (
    "text{font:12px sans-serif;fill:#444}.own{fill:#1b6ca8;stroke:#1b6ca8}.other{fill:#b0b0b0;stroke:#b0b0b0}"
    ".biased{fill:#fff;stroke-width:1.5}.axis{stroke:#888}"
)


def read(*paths: Path) -> list[Row]:
    """The rows of the files, of the last where several have one."""
    rows = [Row(**row) for path in paths for row in json.loads(path.read_text())["results"]["rows"]]
    return list({(row.problem, row.estimator): row for row in rows}.values())


def is_of(row: Row, name: str) -> bool:
    """Is it the estimator's row, with whichever baseline?"""
    return row.estimator.split(", ")[0] == name


def lines(rows: Sequence[Row], name: str) -> Iterator[tuple[str, list[Row], Row]]:
    """(problem, measured rows, row that is 1) of the problems on which the estimator was measured: 1 is the score with
    leave-one-out, or, where that was refused, the noisiest of all."""
    for problem in dict.fromkeys(row.problem for row in rows):
        there = [r for r in rows if r.problem == problem and r.refused is None and math.isfinite(r.variance)]
        there = [r for r in there if r.estimator in ESTIMATORS or ", " in r.estimator]  # autovi's choice is one of them
        unit = max(there, key=lambda r: (r.estimator == REFERENCE, r.variance), default=None)
        if unit is not None and unit.variance > 0 and any(is_of(r, name) for r in there):
            yield problem, there, unit


def figure(rows: Sequence[Row], name: str) -> str | None:
    """Variance over that of the score with leave-one-out, a line a problem, as SVG; None where nothing was measured."""
    drawn = list(lines(rows, name))
    if not drawn:
        return None
    bottom = TOP + LINE * len(drawn)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 44}">']
    parts += [f"<style>{STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>']
    parts += _legend(name, any(_biased(r) for _, there, _ in drawn for r in there if is_of(r, name)))
    parts.append(f'<path class="axis" fill="none" d="M{LEFT - 10} {bottom}H{RIGHT + 10}M{_x(0)} {TOP}V{bottom}"/>')
    for power, label in TICKS.items():
        parts.append(f'<text x="{_x(power)}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    for i, (problem, there, unit) in enumerate(drawn):
        y = TOP + LINE * i + LINE // 2
        star = "" if unit.estimator == REFERENCE else " *"
        parts.append(f'<text x="{LEFT - 18}" y="{y + 4}" text-anchor="end">{problem}{star}</text>')
        for r in sorted(there, key=lambda r: is_of(r, name)):
            power = math.log10(r.variance / unit.variance) if r.variance > 0 else -math.inf
            parts.append(_dot(power, y, is_of(r, name), _biased(r)))
    starred = any(unit.estimator != REFERENCE for _, _, unit in drawn)
    told = f"variance; 1: the score with leave-one-out{' (*: the noisiest)' if starred else ''}"
    parts.append(f'<text x="{_x(0)}" y="{bottom + 36}" text-anchor="middle">{told}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _x(power: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * (power - LEAST) / (MOST - LEAST), 1)


def _dot(power: float, y: int, own: bool, biased: bool) -> str:
    """A circle, or a triangle that points to where it would be."""
    kind = f'class="{"own" if own else "other"}{" biased" if biased else ""}"'
    size = 5 if own else 3
    x = _x(min(max(power, LEAST), MOST))
    if LEAST <= power <= MOST:
        return f'<circle {kind} cx="{x}" cy="{y}" r="{size}"/>'
    tip = -size if power < LEAST else size
    return f'<path {kind} d="M{x + tip} {y}L{x - tip} {y - size}V{y + size}z"/>'


def _biased(row: Row) -> bool:
    return row.said_biased or row.verdict == "biased"


def _legend(name: str, biased: bool) -> Iterator[str]:
    for at, own, hollow, label in (
        (-3.6, True, biased, name),
        (-0.4, False, False, "others"),
        (1.7, False, True, "biased"),
    ):
        yield _dot(at, 16, own, hollow)
        yield f'<text x="{_x(at) + 10}" y="20">{label}</text>'


def write(rows: Sequence[Row], names: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """`NAME.svg` for each name; the names drawn, and those of which nothing was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: figure(rows, name) for name in names}
    for name, text in made.items():
        if text is not None:
            (folder / f"{name}.svg").write_text(text)
    return [n for n, text in made.items() if text is not None], [n for n, text in made.items() if text is None]


def main(argv: list[str] | None = None) -> None:
    """Draw for every row of the table; say of which nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    drawn, bare = write(read(*args.files), sorted({kind.name for kind in ESTIMATORS.values()}), args.output)
    print(f"Drawn: {', '.join(drawn)}\nNothing measured: {', '.join(bare) or 'none'}")


if __name__ == "__main__":
    main()
