"""The loss of every step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from autovi.result.plots.figure import FITTED, MARKED, PALE, SMALL, count, one_axes, say
from autovi.result.posterior import Posterior

STRETCHES = 100  # over which the loss is averaged
SHORTEST = 10  # steps of a stretch


def draw(place: Any, fit: Posterior) -> None:
    """The steps, their mean and standard deviation over stretches, and where the learning rate was lowered."""
    ax = one_axes(place)
    losses = np.asarray(fit.losses, np.float64)
    finite = np.isfinite(losses)
    ax.set_title(f"Loss: {fit.status}, {count(losses.size, 'step')}")
    if not finite.any():
        say(ax, "no step with a finite loss" if losses.size else f"no step\n{fit.message}")
        return
    steps = np.arange(losses.size)
    shown = np.where(finite, losses, np.nan)
    ax.plot(steps, shown, color=PALE, lw=0.5, marker="." if finite.sum() < 3 else "", label="each step", gid="losses")
    above = _fit_axis(ax, losses[finite])
    _draw_stretches(ax, steps, shown)
    for i, step in enumerate(fit.progress.lowered):
        ax.axvline(step, color=MARKED, ls=":", lw=1.2, gid="lowered", label="learning rate lowered" if i == 0 else None)
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set(xlabel="step", ylabel=_name(fit))
    notes = [f"{count(above, 'step')} above the axis"] * (above > 0)
    notes += [f"{count(int((~finite).sum()), 'step')} without a finite loss"] * (not finite.all())
    ax.legend(fontsize=SMALL, loc="upper right", title="\n".join(notes), title_fontsize=SMALL)


def _name(fit: Posterior) -> str:
    objective = fit.engine.program.objective.name
    return "negative ELBO (nats)" if objective == "elbo" else f"negative {objective} bound (nats)"


def _draw_stretches(ax: Any, steps: np.ndarray, losses: np.ndarray) -> None:
    number = min(STRETCHES, losses.size // SHORTEST)
    if number < 2:
        return
    middle, mean, sd = [], [], []
    for part, at in zip(np.array_split(losses, number), np.array_split(steps, number), strict=True):
        if np.isfinite(part).any():
            middle.append(at.mean())
            mean.append(np.nanmean(part))
            sd.append(np.nanstd(part))
    low, high = np.subtract(mean, sd), np.add(mean, sd)
    seen = np.asarray(mean) <= ax.get_ylim()[1]  # else a spread of thousands is a stripe through what can be seen
    band = ax.fill_between(middle, low, high, where=seen, color=FITTED, alpha=0.5, lw=0, zorder=2.5)
    band.set_label("± 1 standard deviation")
    ax.plot(middle, mean, color=FITTED, lw=1.8, zorder=3, label=f"mean of {losses.size // number:,} steps", gid="mean")


def _fit_axis(ax: Any, finite: np.ndarray) -> int:
    """Sets the limits by the second half, so that a start of millions does not hide the end; how many are above."""
    low, high = np.quantile(finite[finite.size // 2 :], [0.005, 0.995])
    spread = max(high - low, 1e-3 * max(abs(high), 1.0))
    top = min(high + spread, finite.max() + 0.1 * spread)
    ax.set_ylim(max(low - 0.3 * spread, finite.min() - 0.1 * spread), top)
    return int((finite > top).sum())
