"""Velocities in closed form against quadrature of NumPyro's densities, and the laws of the library's own samplers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import exact_velocity, jit
from scipy import stats

from autovi import implicit
from autovi.implicit.dispatch import velocity
from autovi.implicit.numerics.sampling import smallest

# Class, its parameters, draws.
CASES = {
    "Normal": (dist.Normal, {"loc": 0.5, "scale": 2.0}, [-4.0, 0.4, 3.0]),
    "Cauchy": (dist.Cauchy, {"loc": 0.5, "scale": 2.0}, [-40.0, 0.4, 3.0]),
    "Logistic": (dist.Logistic, {"loc": 0.5, "scale": 2.0}, [-4.0, 0.4, 3.0]),
    "Gumbel": (dist.Gumbel, {"loc": 0.5, "scale": 2.0}, [-2.0, 0.4, 6.0]),
    "SoftLaplace": (dist.SoftLaplace, {"loc": 0.5, "scale": 2.0}, [-4.0, 0.4, 3.0]),
    "Levy": (dist.Levy, {"loc": 0.5, "scale": 2.0}, [1.0, 3.0, 100.0]),
    "HalfNormal": (dist.HalfNormal, {"scale": 2.0}, [0.1, 3.0]),
    "HalfCauchy": (dist.HalfCauchy, {"scale": 2.0}, [0.1, 30.0]),
    "Exponential": (dist.Exponential, {"rate": 2.0}, [0.1, 3.0]),
    "Uniform": (dist.Uniform, {"low": -1.0, "high": 3.0}, [-0.9, 0.5, 2.9]),
    "Weibull": (dist.Weibull, {"scale": 2.0, "concentration": 0.7}, [0.01, 1.9, 2.1, 9.0]),
    "Pareto": (dist.Pareto, {"scale": 2.0, "alpha": 1.5}, [2.01, 3.0, 50.0]),
    "LowerTruncatedPowerLaw": (dist.LowerTruncatedPowerLaw, {"alpha": -2.5, "low": 2.0}, [2.01, 3.0, 50.0]),
    "Gompertz": (dist.Gompertz, {"concentration": 0.4, "rate": 1.5}, [0.01, 0.8, 2.0]),
    "Kumaraswamy": (dist.Kumaraswamy, {"concentration1": 0.6, "concentration0": 2.5}, [0.001, 0.2, 0.9]),
    "Dagum": (dist.Dagum, {"concentration": 0.6, "sharpness": 2.5, "scale": 2.0}, [0.1, 1.5, 9.0]),
    "DoublyTruncatedPowerLaw": (
        dist.DoublyTruncatedPowerLaw,
        {"alpha": 0.5, "low": 1.0, "high": 4.0},
        [1.01, 2.0, 3.99],
    ),
    "DoublyTruncatedPowerLaw falling": (
        dist.DoublyTruncatedPowerLaw,
        {"alpha": -2.5, "low": 1.0, "high": 4.0},
        [1.01, 2.0, 3.99],
    ),
}


def along(make, params, values):
    """The library's derivative of given draws in every parameter, [parameters, draws]."""
    names = list(params)  # a compiled function would sort them

    @jit
    def all_of_them(params, values):
        one = lambda name, p: implicit.reparameterize(make(**{**params, name: p}), values)  # noqa: E731
        return [jax.jvp(partial(one, name), (params[name],), (jnp.ones_like(params[name]),))[1] for name in names]

    dtype = jnp.asarray(values).dtype
    return np.array(all_of_them({name: jnp.asarray(p, dtype) for name, p in params.items()}, values), np.float64)


@pytest.mark.parametrize("case", CASES)
def test_every_draw_moves_as_its_distribution_function_says(case):
    make, params, values = CASES[case]
    make = partial(make, validate_args=False)
    with jax.enable_x64(True):
        values = jnp.asarray(values, jnp.float64)
        exact = np.array([exact_velocity(make, params, name, values) for name in params])
        double = along(make, params, values)
    single = along(make, params, values.astype(np.float32))
    scale = np.abs(exact).max(1, keepdims=True)
    assert (np.abs(double - exact) / scale).max() < 1e-8
    assert (np.abs(single - exact) / scale).max() < 1e-5


