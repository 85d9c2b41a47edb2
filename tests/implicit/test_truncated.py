"""Truncated distributions against SciPy quadrature of their definition, their laws, and how far into a tail they go."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from implicit_checks import jit
from scipy import stats
from scipy.special import gammaln

from autovi import implicit
from autovi.implicit.log_concave.families import gamma_density

INF = np.inf
STEP = 1e-3
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
OUTWARD = 2.0 ** np.arange(-16, 200)


def _log_cosh(x):
    return np.logaddexp(x, -x) - np.log(2)


LOG_DENSITIES = {
    "Normal": lambda t, loc, scale: -0.5 * ((t - loc) / scale) ** 2 - np.log(scale),
    "Laplace": lambda t, loc, scale: -abs(t - loc) / scale - np.log(scale),
    "Logistic": lambda t, loc, scale: -2 * _log_cosh((t - loc) / (2 * scale)) - np.log(scale),
    "SoftLaplace": lambda t, loc, scale: -_log_cosh((t - loc) / scale) - np.log(scale),
    "Cauchy": lambda t, loc, scale: -np.log1p(((t - loc) / scale) ** 2) - np.log(scale),
    "StudentT": lambda t, df, loc, scale: (
        -(df + 1) / 2 * np.log1p(((t - loc) / scale) ** 2 / df)
        - np.log(scale)
        + (gammaln((df + 1) / 2) - gammaln(df / 2) - np.log(df) / 2)
    ),
    "Gamma": lambda t, concentration, rate: (
        concentration * np.log(rate) + (concentration - 1) * np.log(t) - rate * t - gammaln(concentration)
    ),
}

# Base, its parameters, low, high: both sides of the mode, across it, far tails, narrow, wide.
CASES = [
    ("Normal", (0.5, 2.0), -1.0, 3.0),
    ("Normal", (0.0, 1.0), 8.0, None),
    ("Normal", (0.0, 1.0), None, -8.0),
    ("Normal", (0.0, 1.0), 8.0, 9.0),
    ("Normal", (0.0, 1.0), 2.0, 2.001),
    ("Normal", (0.0, 1.0), -10.0, 0.5),
    ("Normal", (1.0, 3.0), None, 2.0),
    ("Normal", (1.0, 3.0), -2.0, None),
    ("Laplace", (0.5, 1.5), -2.0, 1.0),
    ("Laplace", (0.5, 1.5), 30.0, None),
    ("Logistic", (0.3, 0.7), -2.0, 1.5),
    ("Logistic", (0.3, 0.7), None, -9.0),
    ("SoftLaplace", (0.3, 0.7), -0.5, 1.5),
    ("SoftLaplace", (0.3, 0.7), 7.0, None),
    ("Cauchy", (0.5, 2.0), -3.0, 1.0),
    ("Cauchy", (0.5, 2.0), 100.0, None),
    ("StudentT", (3.0, 0.5, 2.0), -3.0, 1.0),
    ("StudentT", (30.0, 0.0, 1.0), 6.0, 50.0),
    ("StudentT", (0.7, 0.0, 1.0), -1000.0, 2.0),
    ("Gamma", (2.0, 1.5), 0.5, 2.0),
    ("Gamma", (2.0, 1.5), None, 1.0),
    ("Gamma", (0.3, 1.0), 0.1, None),
    ("Gamma", (0.3, 1.0), None, 2.0),
    ("Gamma", (5.0, 1.0), 40.0, None),
    ("Gamma", (5.0, 1.0), None, 0.01),
    ("Gamma", (100.0, 2.0), 45.0, 70.0),
    ("Gamma", (0.01, 1.0), 1e-6, 1e-3),
]
SINGLE = [case for case in CASES if case[0] in ("Normal", "Gamma")]


def ids_of(cases):
    return [f"{name}{theta}[{low},{high}]" for name, theta, low, high in cases]


CLASSES = {
    (True, False): (dist.LeftTruncatedDistribution, dist.LeftTruncatedGamma),
    (False, True): (dist.RightTruncatedDistribution, dist.RightTruncatedGamma),
    (True, True): (dist.TwoSidedTruncatedDistribution, dist.TwoSidedTruncatedGamma),
}


def truncate(name, theta, low, high):
    """NumPyro's truncation of a base, of the class that has the bounds that are not None."""
    bounds = {key: x for key, x in (("low", low), ("high", high)) if x is not None}
    cls = CLASSES[low is not None, high is not None][name == "Gamma"]
    return cls(getattr(dist, name)(*theta), **bounds, validate_args=False)


