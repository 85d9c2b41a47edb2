"""Float64 quadrature of the implicit gradient, by SciPy's special functions and standard rules.

On the real line the distance from the draw is the exponential of the variable, in which every scale of the integrand is
seen; 6,000 points of a function that vanishes at both ends, so the trapezoid rule is exact to rounding. On the circle
it is Gauss-Legendre on panels that halve towards the draw.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import digamma, expit, ive

LOG_DISTANCE = np.linspace(-30.0, 16.0, 6000)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def one_sided(score: Callable, log_density: Callable, at: np.ndarray) -> np.ndarray:
    """`-int_{-inf}^{at} score p / p(at)` for each draw, over the side where the score keeps its sign."""
    side = np.where(score(at[:, None]) < 0, -1.0, 1.0)
    distance = np.exp(LOG_DISTANCE)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        points = at[:, None] + side * distance
        fall = log_density(points) - log_density(at[:, None])
        integrand = np.where(np.isfinite(fall), score(points) * np.exp(fall), 0.0) * distance
    return side[:, 0] * np.trapezoid(integrand, LOG_DISTANCE, axis=1)


def gamma_slope(a: float, log_z: np.ndarray) -> np.ndarray:
    """d log z / da, z ~ Gamma(a, 1)."""
    return one_sided(lambda y: y - digamma(a), lambda y: a * y - np.exp(y), log_z)


def beta_slope(a: float, b: float, log_odds: np.ndarray) -> np.ndarray:
    """d logit x / da, x ~ Beta(a, b)."""
    log_x = lambda y: -np.logaddexp(0, -y)  # noqa: E731
    centre = digamma(a) - digamma(a + b)
    return one_sided(lambda y: log_x(y) - centre, lambda y: a * log_x(y) - b * np.logaddexp(0, y), log_odds)


def student_slope(df: float, log_size: np.ndarray) -> np.ndarray:
    """d log|t| / d df, t ~ StudentT(df)."""
    constant = digamma((df + 1) / 2) - digamma(df / 2) - 1 / df

    def score(r: np.ndarray) -> np.ndarray:
        log_odds = 2 * r - np.log(df)  # of t^2 / (df + t^2)
        return 0.5 * (constant - np.logaddexp(0, log_odds) + expit(log_odds) * (df + 1) / df)

    def log_density(r: np.ndarray) -> np.ndarray:
        return r - (df + 1) / 2 * np.logaddexp(0, 2 * r - np.log(df))

    # From the centre outwards the score falls, so the sides are the other way round.
    return one_sided(score, log_density, log_size)


def von_mises_slope(kappa: float, angle: np.ndarray) -> np.ndarray:
    """dt/dkappa, t an angle of density proportional to exp(kappa cos t).

    Minus the integral of the score from 0, or that from t to pi, where the score keeps its sign.
    """
    resultant = ive(1, kappa) / ive(0, kappa)
    size = np.abs(angle)[:, None, None]
    inside = np.cos(size) > resultant
    length = np.where(inside, -size, np.pi - size)
    edges = np.concatenate([[0.0], 0.5 ** np.arange(40.0, -1.0, -1.0)])[:, None]
    low, high = edges[:-1], edges[1:]
    fraction = low + (high - low) * (1 + NODES) / 2
    u = size + length * fraction
    # cos u - cos t, without the digits that the difference loses.
    rise = -2 * np.sin((u + size) / 2) * np.sin(length * fraction / 2)
    integrand = (np.cos(u) - resultant) * np.exp(kappa * rise)
    return np.sign(angle) * np.sum(length * integrand * (high - low) / 2 * WEIGHTS, axis=(1, 2))
