"""How far draws are from a reference posterior, element by element."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.references import Reference


@dataclass(frozen=True)
class Errors:
    """Errors of one parameter, each of the parameter's shape.

    `mean` is |mean - reference mean| / reference sd, `log_sd` is log(sd / reference sd), and `wasserstein` the
    one-dimensional Wasserstein distance to the reference draws in reference sds. All are infinite where a draw is not
    finite.
    """

    mean: np.ndarray
    log_sd: np.ndarray
    wasserstein: np.ndarray


@dataclass(frozen=True)
class Score:
    """A posterior's errors in sum: W averages over all elements, the others are the worst and where it is."""

    W: float
    mean: float
    mean_of: str
    log_sd: float
    log_sd_of: str


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The integral over u in (0, 1) of |F_a^-1(u) - F_b^-1(u)| for two samples of any sizes.

    Both quantile functions are steps, which change at multiples of 1/n and of 1/m; between two changes both are
    constant, so that the integral is a finite sum.
    """
    a, b = np.sort(a), np.sort(b)
    n, m = len(a), len(b)
    # In units of 1 / (n m), where all changes are integers: no two that are equal differ by rounding.
    changes = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    widths, starts = np.diff(changes), changes[:-1]
    return float(np.sum(widths * np.abs(a[starts // m] - b[starts // n])) / (n * m))


def errors(draws: Mapping[str, np.ndarray], reference: Reference) -> dict[str, Errors]:
    """Errors of every parameter of the reference.

    Raises:
        ValueError: a parameter of the reference without draws, or with draws of another shape.
    """
    missing = sorted(set(reference.parameters) - set(draws))
    if missing:
        raise ValueError(f"expected draws of every parameter of the reference, got none of {', '.join(missing)}")
    found = {}
    for name, ref in reference.parameters.items():
        values = np.asarray(draws[name], float)
        if values.shape[1:] != ref.mean.shape or len(values) < 2:
            raise ValueError(f"{name}: expected at least two draws of shape {ref.mean.shape}, got {values.shape}")
        if not np.isfinite(values).all():
            infinite = np.full(ref.mean.shape, np.inf)
            found[name] = Errors(infinite, infinite, infinite)
            continue
        columns = zip(values.reshape(len(values), -1).T, ref.draws.reshape(len(ref.draws), -1).T, strict=True)
        distances = np.array([wasserstein(*pair) for pair in columns]).reshape(ref.mean.shape)
        with np.errstate(divide="ignore"):  # all draws alike: a log sd of minus infinity
            log_sd = np.log(values.std(axis=0, ddof=1) / ref.sd)
        found[name] = Errors(np.abs(values.mean(axis=0) - ref.mean) / ref.sd, log_sd, distances / ref.sd)
    return found


def score(draws: Mapping[str, np.ndarray], reference: Reference) -> Score:
    """The errors in sum; standard deviations of heavy-tailed parameters are left out of the worst one."""
    found = errors(draws, reference)
    every = np.concatenate([e.wasserstein.ravel() for e in found.values()])
    light = {name: e.log_sd for name, e in found.items() if name not in reference.heavy_tailed}
    mean, mean_of = _worst({name: e.mean for name, e in found.items()})
    log_sd, log_sd_of = _worst(light) if light else (float("nan"), "-")
    return Score(float(every.mean()), mean, mean_of, log_sd, log_sd_of)


def _worst(values: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The largest absolute value, and the element that has it."""
    name = max(values, key=lambda n: float(np.abs(values[n]).max()))
    place = np.unravel_index(int(np.abs(values[name]).argmax()), values[name].shape)
    label = f"{name}[{', '.join(str(i) for i in place)}]" if place else name
    return float(np.abs(values[name][place])), label