def asymmetric(u, loc, scale, quantile):
    asymmetry = np.sqrt(quantile / (1 - quantile))
    return stats.laplace_asymmetric(asymmetry, loc, scale * asymmetry / quantile).ppf(u)


# Inverse distribution functions, whose differences are the derivatives at fixed u, of any order and across kinks.
QUANTILES = {
    "Laplace": (dist.Laplace, lambda u, loc, scale: stats.laplace(loc, scale).ppf(u), (0.5, 2.0)),
    "AsymmetricLaplace": (
        dist.AsymmetricLaplace,
        lambda u, loc, scale, k: stats.laplace_asymmetric(k, loc, scale).ppf(u),
        (0.5, 2.0, 1.7),
    ),
    "AsymmetricLaplaceQuantile": (dist.AsymmetricLaplaceQuantile, asymmetric, (0.5, 2.0, 0.2)),
    "Weibull": (dist.Weibull, lambda u, s, c: s * (-np.log1p(-u)) ** (1 / c), (2.0, 0.7)),
    "Pareto": (dist.Pareto, lambda u, s, a: s * (1 - u) ** (-1 / a), (2.0, 1.5)),
    "Gompertz": (dist.Gompertz, lambda u, c, r: np.log1p(-np.log1p(-u) / c) / r, (0.4, 1.5)),
    "Kumaraswamy": (dist.Kumaraswamy, lambda u, a, b: (1 - (1 - u) ** (1 / b)) ** (1 / a), (0.6, 2.5)),
    "Dagum": (dist.Dagum, lambda u, p, a, s: s * (u ** (-1 / p) - 1) ** (-1 / a), (0.6, 2.5, 2.0)),
    "DoublyTruncatedPowerLaw": (
        dist.DoublyTruncatedPowerLaw,
        lambda u, alpha, low, high: (low ** (1 + alpha) * (1 - u) + high ** (1 + alpha) * u) ** (1 / (1 + alpha)),
        (0.5, 1.0, 4.0),
    ),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_first_and_second_derivatives_are_those_of_the_quantile(name):
    cls, quantile, point = QUANTILES[name]
    u, h = np.array([0.03, 0.3, 0.6, 0.97]), 5e-3
    direction = np.array([1.0, 0.7, -0.8])[: len(point)]
    values = [quantile(u, *(np.array(point) + k * h * direction)) for k in range(-3, 4)]
    first = np.array([-1, 9, -45, 0, 45, -9, 1]) / (60 * h) @ values
    second = np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * h * h) @ values

    @jit
    def ours(point, direction, value):
        moved = lambda p: implicit.reparameterize(cls(*p, validate_args=False), value)  # noqa: E731
        along = lambda p: jax.jvp(moved, (p,), (direction,))[1]  # noqa: E731
        return jax.jvp(along, (point,), (direction,))

    with jax.enable_x64(True):
        got = ours(jnp.asarray(point), direction, values[3])
    np.testing.assert_allclose(got, (first, second), rtol=1e-7, atol=1e-9)


WIDE = 10.0 ** np.arange(-3, 5)
SHAPES = {  # NumPyro's class as a function of two shapes that range over all of WIDE
    "Weibull": lambda a, b: dist.Weibull(b, a),
    "Pareto": lambda a, b: dist.Pareto(b, a),
    "LowerTruncatedPowerLaw": lambda a, b: dist.LowerTruncatedPowerLaw(-1 - a, b),
    "Gompertz": lambda a, b: dist.Gompertz(a, b),
    "Kumaraswamy": lambda a, b: dist.Kumaraswamy(a, b),
    "Dagum": lambda a, b: dist.Dagum(a, b, 1.5),
}


