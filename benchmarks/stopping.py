"""The rule that ends a fit, on synthetic losses whose future is known: false stops, and how late the true ones are.

    python -m benchmarks.stopping [FAMILY ...] [--curves 1000]

A curve is L(t) plus noise, t the step, in nats. The rule sees it as a fit at one learning rate does, chunk by chunk,
and ends it or makes all `MAX_STEPS` steps. A stop at step t is *false* where L(t) - L(MAX_STEPS) > 0.1: so much would
the fit still have gained in the steps that it had. An oracle stops at the first look (after 800 steps at the soonest)
at which no more than 0.1 nat is left. Noise is that of 8 particles; with 128 it is a quarter of that.

Every curve has its own numbers, from these ranges, even in the logarithm unless said otherwise. The standard deviation
of a step's noise is 0.03 to 3 nats.

    linear           1 to 1,000 nats in a straight line within 300 to 20,000 steps, then flat; noise AR(1) with
                     correlation 0, 0.5 or 0.9
    power            (1 + t / t0)^-k of 1 to 10,000 nats, t0 10 to 1,000 steps, k 0.5 to 2 (evenly); noise as above
    heteroscedastic  exponential, 1 to 10,000 nats, time scale 30 to 3,000 steps; the noise variance grows with the loss
                     left (up to tenfold per nat), and its logarithm wanders (sd 1, over 500 steps)
    heavy            the same curves; noise Student t with 2 to 3 degrees of freedom
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

from autovi.run.outlook import BATCH, means, outlooks
from autovi.run.stopping import CHUNK, SHORTEST, is_looked_at
from autovi.run.thresholds import THRESHOLDS
from benchmarks.reporting import save, table

MAX_STEPS = 100_000
GROUP = 50  # curves that are made at once
PARTICLES = {8: 1.0, 128: 0.25}  # their number -> the size of the noise
Rng = np.random.Generator


class Curves(NamedTuple):
    """Losses without noise and with, `(curves, batches)`: at the end of each batch, and mean over it."""

    at_end: np.ndarray
    means: np.ndarray


def evenly_in_log(rng: Rng, low: float, high: float, count: int) -> np.ndarray:
    """A column of numbers."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (count, 1)))


def linear(rng: Rng, count: int, t: np.ndarray) -> np.ndarray:
    """A straight line, then flat."""
    return evenly_in_log(rng, 1, 1e3, count) * np.maximum(1 - t / evenly_in_log(rng, 300, 2e4, count), 0)


def power(rng: Rng, count: int, t: np.ndarray) -> np.ndarray:
    """A power law."""
    return evenly_in_log(rng, 1, 1e4, count) * (1 + t / evenly_in_log(rng, 10, 1e3, count)) ** -rng.uniform(
        0.5, 2, (count, 1)
    )


def exponential(rng: Rng, count: int, t: np.ndarray) -> np.ndarray:
    """An exponential."""
    return evenly_in_log(rng, 1, 1e4, count) * np.exp(-t / evenly_in_log(rng, 30, 3e3, count))


def autoregressive(rng: Rng, shape: tuple[int, int], correlation: Sequence[float]) -> np.ndarray:
    """Normal noise of variance 1, each row's steps correlated."""
    noise = rng.normal(size=shape)
    for row, r in zip(noise, correlation, strict=True):
        if r:
            row[:] = lfilter([np.sqrt(1 - r**2)], [1, -r], row)
    return noise


def correlated(rng: Rng, loss: np.ndarray) -> np.ndarray:
    """Noise with correlation 0, 0.5 or 0.9 from step to step."""
    return autoregressive(rng, loss.shape, rng.choice([0.0, 0.5, 0.9], len(loss)).tolist())


def heteroscedastic(rng: Rng, loss: np.ndarray) -> np.ndarray:
    """Noise that falls with the loss, and whose size wanders."""
    wander = autoregressive(rng, loss.shape, [np.exp(-1 / 500)] * len(loss))
    grows = rng.uniform(0, 10, (len(loss), 1))
    return rng.normal(size=loss.shape) * np.sqrt(1 + grows * loss) * np.exp(wander / 2)


def heavy(rng: Rng, loss: np.ndarray) -> np.ndarray:
    """Noise of infinite or hardly finite variance."""
    return rng.standard_t(rng.uniform(2, 3, (len(loss), 1)), loss.shape)


