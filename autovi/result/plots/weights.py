"""The tail of the importance weights, which k-hat is the shape of."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from autovi.result.plots.figure import FITTED, MARKED, MEASURED, PALE, SMALL, note, one_axes, say
from autovi.result.posterior import Posterior
from autovi.run.thresholds import THRESHOLDS
from autovi.run.weights import EQUAL, MIN_DRAWS_FOR_K, TIED, tail_size

LIMIT = THRESHOLDS.khat_usable
SHOWN = 3  # times the tail
MOST = 2000  # points
NO_TAIL = {
    EQUAL: "the weights are equal, to rounding:\nas far as the draws tell, q is the posterior",
    TIED: "the largest weights are tied:\nthey have no tail",
}


def draw(place: Any, fit: Posterior) -> None:
    """How many of the draws have more than a weight, by weight."""
    ax = one_axes(place)
    log_weights = np.asarray(fit.log_weights, np.float64).ravel()
    khat = fit.khat
    ax.set_title(f"Importance weights: k-hat {_told(khat)}")
    if reason := _nothing_to_see(fit, log_weights):
        say(ax, reason)
        return
    relative = np.sort(log_weights - _log_mean(log_weights))[::-1]
    size = tail_size(relative.size)
    share = np.arange(1, relative.size + 1) / relative.size
    seen = min(SHOWN * size, int(np.isfinite(relative).sum()))
    body = slice(size, seen, max(1, seen // MOST))
    ax.plot(relative[body], share[body], ".", color=PALE, ms=3, gid="body")
    ax.plot(relative[:size], share[:size], ".", color=MEASURED, ms=5, label=f"the {size:,} largest", gid="tail")
    limits = relative[seen - 1], relative[0]
    if np.isfinite(khat):
        for shape, color, style, name in ((khat, FITTED, "-", "k-hat"), (LIMIT, MARKED, "--", "limit")):
            line = _pareto(relative, size, shape)
            label = f"Pareto tail of shape {shape:.2f}" if name == "k-hat" else f"the same of {LIMIT}: the limit"
            ax.plot(*line, color=color, ls=style, lw=1.5, label=label, gid=name)
    else:
        note(ax, "a few draws carry all the weight:\nno tail could be fitted")
    room = 0.1 * max(limits[1] - limits[0], 1e-3)
    ax.set(xlim=(limits[0] - room, limits[1] + 3 * room), yscale="log", ylim=(0.5 / relative.size, None))
    ax.set(xlabel="log weight − log of the mean weight (nats)", ylabel="share of draws with at least that")
    ax.ticklabel_format(axis="x", scilimits=(-3, 5))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if np.isfinite(khat):
        ax.legend(fontsize=SMALL, loc="lower left")


def _told(khat: float) -> str:
    if np.isnan(khat):
        return "unknown"
    number = f"{khat:.2f}".replace("inf", "∞").replace("-", "−")
    return f"{number}, {f'at most {LIMIT}: usable' if khat <= LIMIT else f'above {LIMIT}: do not trust tails'}"


def _nothing_to_see(fit: Posterior, log_weights: np.ndarray) -> str | None:
    """Why there is no tail to draw; None where there is one."""
    if not log_weights.size:
        return "no draws are weighed:\nwith so many data it would take minutes"
    if not (log_weights < np.inf).all():
        bad = int((~(log_weights < np.inf)).sum())
        return f"{bad:,} of the {log_weights.size:,} weights are NaN or infinite"
    if not np.isfinite(log_weights).any():
        return "all weights are zero: the model excludes every draw"
    if log_weights.size < MIN_DRAWS_FOR_K:
        return f"k-hat needs {MIN_DRAWS_FOR_K} draws, and there are {log_weights.size}"
    return NO_TAIL.get(fit.evidence.khat_why)


def _log_mean(log_weights: np.ndarray) -> float:
    largest = log_weights.max()
    return float(largest + np.log(np.mean(np.exp(log_weights - largest))))


def _pareto(relative: np.ndarray, size: int, shape: float) -> tuple[np.ndarray, np.ndarray]:
    """Log weight and share along the generalized Pareto tail that begins where the tail does, and has its median."""
    scaled = np.exp(relative - relative[0])
    start = scaled[size]
    median = float(np.median(scaled[:size])) - start
    # The share q of the tail lies beyond scale * (q^-k - 1) / k.
    q = np.geomspace(1.0, 0.5 / size, 100)
    with np.errstate(over="ignore", divide="ignore"):
        excess = median * _power(q, shape) / _power(np.asarray(0.5), shape)
        at = np.log(start + excess) + relative[0]
    seen = np.isfinite(at)
    return at[seen], (q * size / relative.size)[seen]


def _power(q: np.ndarray, shape: float) -> np.ndarray:
    return -np.log(q) if abs(shape) < 1e-6 else np.expm1(-shape * np.log(q)) / shape
