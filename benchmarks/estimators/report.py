"""Tables and figures of what was measured."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.estimators.measuring import Row
from benchmarks.estimators.problems import Problem
from benchmarks.reporting import table

HEADER = ["estimator", "mean", "z", "bias, % of gradient", "variance", "evaluations", "us", "variance x us", "rank"]
INK, GOOD, BAD = "#444444", "#1b6ca8", "#c0392b"


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those that did not refuse, least variance times time first."""
    return sorted((r for r in rows if r.refused is None), key=lambda r: (r.product, r.variance))


def ranked(rows: Sequence[Row]) -> dict[str, int]:
    """Estimator -> its place among the unbiased by variance times time."""
    honest = [r for r in measured(rows) if r.verdict != "biased" and not r.said_biased]
    return {r.estimator: place for place, r in enumerate(honest, 1)}


def told(verdict: str, said_biased: bool) -> str:
    """The verdict beside what the class says of itself."""
    if not said_biased:
        return verdict
    return f"{verdict}, as it says" if verdict == "biased" else f"{verdict} here (says biased)"


def problem_table(rows: Sequence[Row]) -> str:
    """One line an estimator."""
    places = ranked(rows)
    lines = []
    for r in measured(rows):
        mean = told(r.verdict, r.said_biased)
        bias = f"{100 * r.bias:.2g} +- {100 * r.error:.2g}"
        cells = [r.estimator, mean, f"{r.z:.1f}", bias, f"{r.variance:.3g}", f"{r.evaluations:g}"]
        place = str(places.get(r.estimator, "-"))
        lines.append([*cells, f"{r.microseconds:.2g}", f"{r.product:.2g}", place])
    return table(HEADER, lines)


def summary(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Of each estimator: on how many problems it was measured, whether it is unbiased, and where it is first."""
    by_problem: dict[str, list[Row]] = {}
    for r in rows:
        by_problem.setdefault(r.problem, []).append(r)
    lines = []
    for name in names:
        own = [r for r in rows if r.estimator == name and r.refused is None]
        if not own:
            lines.append([name, "0", "refused everywhere", "", ""])
            continue
        places = {r.problem: ranked(by_problem[r.problem]).get(name) for r in own}
        first = [p for p, place in places.items() if place == 1]
        later = [
            f"{p} {place} of {len(ranked(by_problem[p]))}" for p, place in places.items() if place not in (1, None)
        ]
        verdicts = {r.verdict for r in own}
        verdict = next(v for v in ("biased", "unbiased", "too noisy to tell") if v in verdicts)
        mean = told(verdict, own[0].said_biased)
        lines.append([name, str(len(own)), mean, ", ".join(first) or "-", ", ".join(later) or "-"])
    return table(["estimator", "problems", "mean", "first on", "elsewhere"], lines)


def refusals(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Why an estimator was not measured on a problem, in its own words."""
    lines = [
        f"- {r.estimator}, {r.problem}: {_why(r)}"
        for r in rows
        if r.refused is not None and not r.failed and r.estimator in names
    ]
    return "\n".join(lines)


def _why(row: Row) -> str:
    said = str(row.refused)
    said = said.split("would be wrong, since ", 1)[-1].split("; valid:")[0]
    return said.split(": ", 1)[-1] if said.startswith("site ") else said


def scatter(problem: Problem, rows: Sequence[Row]) -> Figure:
    """Variance against time, with lines of equal product."""
    figure = Figure(figsize=(8.0, 5.5), layout="constrained")
    ax = figure.subplots()
    shown = [r for r in measured(rows) if r.microseconds > 0]
    floor = min((r.variance for r in shown if r.variance > 1e-12 * max(q.variance for q in shown)), default=1.0) / 10
    times, variances = [r.microseconds for r in shown], [max(r.variance, floor) for r in shown]
    for r, x, y in zip(shown, times, variances, strict=True):
        biased = r.said_biased or r.verdict == "biased"
        ax.plot(
            x, y, "x" if biased else "o" if r.variance > floor else "v", color=BAD if biased else GOOD, markersize=6
        )
        ax.annotate(r.estimator, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8, color=INK)
    ax.set(
        xscale="log", yscale="log", xlabel="time per gradient, microseconds of CPU", ylabel="variance of the gradient"
    )
    ax.margins(0.2)
    low, high = np.array(ax.get_xlim()), np.array(ax.get_ylim())
    for product in 10.0 ** np.arange(math.floor(math.log10(low[0] * high[0])), math.log10(low[1] * high[1]) + 1, 1.0):
        ax.plot(low, product / low, color="#dddddd", linewidth=0.7, zorder=0)
    ax.set(xlim=low, ylim=high)
    ax.set_title(
        f"{problem.name}: {problem.says}\n(down and left is better; grey: equal variance x time; triangle: none)"
    )
    return figure


def over_distance(group: Sequence[Problem], rows: Sequence[Row]) -> Figure:
    """The variance of every estimator over a family of problems."""
    figure = Figure(figsize=(8.0, 5.5), layout="constrained")
    ax = figure.subplots()
    at = {p.name: p.at for p in group}
    names = dict.fromkeys(r.estimator for r in rows if r.refused is None)
    for name in names:
        own = sorted((at[r.problem], r.variance) for r in rows if r.estimator == name and r.refused is None)
        ax.plot(*zip(*own, strict=True), marker="o", markersize=4, label=name)
    ax.set(yscale="log", xlabel="distance of the components from 0", ylabel="variance of the gradient in the logit")
    ax.set_title(f"{group[0].group}: E x of two unit normals, by their distance")
    ax.legend(fontsize=8)
    return figure


def curves(problem: Problem, found: Mapping[str, Mapping[str, list[float]]]) -> Figure:
    """Loss and variance while the parameters are trained."""
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in found.items():
        left.plot(curve["step"], curve["loss"], label=name, linewidth=1.2)
        right.plot(curve["step"], np.maximum(curve["variance"], 1e-16), label=name, linewidth=1.2)
    left.set(xlabel="step", ylabel="exact loss", title=f"{problem.name}: {problem.says}")
    right.set(xlabel="step", ylabel="variance of the gradient", yscale="log", title="variance at each point")
    right.legend(fontsize=7, ncols=2)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """A PNG file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"estimators_{name.replace(' ', '_')}.png"
    figure.savefig(path, dpi=130)
    return path
