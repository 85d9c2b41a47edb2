"""Mode and curvature of a log density, in float32: exact on normal densities in whatever units and correlations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.compiling import compiler_options
from autovi.ladder import curvature
from autovi.ladder.normal import Normal

RNG = np.random.default_rng(20)


def curved(log_density, point, max_rounds=curvature.MAX_ROUNDS):
    """Compiled as the ladder compiles it for little data."""
    found = jax.jit(lambda u: curvature.curved(log_density, u, max_rounds), compiler_options=compiler_options(0))
    return found(jnp.asarray(point))


def errors(normal, mean, factor):
    """How far from the normal distribution N(mean, factor factor'): the largest error of a mean in its standard
    deviations, and of the whitened covariance relative to the identity (Frobenius)."""
    loc, scale = np.asarray(normal.loc, float), np.asarray(normal.scale, float)
    whitened = np.linalg.solve(factor, scale)
    off = np.abs(loc - mean) / np.linalg.norm(factor, axis=1)
    dimension = len(mean)
    return off.max(), np.linalg.norm(whitened @ whitened.T - np.eye(dimension)) / dimension**0.5


def gaussian(dimension, condition, units, seed=0):
    """A normal density with the root J of its precision in float32, whose inverse is a factor of the covariance."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    unit = 10.0 ** rng.uniform(-units, units, dimension)
    root = (basis / np.geomspace(1, condition**0.5, dimension) / unit[:, None]).T.astype(np.float32)
    factor = np.linalg.inv(root.astype(float))
    mean = (3 * rng.normal(size=dimension) * np.linalg.norm(factor, axis=1)).astype(np.float32)
    start = (rng.normal(size=dimension) * unit).astype(np.float32)
    return (lambda u: -0.5 * jnp.sum((jnp.asarray(root) @ (u - mean)) ** 2)), start, mean.astype(float), factor


@pytest.mark.parametrize(
    ("dimension", "condition", "units"),
    [(1, 1, 6), (2, 1e4, 0), (2, 1e8, 6), (30, 1e2, 6), (30, 1e8, 0), (100, 1e8, 6)],
)
def test_exact_on_normal_densities(dimension, condition, units):
    log_density, start, mean, factor = gaussian(dimension, condition, units)
    found = curved(log_density, start)
    off, apart = errors(found.normal, mean, factor)
    assert off < 0.01
    assert apart < 0.01
    assert found.converged
    assert found.negative == 0
    assert found.rounds <= 5
    scale = np.asarray(found.normal.scale)
    assert (np.triu(scale, 1) == 0).all()
    assert (np.diag(scale) > 0).all()


@pytest.mark.slow
def test_exact_on_a_normal_density_of_500_dimensions():
    log_density, start, mean, factor = gaussian(500, 1e8, 6)
    found = curved(log_density, start)
    assert max(errors(found.normal, mean, factor)) < 0.02


def test_in_other_units_the_same_but_for_the_units():
    log_density, start, _, _ = gaussian(6, 1e3, 0)
    unit, origin = np.float32([1e6, 1e-6, 1, 1e3, 1e-3, 1]), np.float32([0, 0, 30, 0, 0, -20])
    plain = curved(log_density, start)
    other = curved(lambda x: log_density(x / unit + origin), (start - origin) * unit)
    np.testing.assert_allclose(other.normal.scale / unit[:, None], plain.normal.scale, rtol=2e-3, atol=1e-5)
    deviation = np.sqrt(np.diag(plain.normal.covariance))
    off = (other.normal.loc / unit + origin - plain.normal.loc) / deviation
    assert np.abs(off).max() < 2e-3
    np.testing.assert_allclose(other.condition, plain.condition, rtol=0.01)


def regression(columns, noise=1.0, seed=1):
    """A linear regression with raw columns: the density in float32, and mean and factor in float64."""
    rng = np.random.default_rng(seed)
    design = np.column_stack(columns).astype(np.float32)
    truth = rng.normal(size=design.shape[1]) / np.abs(design).max(0) * 3
    y = (design @ truth + noise * rng.normal(size=len(design))).astype(np.float32)
    exact, basis = np.linalg.qr(design.astype(float))
    factor = noise * np.linalg.inv(basis)
    mean = np.linalg.solve(basis, exact.T @ y.astype(float))
    return (lambda u: -0.5 * jnp.sum(((y - design @ u) / noise) ** 2)), mean, factor


ONES = np.ones(60)
REGRESSIONS = {
    "years": [ONES, 2000 + np.arange(60) % 21],
    "millions": [ONES, 1e6 * RNG.normal(size=60)],
    "shifted": [ONES, 1e4 + RNG.normal(size=60), RNG.normal(size=60)],
    "all": [ONES, 2000 + np.arange(60) % 21, 1e6 * RNG.normal(size=60), 1e-4 * RNG.normal(size=60)],
}


@pytest.mark.parametrize("name", list(REGRESSIONS))
def test_exact_on_regressions_on_raw_columns(name):
    log_density, mean, factor = regression(REGRESSIONS[name])
    found = curved(log_density, jnp.ones(len(mean)))
    off, apart = errors(found.normal, mean, factor)
    assert off < 0.02
    assert apart < 0.02
    assert found.converged


def test_with_an_unknown_scale_of_the_noise():
    # Mode of (beta, log sigma) with flat priors on both: least squares, sigma^2 = RSS / n.
    rng = np.random.default_rng(3)
    x = np.float32(2000 + np.arange(40) % 21)
    y = np.float32(0.05 * (x - 1990) + 0.3 * rng.normal(size=40))

    def log_density(u):
        return -0.5 * jnp.sum(((y - u[0] - u[1] * x) * jnp.exp(-u[2])) ** 2) - 40 * u[2]

    found = curved(log_density, jnp.float32([0.5, -0.5, 1.0]))
    design = np.column_stack([np.ones(40), x]).astype(float)
    beta = np.linalg.lstsq(design, y.astype(float), rcond=None)[0]
    sigma = np.sqrt(np.mean((y - design @ beta) ** 2))
    deviation = sigma * np.linalg.norm(np.linalg.inv(np.linalg.qr(design)[1]), axis=1)
    assert np.abs((found.normal.loc[:2] - beta) / deviation).max() < 0.02
    np.testing.assert_allclose(found.normal.loc[2], np.log(sigma), atol=0.002)
    np.testing.assert_allclose(found.normal.scale[2, 2], (2 * 40) ** -0.5, rtol=0.01)
    assert found.converged


def test_the_evidence_of_a_normal_density():
    log_density, start, _, factor = gaussian(5, 1e3, 3)
    found = curved(log_density, start)
    exact = 2.5 * np.log(2 * np.pi) + np.linalg.slogdet(factor)[1]
    np.testing.assert_allclose(found.log_evidence, exact, atol=0.01)


def test_the_condition_number_is_that_of_the_correlations():
    log_density, start, _, factor = gaussian(5, 1e6, 6)
    covariance = factor @ factor.T
    deviation = np.sqrt(np.diag(covariance))
    expected = np.linalg.cond(covariance / np.outer(deviation, deviation))
    np.testing.assert_allclose(curved(log_density, start).condition, expected, rtol=0.02)


def test_from_afar_it_goes_up_to_a_mode():
    # At 5 the curvature of Student's t is negative, and at (-1.2, 1) Rosenbrock's is far from the mode's.
    t = curved(lambda u: -2.5 * jnp.log1p(u**2 / 4).sum(), jnp.float32([5.0, -3.0]))
    np.testing.assert_allclose(t.normal.loc, 0, atol=1e-3)
    np.testing.assert_allclose(t.normal.covariance, np.eye(2) / 1.25, atol=1e-3)
    rosenbrock = curved(lambda u: -(100 * (u[1] - u[0] ** 2) ** 2 + (1 - u[0]) ** 2), jnp.float32([-1.2, 1.0]), 30)
    np.testing.assert_allclose(rosenbrock.normal.loc, 1, atol=1e-3)


def test_a_saddle_is_left():
    found = curved(lambda u: -((u[0] ** 2 - 1) ** 2) - u[1] ** 2, jnp.float32([0.1, 1.0]))
    np.testing.assert_allclose(found.normal.loc, [1, 0], atol=1e-3)
    np.testing.assert_allclose(found.normal.covariance, np.diag([1 / 8, 1 / 2]), atol=1e-3)


def test_directions_without_curvature_are_counted():
    found = curved(lambda u: -0.5 * (u[0] + u[1]) ** 2 - 0.5 * u[2] ** 2, jnp.float32([1.0, 1.0, 1.0]))
    assert found.negative == 1
    assert not found.converged
    assert np.isfinite(found.normal.scale).all()


@pytest.mark.parametrize("log_density", [lambda u: jnp.nan * u.sum(), lambda u: jnp.log(u).sum()], ids=["nan", "log"])
def test_no_number_at_the_start_is_said(log_density):
    found = curved(log_density, jnp.float32([-1.0, 1.0]))
    assert not np.isfinite(found.value)
    assert not found.converged
    assert found.rounds == 0


def test_a_wall_of_no_numbers_is_kept_away_from():
    # log Gamma(u; 3, 1) is no number below zero: mode 2, curvature 1/2. From 9 Newton's step ends below.
    found = curved(lambda u: jnp.sum(2 * jnp.log(u) - u), jnp.float32([9.0]))
    np.testing.assert_allclose(found.normal.loc, 2, atol=1e-3)
    np.testing.assert_allclose(found.normal.scale, [[2**0.5]], atol=1e-3)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_what_rounding_of_the_point_costs(ratio):
    # Two coordinates of correlation 1 - 1e-6 and far from zero: float32 holds a point to 6e-8 of its size at most, and
    # along the narrow direction a standard deviation is 1e-3 of a coordinate's.
    root = jnp.float32([[1e3, -1e3], [1, 1]]) / 2**0.5
    mean = jnp.float32([ratio, ratio])
    found = curved(lambda u: -0.5 * jnp.sum((root @ (u - mean)) ** 2), mean + 1)
    narrow = np.linalg.norm([1, 1]) / 2**0.5 * 1e3  # of the errors of both, in units of the narrow deviation
    expected = np.finfo(np.float32).eps / 12**0.5 * ratio * narrow
    np.testing.assert_allclose(found.rounding, expected, rtol=0.5)


def test_in_double_precision():
    with jax.enable_x64(True):
        log_density, start, mean, factor = gaussian(20, 1e8, 3)
        found = curved(log_density, jnp.asarray(start, jnp.float64))
        assert max(errors(found.normal, mean, factor)) < 1e-6
        assert isinstance(found.normal, Normal)
        assert found.normal.loc.dtype == jnp.float64
