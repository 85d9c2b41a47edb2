"""Modes from several starts: how each ends, and that none ends another."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.compiling import compiler_options
from autovi.ladder import mode as module
from autovi.ladder.mode import Modes, Status, distinct_modes


def find_modes(log_density, starts, **options):
    """Compiled as the ladder compiles it for little data."""
    found = jax.jit(lambda u: module.find_modes(log_density, u, **options), compiler_options=compiler_options(0))
    return found(starts)


def names(modes):
    return [Status(int(status)).name for status in modes.status]


def test_examples_in_the_docstrings():
    tried = doctest.testmod(module)
    assert (tried.failed, tried.attempted) == (0, 2)


@pytest.mark.parametrize(("dimension", "condition"), [(1, 1), (2, 1e4), (10, 1e2), (100, 1e2)])
def test_normal_densities(dimension, condition):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    root = jnp.asarray((basis / np.geomspace(1, condition**0.5, dimension)).T, jnp.float32)
    starts = jnp.asarray(rng.uniform(-2, 2, (4, dimension)), jnp.float32)
    modes = find_modes(lambda u: 5 - 0.5 * jnp.sum((root @ (u - 3)) ** 2), starts)
    assert names(modes) == ["CONVERGED"] * 4
    # What is left to gain, in nats.
    np.testing.assert_allclose(modes.values, 5, atol=0.02)
    assert (modes.iterations < 60).all()
    np.testing.assert_allclose(jax.vmap(lambda u: 5 - 0.5 * jnp.sum((root @ (u - 3)) ** 2))(modes.points), modes.values)


def test_rosenbrock():
    starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (4, 2)), jnp.float32)
    modes = find_modes(lambda u: -(100 * (u[1] - u[0] ** 2) ** 2 + (1 - u[0]) ** 2), starts)
    assert names(modes) == ["CONVERGED"] * 4
    np.testing.assert_allclose(modes.points, 1, atol=0.05)


def test_in_other_units_the_same_search():
    def log_density(u):
        return -jnp.cosh(u - 1).sum() - 0.5 * (u[0] - u[1]) ** 2

    starts = jnp.float32([[1.5, -1.0], [0.0, 2.0]])
    unit = jnp.float32([2.0**20, 2.0**-20])  # powers of two: not a bit is lost
    plain = find_modes(log_density, starts)
    other = find_modes(lambda x: log_density(x / unit), starts * unit, scales=unit)
    assert (other.points / unit).tolist() == plain.points.tolist()
    assert other.iterations.tolist() == plain.iterations.tolist()


def mixture(u):
    near, far = -0.5 * ((u + 3) ** 2).sum(), -0.5 * ((u - 3) ** 2).sum() + 2
    return jnp.logaddexp(near, far)


def test_the_modes_of_a_mixture_and_who_found_which():
    starts = jnp.float32([[-4, -2], [2, 4], [-3, -5], [5, 3], [3, 3]])
    modes = find_modes(mixture, starts)
    assert names(modes) == ["CONVERGED"] * 5
    np.testing.assert_allclose(modes.points, np.array([-3, 3, -3, 3, 3])[:, None] * np.ones(2), atol=0.05)
    labels = np.asarray(distinct_modes(mixture, modes))
    near, far = [0, 2], [1, 3, 4]
    assert len(set(labels[near])) == len(set(labels[far])) == 1
    assert labels[0] in near
    assert labels[1] in far
    assert modes.values[labels[1]] == modes.values[jnp.array(far)].max()


def test_one_mode_is_one_however_long():
    # Points of a ridge with a condition number of 1e6: far apart, and nothing between them.
    points, nothing = jnp.float32([[0, 0], [0, 100], [0, jnp.nan]]), jnp.zeros(3, int)
    modes = Modes(points, jnp.float32([0, -0.005, -jnp.inf]), nothing, nothing, nothing)
    labels = distinct_modes(lambda u: -0.5 * (u[0] ** 2 + 1e-6 * u[1] ** 2), modes)
    assert labels.tolist() == [0, 0, -1]


def test_a_start_without_a_number_ends_alone():
    def log_density(u):  # log Gamma(u; 3, 1): no number below zero, mode 2
        return jnp.sum(2 * jnp.log(u) - u)

    starts = jnp.float32([[-1.0], [0.01], [50.0], [jnp.nan]])
    modes = find_modes(log_density, starts)
    assert names(modes) == ["NON_FINITE", "CONVERGED", "CONVERGED", "NON_FINITE"]
    np.testing.assert_allclose(modes.points[1:3], 2, atol=0.1)
    assert modes.points[0] == -1
    assert modes.values[0] == -jnp.inf
    assert modes.iterations[0] == 13


def test_a_start_that_is_too_far_moves_nearer_to_zero():
    # exp(1e6 u) is infinite in float32 from u = 9e-5 on, and 0 / 0 in the gradient; mode log(2) / 1e6.
    modes = find_modes(lambda u: jnp.sum(2e6 * u - jnp.exp(1e6 * u)), jnp.float32([[2.0], [-1.0], [1e-6]]))
    assert names(modes) == ["CONVERGED"] * 3
    np.testing.assert_allclose(modes.values, 2 * np.log(2) - 2, atol=0.01)


def test_a_step_into_no_numbers_is_shortened():
    # exp overflows at 89, and Newton's step from -20 is 5e8 long.
    modes = find_modes(lambda u: (u - jnp.exp(u)).sum(), jnp.float32([[-20.0], [80.0]]))
    assert names(modes) == ["CONVERGED"] * 2
    np.testing.assert_allclose(modes.points, 0, atol=0.05)


def test_log_p_that_rises_for_ever_is_said():
    modes = find_modes(lambda u: u.sum() - 0.5 * u[0] ** 2, jnp.float32([[0, 0], [1, 2]]))
    assert names(modes) == ["UNBOUNDED"] * 2
    assert names(find_modes(lambda u: jnp.exp(u).sum(), jnp.zeros((1, 2)))) == ["UNBOUNDED"]


def test_a_scale_that_goes_to_zero_does_not_converge():
    y = jnp.float32([28, 8, -3, 7, -1, 1, 18, 12])

    def log_density(u):  # eight schools, centred: without bound where theta = mu and tau -> 0
        mu, log_tau, theta = u[0], u[1], u[2:]
        prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((jnp.exp(log_tau) / 5) ** 2) + log_tau
        groups = -0.5 * jnp.sum(((theta - mu) * jnp.exp(-log_tau)) ** 2) - 8 * log_tau
        return prior + groups - 0.5 * jnp.sum(((y - theta) / 12) ** 2)

    starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (8, 10)), jnp.float32)
    modes = find_modes(log_density, starts)
    assert "CONVERGED" not in names(modes)
    assert (modes.points[:, 1] < -5).all()


def test_where_there_is_nothing_to_gain_one_gradient_is_taken():
    modes = find_modes(lambda u: 0 * u.sum(), jnp.ones((2, 3)))
    assert names(modes) == ["CONVERGED"] * 2
    assert modes.iterations.tolist() == [1, 1]


def test_a_limit_that_is_too_low_is_said():
    modes = find_modes(lambda u: -((u - 3.0) ** 4).sum(), jnp.zeros((2, 3)), max_iterations=3)
    assert names(modes) == ["MAX_ITERATIONS"] * 2
    assert modes.iterations.tolist() == [3, 3]


def test_a_large_constant_of_log_p_does_no_harm():
    # In float32 log p of -1e6 is known to 0.06, and the mode is where the gradient says.
    starts = jnp.asarray(10 * np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    modes = find_modes(lambda u: -0.5 * jnp.sum((u - 1) ** 2) - 1e6, starts)
    assert names(modes) == ["CONVERGED"] * 4
    np.testing.assert_allclose(modes.points, 1, atol=0.01)


def test_in_double_precision():
    with jax.enable_x64(True):
        modes = find_modes(lambda u: -((u - 3.0) ** 2).sum(), jnp.zeros((2, 3)))
        assert modes.points.dtype == modes.values.dtype == jnp.float64
        np.testing.assert_allclose(modes.points, 3, rtol=1e-9)
    # The other way round: float32 where JAX's default is float64.
    with jax.enable_x64(True):
        modes = find_modes(lambda u: -((u - 3.0) ** 2).sum(), jnp.zeros((2, 3), jnp.float32))
        assert modes.points.dtype == modes.values.dtype == jnp.float32