@pytest.mark.parametrize("name", SHAPES)
def test_sampler_and_velocity_agree_for_every_shape(name):
    """The one derivative that a one-dimensional draw can have, by the noise and by the value; finite throughout."""
    grid = np.stack(np.meshgrid(WIDE, WIDE), -1).reshape(-1, 2).T

    @jit
    def both(a, b):
        draw = lambda a, b: implicit.sample(jax.random.key(0), SHAPES[name](a, b), (200,))  # noqa: E731
        value, by_noise = jax.jvp(draw, (a, b), (a, b))
        moved = lambda a, b: implicit.reparameterize(SHAPES[name](a, b), value)  # noqa: E731
        return value, by_noise, jax.jvp(moved, (a, b), (a, b))[1]

    assert all(np.isfinite(x).all() for x in both(*jnp.asarray(grid, jnp.float32)))
    with jax.enable_x64(True):
        value, by_noise, by_value = (np.asarray(x) for x in both(*jnp.asarray(grid)))
    # Draws at the ends of what numbers can hold keep the derivative of the draw that they stand for.
    limits = np.finfo(np.float64)
    inside = (value > 2 * smallest(value.dtype)) & (value < limits.max**0.7)
    if name == "Kumaraswamy":
        inside &= value < 1 - 1e-7
    assert np.isfinite(by_noise).all()
    assert np.isfinite(by_value).all()
    assert inside.mean() > 0.5
    np.testing.assert_array_less(np.abs(by_noise - by_value)[inside], 1e-8 * (np.abs(by_value) + 1e-3 * value)[inside])


KS = [
    (dist.Weibull(2.0, 0.1), lambda z: -np.expm1(-((z / 2) ** 0.1))),
    (dist.Pareto(2.0, 0.4), lambda z: -np.expm1(-0.4 * np.log(z / 2))),
    (dist.LowerTruncatedPowerLaw(-1.4, 2.0), lambda z: -np.expm1(-0.4 * np.log(z / 2))),
    (dist.Kumaraswamy(0.3, 1e6), lambda z: -np.expm1(1e6 * np.log1p(-(z**0.3)))),
    (dist.Dagum(1e6, 3.0, 1.0), lambda z: np.exp(-1e6 * np.log1p(z**-3.0))),
    (dist.DoublyTruncatedPowerLaw(-1 + 1e-6, 0.9, 1.1), lambda z: np.log(z / 0.9) / np.log(1.1 / 0.9)),
    (dist.DoublyTruncatedPowerLaw(-1.0, 0.9, 1.1), lambda z: np.log(z / 0.9) / np.log(1.1 / 0.9)),
    (dist.DoublyTruncatedPowerLaw(60.0, 1.0, 3.0), lambda z: (z**61 - 1) / (3.0**61 - 1)),
    (dist.DoublyTruncatedPowerLaw(-60.0, 1.0, 3.0), lambda z: (1 - z**-59.0) / (1 - 3.0**-59)),
    (dist.DoublyTruncatedPowerLaw(1.0, 0.0, 3.0), lambda z: z * z / 9),
]


@pytest.mark.parametrize(("fn", "cdf"), KS, ids=lambda x: type(x).__name__)
def test_own_samplers_have_the_law(fn, cdf):
    draws = np.asarray(implicit.sample(jax.random.key(0), fn, (20_000,)), np.float64)
    assert stats.kstest(draws, cdf).pvalue > 1e-6


def test_a_kumaraswamy_draw_that_underflows_keeps_the_gradient_of_its_logarithm():
    """a log z is the logarithm of a uniform number: E d log z / da = 1 / a^2."""
    logs = lambda a: jnp.log(implicit.sample(jax.random.key(0), dist.Kumaraswamy(a, 1.0), (20_000,)))  # noqa: E731
    slopes = np.asarray(jax.jvp(logs, (0.01,), (1.0,))[1], np.float64)
    assert abs(slopes.mean() - 1e4) < 5.5 * slopes.std() / np.sqrt(slopes.size)


def test_second_derivatives_of_a_power_law_at_its_logarithmic_case():
    def slope(alpha):
        moved = lambda alpha: implicit.reparameterize(  # noqa: E731
            dist.DoublyTruncatedPowerLaw(alpha, 0.5, 4.0), jax.lax.stop_gradient(value)
        )
        return jax.jvp(moved, (alpha,), (1.0,))[1]

    with jax.enable_x64(True):
        value = jnp.array([0.6, 2.0, 3.9])
        # At a given draw; a draw's own derivative moves with it too.
        partial = jit(jax.jacfwd(slope))
        around = [partial(alpha) for alpha in (-1 - 1e-4, -1.0, -1 + 1e-4)]
        np.testing.assert_allclose(around[1], (around[0] + around[2]) / 2, rtol=1e-6)