def numbers(name, low, high):
    """The bounds as numbers, the ends of the support for None."""
    lowest = 0.0 if name == "Gamma" else -INF
    return (lowest if low is None else low), (INF if high is None else high)


def scipy_law(name, theta):
    loc, scale = theta[-2:]
    return {
        "Normal": lambda: stats.norm(loc, scale),
        "Laplace": lambda: stats.laplace(loc, scale),
        "Logistic": lambda: stats.logistic(loc, scale),
        "SoftLaplace": lambda: stats.hypsecant(loc, scale),
        "Cauchy": lambda: stats.cauchy(loc, scale),
        "StudentT": lambda: stats.t(theta[0], loc, scale),
        "Gamma": lambda: stats.gamma(theta[0], scale=1 / scale),
    }[name]()


def draws_inside(name, theta, low, high, shares=(0.01, 0.2, 0.5, 0.9, 0.999)):
    """Draws at given shares of the truncated mass, by SciPy's tail probabilities."""
    law = scipy_law(name, theta)
    u = np.array(shares)
    low, high = numbers(name, low, high)
    if law.cdf(low) > 0.5:
        return law.isf(law.sf(low) * (1 - u) + law.sf(high) * u)
    return law.ppf(law.cdf(low) * (1 - u) + law.cdf(high) * u)


def exact_slopes(name, theta, low, high, z):
    """dz/dtheta for all parameters and finite bounds, by the definition.

    With A = int_low^z p / p(z), B = int_z^high p / p(z) the distribution function is A / (A + B), so that dz = -(dA B -
    A dB) / (A + B), where dA and dB integrate the score and lose what the bounds give up.
    """
    log_p = LOG_DENSITIES[name]
    bounded = low is not None, high is not None
    low, high = numbers(name, low, high)
    at_draw = log_p(z, *theta)

    def ratio(t):
        return np.exp(log_p(t, *theta) - at_draw)

    def score(t, i):
        if name == "Laplace" and i == 0:  # the kink is no place for differences
            return np.sign(t - theta[0]) / theta[1]
        h = STEP * (theta[i] or 1.0)
        at = lambda h: log_p(t, *(x + h * (j == i) for j, x in enumerate(theta)))  # noqa: E731
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    def integral(f, a, b):
        # Panels whose lengths double away from the draw, and towards a pole at 0.
        edges = np.array([a, b, theta[-2], *(z + OUTWARD), *(z - OUTWARD), *(z / (1 + OUTWARD))])
        edges = np.unique(edges[(edges >= a) & (edges <= b) & np.isfinite(edges)])
        t = edges[:-1, None] + np.diff(edges)[:, None] * (1 + NODES) / 2
        return np.sum(np.diff(edges)[:, None] * WEIGHTS / 2 * f(t))

    below, above = integral(ratio, low, z), integral(ratio, z, high)
    changes = []
    for i in range(len(theta)):
        weighted = lambda t, i=i: score(t, i) * ratio(t)  # noqa: E731
        changes.append((integral(weighted, low, z), integral(weighted, z, high)))
    if bounded[0]:
        changes.append((-ratio(low), 0.0))
    if bounded[1]:
        changes.append((0.0, ratio(high)))
    return np.array([-(da * above - below * db) / (below + above) for da, db in changes])


def slopes(name, bounded, parameters, values):
    """The library's dz/dtheta at given draws, [parameters, draws]; the parameters are the base's and the bounds'."""

    def moved(*parameters):
        bounds = iter(parameters[len(parameters) - sum(bounded) :])
        low, high = (next(bounds) if there else None for there in bounded)
        fn = truncate(name, parameters[: len(parameters) - sum(bounded)], low, high)
        return implicit.reparameterize(fn, values)

    directions = jnp.eye(len(parameters), dtype=values.dtype)
    return jax.vmap(lambda d: jax.jvp(moved, parameters, list(d))[1])(directions)


# One program for all cases of a base and its bounds; in single precision as users compile it, for its rounding.
COMPILED = {np.float32: jit_as_users(slopes, static_argnums=(0, 1)), np.float64: jit(slopes, static_argnums=(0, 1))}