Curve = Callable[[Rng, int, np.ndarray], np.ndarray]
FAMILIES: dict[str, tuple[Curve, Callable[[Rng, np.ndarray], np.ndarray]]] = {
    "linear": (linear, correlated),
    "power": (power, correlated),
    "heteroscedastic": (exponential, heteroscedastic),
    "heavy": (exponential, heavy),
}


def curves_of(family: str, group: int, count: int, noise: float = 1.0, max_steps: int = MAX_STEPS) -> Curves:
    """Some curves of a family, the same for every size of the noise."""
    curve, noise_of = FAMILIES[family]
    rng = np.random.default_rng([list(FAMILIES).index(family), group])
    loss = curve(rng, count, np.arange(1, max_steps + 1.0))
    sd = noise * evenly_in_log(rng, 0.03, 3, count)
    return Curves(loss[:, BATCH - 1 :: BATCH], means(loss + sd * noise_of(rng, loss)))


def looks(max_steps: int) -> Iterator[int]:
    """The steps after which a fit at one learning rate is looked at."""
    return (step for step in range(CHUNK, max_steps + 1, CHUNK) if is_looked_at(step))


def stops(batches: np.ndarray, max_steps: int = MAX_STEPS) -> np.ndarray:
    """The step at which each curve is said to have converged; 0 where it never is."""
    stop, going = np.zeros(len(batches), int), np.arange(len(batches))
    for step in looks(max_steps):
        seen = outlooks(batches[going, : step // BATCH], (max_steps - step) / step)
        ends = np.any([outlook.little_left(THRESHOLDS.errors_to_stop) for outlook in seen], axis=0)
        stop[going[ends]], going = step, going[~ends]
        if not going.size:
            break
    return stop


def oracle(at_end: np.ndarray) -> np.ndarray:
    """The first step, of those at which a fit may end, with no more than 0.1 nat left."""
    left = at_end - at_end[:, -1:]
    return np.maximum(((left > THRESHOLDS.nats).sum(axis=1) + 1) * BATCH, SHORTEST * CHUNK)


class Outcome(NamedTuple):
    """What came of the curves of a family."""

    stop: np.ndarray  # 0: never
    oracle: np.ndarray
    left: np.ndarray  # nats at the stop, 0 without one

    @property
    def false(self) -> np.ndarray:
        """Which stops are false."""
        return self.left > THRESHOLDS.nats


def outcome(family: str, count: int, noise: float = 1.0, max_steps: int = MAX_STEPS) -> Outcome:
    """Runs the rule on so many curves."""
    found = []
    for group in range(-(-count // GROUP)):
        curves = curves_of(family, group, min(GROUP, count - group * GROUP), noise, max_steps)
        stop = stops(curves.means, max_steps)
        at_stop = np.take_along_axis(curves.at_end, np.maximum(stop // BATCH - 1, 0)[:, None], axis=1)[:, 0]
        found.append((stop, oracle(curves.at_end), np.where(stop > 0, at_stop - curves.at_end[:, -1], 0.0)))
    return Outcome(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def row_of(family: str, found: dict[int, Outcome]) -> list[str]:
    """A line of the table."""
    few, many = found.values()
    late = few.stop / few.oracle
    late = late[(few.stop > 0) & ~few.false]
    same = (few.stop > 0) == (many.stop > 0)
    return [
        family,
        *(f"{100 * o.false.mean():.1f} %" for o in found.values()),
        f"{100 * (few.stop > 0).mean():.0f} %",
        f"{np.median(few.oracle):,.0f}",
        f"{np.median(np.where(few.stop > 0, few.stop, MAX_STEPS)):,.0f}",
        f"{np.exp(np.log(late).mean()):.1f}",
        f"{np.quantile(late, 0.9):.1f}",
        f"{100 * same.mean():.1f} %",
    ]


HEADER = [
    "family",
    "false stops, 8 particles",
    "128",
    "stopped",
    "oracle, median step",
    "stop, median step",
    "times as late (geometric mean)",
    "90 %",
    "same word with 8 and 128",
]


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, save the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], help="all by default")
    parser.add_argument("--curves", type=int, default=1000)
    args = parser.parse_args(argv)
    rows, figures = [], {}
    for family in args.families or FAMILIES:
        found = {particles: outcome(family, args.curves, noise) for particles, noise in PARTICLES.items()}
        rows.append(row_of(family, found))
        figures[family] = {n: {k: v.tolist() for k, v in o._asdict().items()} for n, o in found.items()}
    print(table(HEADER, rows))
    save("stopping", {"curves": args.curves, "max_steps": MAX_STEPS, "outcomes": figures})


if __name__ == "__main__":
    main()