def test_power_law_is_smooth_through_its_logarithmic_case():
    def slopes(alpha):
        moved = lambda alpha, low, high: implicit.reparameterize(  # noqa: E731
            dist.DoublyTruncatedPowerLaw(alpha, low, high), jnp.array([0.6, 2.0, 3.9])
        )
        return jnp.stack(jax.jacfwd(moved, (0, 1, 2))(alpha, 0.5, 4.0))

    slopes = jit(slopes)
    at = slopes(-1.0)
    np.testing.assert_allclose(slopes(-1 - 1e-5), at, rtol=1e-4)
    np.testing.assert_allclose(slopes(-1 + 1e-5), at, rtol=1e-4)
    # log z is uniform: z = low^(1 - u) high^u, and dz/dalpha = z log(z/low) log(high/z) / 2.
    z = np.array([0.6, 2.0, 3.9])
    u = np.log(z / 0.5) / np.log(8)
    exact = [z * np.log(z / 0.5) * np.log(4 / z) / 2, z * (1 - u) / 0.5, z * u / 4]
    np.testing.assert_allclose(at, exact, rtol=1e-5)


def test_power_law_from_zero():
    z = jnp.array([0.1, 1.0, 2.9])

    @jit
    def slopes(alpha):
        moved = lambda alpha, low, high: implicit.reparameterize(  # noqa: E731
            dist.DoublyTruncatedPowerLaw(alpha, low, high), z
        )
        return jnp.stack(jax.jacfwd(moved, (0, 1, 2))(alpha, 0.0, 3.0))

    # z = high u^(1 / (1 + alpha)), and the lower bound moves draws of a uniform law only.
    for alpha, by_low in ((0.0, 1 - z / 3), (1.5, 0 * z)):
        by_alpha = -z * np.log(z / 3) / (1 + alpha)
        np.testing.assert_allclose(slopes(alpha), [by_alpha, by_low, z / 3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("third", [{"asymmetry": 1.2}, {"quantile": 0.4}])
def test_asymmetric_laplace_has_one_noise(third):
    """The same derivative of E z as NumPyro's two-noise sampler, with a smaller variance."""
    (name, point), num = next(iter(third.items())), 50_000
    cls = dist.AsymmetricLaplace if name == "asymmetry" else dist.AsymmetricLaplaceQuantile

    @jit
    def both(rng_key):
        ours = lambda p: implicit.sample(rng_key, cls(0.5, 2.0, p), (num,))  # noqa: E731
        theirs = lambda p: cls(0.5, 2.0, p).sample(rng_key, (num,))  # noqa: E731
        return [jax.jvp(f, (point,), (1.0,))[1] for f in (ours, theirs)]

    ours, theirs = (np.asarray(x, np.float64) for x in both(jax.random.key(0)))
    se = np.sqrt((ours.var() + theirs.var()) / num)
    assert abs(ours.mean() - theirs.mean()) < 5.5 * se
    assert ours.var() < 0.7 * theirs.var()


def test_explicit_samplers_stay_numpyros():
    """The velocity is for values drawn otherwise: drawing has not changed."""
    for fn in (dist.Normal(0.5, 2.0), dist.HalfCauchy(2.0), dist.Gumbel(0.5, 2.0), dist.Uniform(-1.0, 3.0)):
        draws = implicit.sample(jax.random.key(0), fn, (5,))
        np.testing.assert_array_equal(draws, fn.sample(jax.random.key(0), (5,)))


def test_velocities_serve_transforms():
    """LogUniform and LogNormal have no rule of their own: their base has."""
    fn, moving = dist.LogUniform(1.0, 8.0), dist.LogUniform(1.5, 8.0)
    moving = jax.tree.map(lambda a, b: b - a, fn, moving)
    got = velocity(fn, jnp.array([1.0, 2.0, 8.0]), moving)
    np.testing.assert_allclose(got, np.array([1.0, 2.0, 8.0]) * np.log(1.5) * np.array([1, 2 / 3, 0]), atol=1e-6)
