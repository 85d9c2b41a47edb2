"""Student-t draws: the gradient of each against quadrature, expectations against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from implicit_checks import jit
from one_sided import ACCURACY, assert_accurate, assert_mean, log_gamma_draws, student_slope
from scipy.special import polygamma
from scipy.stats import f as f_law
from scipy.stats import kstest
from scipy.stats import t as t_law

from autovi.implicit.univariate.student import (
    draw_multivariate_student,
    draw_student,
    log_radius_slope,
    multivariate_student_velocity,
    student_velocity,
)

DFS = np.array([1e-3, 0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 5.99, 6.0, 10.0, 100.0, 1e3, 1e4], np.float32)
SIZES = (1, 2, 3, 20)
NUM = 20_000
LOWER = jnp.array([[1.2, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.5, 1.5]])


@pytest.fixture(scope="module")
def cases() -> np.ndarray:
    """Log radius, df, size, slope and typical slope: draws, the centre, and the mode, where the sides change."""
    generator = np.random.default_rng(0)
    cases = []
    for size, df in itertools.product(SIZES, DFS.astype(np.float64)):
        logs = (np.log(generator.chisquare(size, 8)) + np.log(df / 2) - log_gamma_draws(generator, df / 2, 8)) / 2
        logs = np.append(logs, np.log(size) / 2 + np.array([-8.0, -1e-3, 1e-3]))
        logs = logs.astype(np.float32).astype(np.float64)
        slopes = np.array([student_slope(log_radius, df, size) for log_radius in logs])
        cases.append(np.stack(np.broadcast_arrays(logs, df, size, slopes, np.median(np.abs(slopes)))))
    return np.concatenate(cases, 1)


def slope_errors(cases: np.ndarray, dtype: str) -> np.ndarray:
    """Relative. Of two elements and more the slope has a zero: there relative to a tenth of the typical slope."""
    log_radius, df, size, slope, typical = cases
    with jax.enable_x64(dtype == "float64"):
        ours = jit_as_users(log_radius_slope)(*(jnp.asarray(x.astype(dtype)) for x in (log_radius, df, size)))
    assert ours.dtype == dtype
    errors = np.abs(np.asarray(ours, np.float64) - slope)
    errors /= np.maximum(np.abs(slope), np.where(size > 1, 0.1 * typical, 0.0))
    assert np.isfinite(errors).all()
    return errors


@pytest.mark.parametrize("dtype", ACCURACY)
def test_each_draw_against_quadrature(cases, dtype):
    assert_accurate(slope_errors(cases, dtype), dtype)


def test_law_of_the_draws():
    dfs = np.array([0.3, 1.0, 6.0, 500.0])
    with jax.enable_x64(True):
        fn = dist.StudentT(dfs, 0.5, 1.3)
        drawn = np.asarray(jit(lambda k: draw_student(k, fn, (NUM, 4)))(jax.random.key(0)))
    for df, x in zip(dfs, drawn.T, strict=True):
        assert kstest((x - 0.5) / 1.3, t_law(df).cdf).pvalue > 1e-6


def test_law_of_the_multivariate_draws():
    fn = dist.MultivariateStudentT(3.0, jnp.ones(3), LOWER)
    drawn = np.asarray(jit(lambda k: draw_multivariate_student(k, fn, (NUM,)))(jax.random.key(1)))
    standard = np.linalg.solve(np.asarray(LOWER), (drawn - 1).T).T
    square = np.sum(standard**2, 1)
    assert kstest(square / 3, f_law(3, 3.0).cdf).pvalue > 1e-6
    # One coordinate of a uniform direction in three dimensions is uniform.
    for i in range(3):
        assert kstest(standard[:, i] / np.sqrt(square), "uniform", args=(-1, 2)).pvalue > 1e-6


def test_expected_logarithms_for_all_df():
    """E log|t| = (log df - digamma(df/2)) / 2 + constant, also where t leaves the number type."""
    copies = jnp.broadcast_to(jnp.asarray(DFS), (NUM, len(DFS)))
    logs = lambda df: jnp.log(jnp.abs(draw_student(jax.random.key(2), dist.StudentT(df), df.shape)))  # noqa: E731
    value, moved = jit(lambda df: (lambda v, back: (v, *back(jnp.ones_like(v))))(*jax.vjp(logs, df)))(copies)
    assert np.isfinite(value).all()
    df = DFS.astype(np.float64)
    assert_mean(moved, (1 / df - polygamma(1, df / 2) / 2) / 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_gradients_are_finite(dtype):
    with jax.enable_x64(dtype == "float64"):
        copies = jnp.broadcast_to(jnp.asarray(DFS, dtype), (1000, len(DFS)))

        @jit
        def draws(df, loc, scale):
            drawn, back = jax.vjp(
                lambda *p: draw_student(jax.random.key(3), dist.StudentT(*p), (1000, len(DFS))), df, loc, scale
            )
            return drawn, *back(jnp.ones_like(drawn))

        drawn, *moved = draws(copies, jnp.zeros((), dtype), jnp.full((), 10.0, dtype))
    assert drawn.dtype == dtype
    for x in (drawn, *moved):
        assert np.isfinite(x).all()


def test_variance_against_two_noises():
    """Of E 1 / (1 + t^2): 0.113 by quadrature of the variance of a normal over the root of a chi-square."""
    bounded = lambda draws: lambda df: jnp.sum(1 / (1 + draws(df) ** 2))  # noqa: E731
    ours = bounded(lambda df: draw_student(jax.random.key(4), dist.StudentT(df), (NUM,)))
    theirs = bounded(lambda df: dist.StudentT(df).sample(jax.random.key(5)))
    mine, yours = (jit(jax.grad(of))(jnp.full(NUM, 6.0)) for of in (ours, theirs))
    assert np.var(mine) < 0.15 * np.var(yours)


def second_moment(rng_key, df, loc, scale):
    fn = dist.StudentT(df, loc, scale)
    return draw_student(rng_key, fn, (NUM,)) ** 2


def test_second_moment():
    """E z^2 = loc^2 + scale^2 df / (df - 2), in all parameters."""
    params = jnp.array([12.0, 0.7, 1.5])
    sampled = jit(jax.jacfwd(lambda p: second_moment(jax.random.key(6), *p)))(params)
    df, loc, scale = map(float, params)
    exact = np.array([-2 * scale**2 / (df - 2) ** 2, 2 * loc, 2 * scale * df / (df - 2)])
    assert_mean(sampled, exact)


def test_second_derivatives():
    """Of E z^2 along a direction in df and scale, and of E log|t| in df for small df."""
    direction = jnp.array([1.0, 0.0, 0.1])
    small = jnp.array([0.3, 2.0])

    def along(of, at, direction):
        first = lambda p: jax.jvp(of, (p,), (direction,))[1]  # noqa: E731
        return jax.jvp(first, (at,), (direction,))[1]

    def exact(p):
        return p[1] ** 2 + p[2] ** 2 * p[0] / (p[0] - 2)

    def logs(df):
        return jnp.log(jnp.abs(draw_student(jax.random.key(8), dist.StudentT(df), (NUM, 2))))

    params = jnp.array([16.0, 0.0, 1.5])
    moments, logarithms = jit(
        lambda: (
            along(lambda p: second_moment(jax.random.key(7), *p), params, direction),
            along(logs, small, jnp.ones(2)),
        )
    )()
    assert_mean(moments, along(exact, params, direction), 1e-3, floor=0.1)
    assert_mean(logarithms, -0.5 / np.asarray(small) ** 2 - polygamma(2, np.asarray(small) / 2) / 8, 1e-3)


def test_multivariate_second_moment():
    """E z z' = loc loc' + L L' df / (df - 2), along a direction in all parameters."""
    params = (jnp.array(12.0), jnp.array([0.5, -1.0, 2.0]), LOWER)
    direction = (jnp.array(2.0), jnp.array([1.0, 0.3, -0.5]), jnp.tril(jnp.full((3, 3), 0.4)))

    def products(df, loc, lower):
        drawn = draw_multivariate_student(jax.random.key(9), dist.MultivariateStudentT(df, loc, lower), (NUM,))
        return drawn[..., :, None] * drawn[..., None, :]

    def exact(df, loc, lower):
        return jnp.outer(loc, loc) + lower @ lower.T * df / (df - 2)

    sampled = jit(lambda: jax.jvp(products, params, direction)[1])()
    assert_mean(sampled, jax.jvp(exact, params, direction)[1], floor=0.2)