def relative_error(case, dtype):
    """Of every slope at some draws, relative to the largest of that parameter; a parameter may hardly move any draw."""
    name, theta, low, high = case
    values = draws_inside(*case).astype(dtype)
    exact = np.array([exact_slopes(*case, float(z)) for z in values]).T
    parameters = [jnp.asarray(x, dtype) for x in (*theta, low, high) if x is not None]
    ours = COMPILED[dtype](name, (low is not None, high is not None), parameters, jnp.asarray(values))
    largest = np.maximum(np.abs(exact).max(1, keepdims=True), 1e-3)
    return (np.abs(np.asarray(ours, np.float64) - exact) / largest).max()


@pytest.mark.parametrize("case", CASES, ids=ids_of(CASES))
def test_every_draw_moves_as_its_distribution_function_says(case):
    with jax.enable_x64(True):
        assert relative_error(case, np.float64) < 1e-8


@pytest.mark.parametrize("case", SINGLE, ids=ids_of(SINGLE))
def test_single_precision_holds(case):
    assert relative_error(case, np.float32) < 1e-3


LAWS = [
    ("Normal", (0.5, 2.0), -1.0, 3.0),
    ("Normal", (0.0, 1.0), 8.0, None),
    ("Normal", (0.0, 1.0), 30.0, 31.0),
    ("Normal", (0.0, 1.0), None, -1.0),
    ("Laplace", (0.5, 1.5), -2.0, 40.0),
    ("Logistic", (0.3, 0.7), None, 1.0),
    ("SoftLaplace", (0.3, 0.7), 0.0, None),
    ("Cauchy", (0.5, 2.0), -30.0, 100.0),
    ("StudentT", (3.0, 0.5, 2.0), -3.0, 9.0),
    ("StudentT", (300.0, 0.0, 1.0), 12.0, 20.0),
    ("Gamma", (2.0, 1.5), 0.5, 2.0),
    ("Gamma", (0.3, 1.0), None, 0.1),
    ("Gamma", (5.0, 1.0), 40.0, None),
    ("Gamma", (500.0, 2.0), 230.0, 260.0),
]


def kept_share(name, theta, low, high, z):
    """The truncated distribution function by SciPy, counted in whichever tail the interval lies in."""
    law = scipy_law(name, theta)
    low, high = numbers(name, low, high)
    if law.cdf(low) > 0.5:
        return (law.sf(low) - law.sf(z)) / (law.sf(low) - law.sf(high))
    return (law.cdf(z) - law.cdf(low)) / (law.cdf(high) - law.cdf(low))


@jit
def sample(fn):
    return implicit.sample(jax.random.key(0), fn, (20_000,))


@pytest.mark.parametrize("case", LAWS, ids=ids_of(LAWS))
def test_draws_have_the_law_and_stay_inside(case):
    name, theta, low, high = case
    draws = np.asarray(sample(truncate(*case)), np.float64)
    first, last = np.float32(numbers(name, low, high))
    assert draws.min() >= first
    assert draws.max() <= last
    assert stats.kstest(draws, lambda z: kept_share(*case, z)).pvalue > 1e-6


def test_far_tails_stay_finite_where_their_mass_underflows():
    # The mass beyond 200 standard deviations is e^-20005, beyond what any number type holds; there z - low is nearly
    # an exponential draw of rate low: its mean is 1/low - 2/low^3, its derivative in loc 1/low^2 to first order.
    low = jnp.array([20.0, 200.0])

    def mean_excess(loc):
        fn = dist.LeftTruncatedDistribution(dist.Normal(loc, 1.0), low)
        return jnp.mean(implicit.sample(jax.random.key(1), fn, (40_000,)) - low, 0)

    with jax.enable_x64(True):
        mean, slope = jit(lambda loc: jax.jvp(mean_excess, (loc,), (jnp.ones_like(loc),)))(jnp.zeros(()))
    np.testing.assert_allclose(mean, 1 / low - 2 / low**3, rtol=5.5 / 200)
    np.testing.assert_allclose(slope, 1 / low**2, rtol=0.05)


