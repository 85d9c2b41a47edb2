"""Curvature of low rank beside a diagonal, in float32: exact where a posterior is so, else better than the diagonal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.compiling import compiler_options
from autovi.ladder.directions import directions, how_many_directions, lanczos
from autovi.ladder.normal import Normal


def problem(size, rank, orders, seed=0):
    """A precision that is a diagonal, in units over so many orders, and a matrix of a low rank."""
    rng = np.random.default_rng(seed)
    units = 10.0 ** rng.uniform(-orders / 2, orders / 2, size)
    factor = rng.normal(size=(size, rank)) * np.exp(0.5 * rng.normal(size=(size, 1)))
    return (np.eye(size) + factor @ factor.T) * units[:, None] * units


def density_of(precision, mode):
    matrix, mode = jnp.asarray(precision, jnp.float32), jnp.asarray(mode, jnp.float32)
    return lambda u: -0.5 * (u - mode) @ (matrix @ (u - mode))


def alone(precision, point):
    return Normal(jnp.asarray(point, jnp.float32), jnp.asarray(np.diag(precision) ** -0.5, jnp.float32))


def found(precision, point, count, mode=None):
    """The square root A of the covariance that was found, the place of its mean, and how many products it took."""
    density = density_of(precision, np.zeros(len(precision)) if mode is None else mode)
    run = jax.jit(lambda n: directions(density, n, count), compiler_options=compiler_options(0))
    normal, along, products = run(alone(precision, point))
    vectors, lengths = np.asarray(along.vectors, float), np.asarray(along.lengths, float)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=1e-5)
    root = np.asarray(normal.scale, float)[:, None] * (np.eye(len(precision)) + (vectors * (lengths - 1)) @ vectors.T)
    return root, np.asarray(normal.loc, float), int(products)


def divergence(root, precision):
    """KL of N(0, A A') from the posterior, in nats."""
    whitened = root.T @ precision @ root
    return 0.5 * (np.trace(whitened) - len(whitened) - np.linalg.slogdet(whitened)[1])


@pytest.mark.parametrize(("rank", "orders"), [(0, 4.0), (3, 0.0), (20, 6.0)])
def test_exact_where_the_precision_is_of_low_rank_beside_a_diagonal(rank, orders):
    precision = problem(150, rank, orders)
    root, _, _ = found(precision, np.zeros(150), 40)
    assert divergence(root, precision) < 2e-3
    if rank:
        assert divergence(np.diag(np.diag(precision) ** -0.5), precision) > 3.0


def test_a_rank_that_is_too_high_leaves_it_better_than_the_diagonal():
    precision = problem(150, 60, 3.0)
    root, _, _ = found(precision, np.zeros(150), 20)
    unit = np.diag(precision) ** -0.5
    values = np.linalg.eigvalsh(precision * unit[:, None] * unit)
    rest = values[:-20]  # what the twenty narrowest of the diagonal's own coordinates leave
    best = 0.5 * np.sum(np.log(rest.mean()) - np.log(rest))
    assert divergence(root, precision) < 1.02 * best < 0.85 * divergence(np.diag(unit), precision)


def test_the_mode_is_reached_from_beside_it():
    precision, mode = problem(100, 5, 4.0), np.linspace(-3.0, 3.0, 100)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    _, loc, _ = found(precision, (mode * sd) + sd, 20, mode * sd)
    assert np.abs((loc - mode * sd) / sd).max() < 0.01


def test_eigenvectors_of_both_ends_come_out():
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    values = np.concatenate([[1e-3, 0.05, 40.0, 900.0], np.linspace(0.9, 1.1, 196)])
    matrix = (basis * values) @ basis.T
    normal = Normal(jnp.zeros(200), jnp.ones(200))
    run = jax.jit(lambda n: lanczos(density_of(matrix, np.zeros(200)), n, 30, jax.random.key(0)))
    vectors, out, errors = (np.asarray(x, float) for x in run(normal))
    np.testing.assert_allclose(np.sort(out)[[0, 1, -2, -1]], [1e-3, 0.05, 40.0, 900.0], rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(30), atol=1e-5)
    for place, column in ((0, 0), (1, 1), (-2, 2), (-1, 3)):
        assert abs(vectors[:, np.argsort(out)[place]] @ basis[:, column]) > 0.999
        assert errors[np.argsort(out)[place]] < 1e-2


def test_a_density_that_is_not_curved_down_is_left_as_it_is():
    normal = Normal(jnp.ones(50), jnp.full(50, 2.0))
    out, along, _ = jax.jit(lambda n: directions(lambda u: jnp.sum(u**2) + jnp.nan * u[0], n, 5))(normal)
    np.testing.assert_array_equal(out.scale, normal.scale)
    np.testing.assert_array_equal(along.lengths, 1.0)
    np.testing.assert_array_equal(out.loc, normal.loc)


def test_how_many():
    assert [how_many_directions(n) for n in (5, 700, 4_000, 100_000)] == [5, 256, 100, 16]
