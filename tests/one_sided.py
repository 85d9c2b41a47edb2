"""The oracle of implicit gradients draw by draw: composite Gauss-Legendre quadrature in NumPy and SciPy, float64."""

from collections.abc import Callable

import numpy as np
from scipy.special import digamma, polygamma

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
FINE_NODES, FINE_WEIGHTS = np.polynomial.legendre.leggauss(60)
NEAR = np.concatenate([[0.0], 1e-7 * 1.3 ** np.arange(105)])

# The median and the largest relative error of a quadrature in one dimension.
ACCURACY = {"float32": (1e-6, 1e-4), "float64": (1e-13, 1e-10)}


def assert_accurate(errors: np.ndarray, dtype: str) -> None:
    median, worst = ACCURACY[dtype]
    assert np.median(errors) < median
    assert errors.max() < worst


def minus_slope_of_cdf(score: Callable, log_density: Callable, at: float, outwards: bool, far: float) -> float:
    """`-int_{-inf}^{at} score p / p(at)`, or over the other side (`outwards`), which is the same with the other sign.

    Panels widen with the distance from `at`, and are fine around 0, where the densities of this library bend.
    """
    far = max(far, 100.0) + abs(at)
    bend = np.clip(abs(at) + np.arange(-60, 60, 0.5), 0, far)
    edges = np.unique(np.concatenate([NEAR[far > NEAR], [far], bend]))
    low, high = edges[:-1, None], edges[1:, None]
    distance = low + (high - low) * (1 + NODES) / 2
    points = at + distance if outwards else at - distance
    fall = log_density(points) - log_density(np.float64(at))
    total = np.sum((high - low) / 2 * WEIGHTS * score(points) * np.exp(fall))
    return total if outwards else -total


def digamma_difference(x: float, step: float) -> float:
    """digamma(x + step) - digamma(x), by the integral of trigamma where the difference would cancel."""
    if step > x:
        return digamma(x + step) - digamma(x)
    return step / 2 * np.sum(FINE_WEIGHTS * polygamma(1, x + step * (1 + FINE_NODES) / 2))


def log_expit(y: np.ndarray) -> np.ndarray:
    """log(1 / (1 + exp(-y)))."""
    return -np.logaddexp(0, -y)


def beta_slope(logit: float, a: float, b: float) -> float:
    """d logit x / da, x ~ Beta(a, b), by its definition: the score in a is log x - digamma(a) + digamma(a + b)."""
    gap = digamma_difference(a, b)
    outwards = bool(log_expit(np.float64(logit)) + gap > 0)
    return minus_slope_of_cdf(
        lambda y: log_expit(y) + gap,
        lambda y: a * log_expit(y) + b * log_expit(-y),
        logit,
        outwards,
        800 / (b if outwards else a),
    )


def gamma_slope(log_z: float, a: float) -> float:
    """d log z / da, z ~ Gamma(a, 1), by its definition: the score in a is log z - digamma(a)."""
    outwards = bool(log_z > digamma(a))
    far = 60.0 if outwards else 800 / a
    return minus_slope_of_cdf(
        lambda y: y - digamma(a), lambda y: a * y - np.exp(np.minimum(y, 700.0)), log_z, outwards, far
    )


def student_slope(log_radius: float, df: float, size: int) -> float:
    """d log r / d df, r the length of a standard Student-t vector of `size` elements, by its definition."""
    constant = digamma_difference(df / 2, size / 2) / 2 - size / (2 * df)

    def score(s: np.ndarray) -> np.ndarray:
        spread = 2 * s - np.log(df)  # log(r^2 / df)
        return constant + log_expit(-spread) / 2 + (df + size) / (2 * df) * np.exp(log_expit(spread))

    def log_density(s: np.ndarray) -> np.ndarray:
        return size * s + (df + size) / 2 * log_expit(np.log(df) - 2 * s)

    outwards = bool(log_radius > np.log(size) / 2)
    return minus_slope_of_cdf(score, log_density, log_radius, outwards, 800 / (df if outwards else size))


def log_gamma_draws(generator: np.random.Generator, a: float, num: int) -> np.ndarray:
    """log z, z ~ Gamma(a, 1), also where z underflows: z = z' U^(1/a) with z' ~ Gamma(a + 1, 1)."""
    return np.log(generator.gamma(a + 1, size=num)) + np.log(generator.uniform(size=num)) / a


def assert_mean(samples, exact, rounding: float = 1e-5, floor: float = 0.05, bound: float = 5.5) -> None:
    """The mean over the first axis is `exact`, element by element, within `bound` standard errors and rounding.

    Elements whose standard error is above `floor` of the exact mean do not count: a few draws make most of the sum.
    """
    samples, exact = np.asarray(samples, np.float64), np.asarray(exact, np.float64)
    assert np.isfinite(samples).all()
    error = samples.std(0) / np.sqrt(len(samples))
    z = np.abs(samples.mean(0) - exact) / (error + rounding * np.abs(exact))
    counts = error < floor * np.abs(exact)
    assert np.mean(counts) > 0.8, f"exact {exact}, standard error {error}"
    worst = np.argmax(np.where(counts, z, 0.0))
    assert np.ravel(z)[worst] < bound, f"element {worst}: {samples.mean(0)} is not {exact}, standard error {error}"