@pytest.mark.parametrize("name", ["Normal", "Gamma"])
def test_second_derivatives_are_those_of_the_quantile(name):
    point = np.array((0.5, 2.0, -1.0, 3.0) if name == "Normal" else (2.0, 1.5, 0.5, 2.0))
    direction, u, h = np.array([1.0, 0.7, 0.4, -0.8]), 0.3, 1e-2

    def quantile(step):
        p = point + step * direction
        law = scipy_law(name, p[:2])
        return law.ppf(law.cdf(p[2]) * (1 - u) + law.cdf(p[3]) * u)

    weights = np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * h * h)
    exact = weights @ [quantile(k * h) for k in range(-3, 4)]

    @jit
    def second(point, direction, value):
        moved = lambda p: implicit.reparameterize(truncate(name, p[:2], p[2], p[3]), value)  # noqa: E731
        along = lambda p: jax.jvp(moved, (p,), (direction,))[1]  # noqa: E731
        return jax.jvp(along, (point,), (direction,))[1]

    with jax.enable_x64(True):
        np.testing.assert_allclose(second(point, direction, quantile(0)), exact, rtol=1e-6)


def test_no_shape_of_a_gamma_has_a_gradient_that_is_not_finite():
    shapes = 10.0 ** jnp.arange(-3, 5)
    low = jnp.stack([shapes * 0.5, 1e-30 * shapes, shapes * 2, 0 * shapes])
    high = jnp.stack([shapes * 2, shapes * 1e-3, shapes * 1e3, shapes])

    @jit
    def gradient(*parameters):
        def total(concentration, low, high):
            fn = truncate("Gamma", (concentration, 1.0), low, high)
            return implicit.sample(jax.random.key(2), fn, (500,)).sum(0)

        return jax.vjp(total, *parameters)[1](jnp.ones_like(low))

    by_shape, by_low, by_high = gradient(shapes, low, high)
    assert np.isfinite(by_shape).all()
    assert np.isfinite(by_high).all()
    # Below a shape of 1 the density has a pole at 0: there the derivative in a bound of 0 is infinite in truth.
    assert np.isfinite(by_low[:3]).all()


def test_bounds_that_are_none_do_not_count():
    values = jnp.array([0.1, 0.5, 0.9])

    @jit
    def slopes(moving):
        gamma, normal = (lambda a: dist.Gamma(a, 1.0)), (lambda s: dist.Normal(0.0, s))
        laws = [
            lambda a: dist.TwoSidedTruncatedGamma(gamma(a), 0.0, 1.0),
            lambda a: dist.RightTruncatedGamma(gamma(a), 1.0),
            lambda s: dist.TwoSidedTruncatedDistribution(normal(s), -jnp.inf, 1.0),
            lambda s: dist.RightTruncatedDistribution(normal(s), 1.0),
            lambda s: dist.TwoSidedTruncatedDistribution(normal(s), -jnp.inf, jnp.inf),
        ]
        return [jax.jvp(lambda p, f=f: implicit.reparameterize(f(p), values), (2.0,), (moving,))[1] for f in laws]

    closed, right, open_below, below, free = slopes(1.0)
    np.testing.assert_allclose(closed, right, rtol=1e-6)
    np.testing.assert_allclose(open_below, below, rtol=1e-6)
    np.testing.assert_allclose(free, values / 2, rtol=1e-6)


def test_batches_and_transformations():
    low = jnp.array([[-1.0], [0.5]])

    def draws(key, loc):
        return implicit.sample(key, dist.LeftTruncatedDistribution(dist.Normal(loc, 1.0), low), (3,))

    @jit
    def everything(key, loc):
        many = jax.vmap(draws, (0, None))(jax.random.split(key, 5), loc)
        return jax.jacfwd(draws, 1)(key, loc), jax.jacrev(draws, 1)(key, loc), many

    forward, reverse, many = everything(jax.random.key(0), jnp.arange(4.0))
    assert forward.shape == (3, 2, 4, 4)
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-6)
    assert many.shape == (5, 3, 2, 4)
    assert len(np.unique(many)) == many.size


def test_a_base_that_cannot_be_truncated_is_named():
    class Odd(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) * 2

    with pytest.raises(TypeError, match="Odd"):
        implicit.sample(jax.random.key(0), dist.LeftTruncatedDistribution(Odd(0.0, 1.0), 0.0))


def test_the_coordinate_of_large_gammas_keeps_its_digits():
    """At a shape of 1e6 draws differ from their mean by 1e-3 of it: the logarithms themselves would lose most of it."""
    rate = np.float32(1e-3)
    value = np.float32([0.9985e9, 0.9999e9, 1.0003e9, 1.002e9])
    single = gamma_density(jnp.float32(1e6), jnp.asarray(rate)).position(jnp.asarray(value))
    np.testing.assert_allclose(single, np.log(np.float64(value) * np.float64(rate) / 1e6), atol=1.5e-7)
