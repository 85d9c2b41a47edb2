"""The rows of a plan as a person reads them: sites treated alike for one reason together, their names in few words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from autovi.numbers import how_many
from autovi.plan.choices import Choice

MAX_PARTS = 3  # supports or shapes in one cell
WHICH = "plan[site].why names them"


class Line(NamedTuple):
    """Sites that share a line: those of a block, or single ones alike."""

    sites: tuple[str, ...]
    support: str
    shape: str


class Group(NamedTuple):
    """Sites with one family, estimator, baseline and reason."""

    lines: tuple[Line, ...]
    family: str
    estimator: str
    baseline: str
    why: str


def groups_of(choices: Iterable[Choice]) -> list[Group]:
    """The rows of a plan by what was chosen and why, in the order of the model.

    Reasons that differ in the names of other sites alone are one, which leaves these names out.
    """
    choices = tuple(choices)
    without_names = _leaving_out({c.site for c in choices})
    alike: dict[tuple[str, str, str, str], list[Choice]] = {}
    for c in choices:
        alike.setdefault((c.family, c.estimator, c.baseline or "-", without_names(c.why)), []).append(c)
    found = []
    for (family, estimator, baseline, short), members in alike.items():
        reasons = {c.why for c in members}
        why = reasons.pop() if len(reasons) == 1 else f"{short} ({WHICH})"
        found.append(Group(_lines(members), family, estimator, baseline, why))
    return found


def _leaving_out(sites: Collection[str]) -> Callable[[str], str]:
    """A function that puts "…" for the names of these sites, one or several in a row, in quotes."""
    one = r"'[^']*'"

    def shorten(reason: str) -> str:
        known = lambda found: all(name[1:-1] in sites for name in re.findall(one, found[0]))  # noqa: E731
        return re.sub(f"{one}(, {one})*", lambda found: "…" if known(found) else found[0], reason)

    return shorten


def num_sites(lines: Iterable[Line]) -> int:
    """How many sites stand in these lines."""
    return sum(len(line.sites) for line in lines)


def _lines(members: Sequence[Choice]) -> tuple[Line, ...]:
    """A line for each block; blocks of one site with one support and shape share theirs."""
    blocks: dict[str, list[Choice]] = {}
    for c in members:
        blocks.setdefault(c.block, []).append(c)
    lines: dict[object, list[Choice]] = {}
    for name, block in blocks.items():
        alone = len(block) == 1
        lines.setdefault((block[0].support, block[0].shape) if alone else name, []).extend(block)
    return tuple(
        Line(tuple(c.site for c in line), _joined([c.support for c in line]), _joined([_shape(c) for c in line]))
        for line in lines.values()
    )


def _shape(choice: Choice) -> str:
    return "x".join(map(str, choice.shape)) or "scalar"


def _joined(values: Sequence[str]) -> str:
    """One for each of a few sites, or what there is among many."""
    found = list(dict.fromkeys(values))
    if len(found) > 1 and len(values) <= MAX_PARTS:
        return ", ".join(values)
    return ", ".join(found if len(found) < MAX_PARTS else [*found[: MAX_PARTS - 1], "…"])


def names(sites: Sequence[str], room: int) -> str:
    """The names of sites in at most `room` columns: numbered ones as first … last, of many the first few.

    >>> names(["a", "b0", "b1", "b2", "b3", "c"], 40)
    'a, b0 … b3, c'
    >>> names(["alpha", "beta", "gamma", "delta"], 24)
    'alpha, beta, … (4 sites)'
    """
    runs, total = _runs(sites), _total(sites)
    shortened = (", ".join(runs[:kept]) + total for kept in range(len(runs) - 1, 0, -1))
    fitting = (text for text in (", ".join(runs), *shortened) if len(text) <= room)
    return next(fitting, _cut(runs[0], room - len(total)) + total)


def fewest_columns(sites: Sequence[str]) -> int:
    """What `names` needs so as not to cut into a name."""
    runs = _runs(sites)
    return min(len(", ".join(runs)), len(runs[0]) + len(_total(sites)))


def _total(sites: Sequence[str]) -> str:
    return f", … ({how_many(len(sites), 'site')})" if len(sites) > 1 else ""


def _runs(sites: Sequence[str]) -> list[str]:
    """Three and more names that differ in a number alone, which counts up, as first … last."""
    runs: list[list[str]] = []
    for site in sites:
        if runs and _follows(runs[-1][-1], site):
            runs[-1].append(site)
        else:
            runs.append([site])
    return [text for run in runs for text in ([f"{run[0]} … {run[-1]}"] if len(run) > 2 else run)]


def _follows(before: str, site: str) -> bool:
    one, other = (re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in (before, site))
    if one is None or other is None or (one[1], one[3]) != (other[1], other[3]):
        return False
    return int(other[2]) == int(one[2]) + 1


def _cut(text: str, room: int) -> str:
    """`text` without its middle where it is too long: names differ at both ends."""
    if len(text) <= room:
        return text
    front = max(room, 1) // 2
    back = max(room, 1) - front - 1
    return f"{text[:front]}…{text[len(text) - back :]}"