def test_given_draws_move_as_our_own_do():
    params, direction = (7.0, 0.3, 1.4), (1.0, 0.5, 0.2)
    own = lambda *p: draw_student(jax.random.key(10), dist.StudentT(*p), (200,))  # noqa: E731
    value, ours = jit(lambda: jax.jvp(own, params, direction))()
    theirs = jit(student_velocity)(dist.StudentT(*params), value, dist.StudentT(*direction))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_given_multivariate_draws_move_as_our_own_do():
    params = (jnp.array([2.0, 9.0]), jnp.array([0.5, -1.0, 2.0]), LOWER)
    direction = (jnp.array([1.0, 0.5]), jnp.array([1.0, 0.3, 0.5]), jnp.tril(jnp.full((3, 3), 0.4)))
    make = dist.MultivariateStudentT
    own = lambda *p: draw_multivariate_student(jax.random.key(11), make(*p), (100, 2))  # noqa: E731
    value, ours = jit(lambda: jax.jvp(own, params, direction))()
    theirs = jit(multivariate_student_velocity)(make(*params), value, make(*direction))
    assert value.shape == theirs.shape == (100, 2, 3)
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)


def test_a_draw_at_the_location_is_finite():
    fn = dist.StudentT(3.0, 0.5, 1.3)
    moved = jit(jax.jacfwd(lambda df: student_velocity(dist.StudentT(df, 0.5, 1.3), jnp.array([0.5, 0.6]), fn)))(3.0)
    assert np.isfinite(moved).all()


def test_compiled_and_vectorized_draws_are_the_same():
    keys, dfs = jax.random.split(jax.random.key(12), 3), jnp.array([0.4, 3.0, 80.0])
    draws = lambda k, df: jnp.sum(jnp.tanh(draw_student(k, dist.StudentT(df), (4,))))  # noqa: E731
    one_by_one = jit(lambda: jax.lax.map(lambda args: jax.grad(draws, 1)(*args), (keys, dfs)))()
    together = jit(jax.grad(lambda df: jnp.sum(jax.vmap(draws)(keys, df))))(dfs)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-4)
