"""Dirichlet draws: expectations of their gradients against closed forms, concentrations from 1e-3 to 1e4."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from one_sided import assert_mean
from scipy.special import betainc, polygamma
from scipy.stats import kstest

from autovi.implicit.attach import attach
from autovi.implicit.multivariate.dirichlet import dirichlet_velocity, draw_dirichlet
from autovi.implicit.univariate.beta import draw_beta

WIDE = np.array([1e-3, 0.05, 1.0, 30.0, 1e4], np.float32)
NUM = 20_000


def assert_logarithms(draws, concentrations):
    """The mean over draws of d log x_i / d concentration is that of E log x_i, for every element i.

    `draws(concentration)` makes `NUM` draws, each of which has a concentration of its own.
    """

    @jit
    def gradient(index, concentration):
        return jax.grad(lambda c: jnp.sum(jnp.log(draws(c)[..., index])))(concentration)

    for concentration in concentrations:
        copies = jnp.broadcast_to(jnp.asarray(concentration), (NUM, len(concentration)))
        for index in range(len(concentration)):
            exact = exact_gradient_of_log(index, concentration)
            assert_mean(gradient(index, copies), exact, rounding=1e-3, floor=0.2)


def exact_gradient_of_log(index, concentration):
    """Of E log x_i = digamma(a_i) - digamma(a_1 + ... + a_K)."""
    concentration = np.asarray(concentration, np.float64)
    own = np.where(np.arange(len(concentration)) == index, polygamma(1, concentration), 0.0)
    return own - polygamma(1, concentration.sum())


def test_law_of_the_draws():
    concentration = np.array([0.2, 1.0, 7.0])
    with jax.enable_x64(True):
        fn = dist.Dirichlet(concentration)
        drawn = np.asarray(jit(lambda k: draw_dirichlet(k, fn, (NUM,)))(jax.random.key(0)))
    np.testing.assert_allclose(drawn.sum(-1), 1.0, rtol=1e-12)
    marginals = [*zip(drawn.T, concentration, strict=True), (drawn[:, 0] + drawn[:, 1], 1.2)]
    for x, a in marginals:
        assert kstest(x, lambda x, a=a: betainc(a, concentration.sum() - a, x)).pvalue > 1e-6


def test_expected_logarithms():
    """Also of elements that underflow in half of the draws, or nearly always."""
    draws = lambda c: draw_dirichlet(jax.random.key(1), dist.Dirichlet(c), (NUM,))  # noqa: E731
    assert_logarithms(draws, (WIDE[:4], WIDE[:4] + 0.3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_are_inside_and_their_gradient_finite(dtype):
    with jax.enable_x64(dtype == "float64"):
        copies = jnp.broadcast_to(jnp.asarray(WIDE, dtype), (NUM, 5))
        weights = jnp.arange(1.0, 6.0, dtype=dtype)

        @jit
        def draws(c):
            drawn, back = jax.vjp(lambda c: draw_dirichlet(jax.random.key(2), dist.Dirichlet(c), (NUM,)), c)
            return drawn, *back(weights / drawn)

        drawn, moved = map(np.asarray, draws(copies))
    assert drawn.dtype == moved.dtype == dtype
    assert drawn.shape == (NUM, 5)
    assert (drawn > 0).all() and (drawn < 1).all()
    assert np.isfinite(moved).all()


def test_given_draws():
    """The gradient of E log x for every element, of values that NumPyro drew."""
    concentration = jnp.array([0.7, 3.0, 1.5, 20.0])
    values = dist.Dirichlet(concentration).sample(jax.random.key(3), (NUM,))
    assert_logarithms(lambda c: attach(values, dist.Dirichlet(c), dirichlet_velocity), (concentration,))


def test_given_draws_stay_on_the_simplex():
    concentration = jnp.array([[0.3, 2.0, 5.0], [4.0, 0.5, 1.0]])
    values = dist.Dirichlet(concentration).sample(jax.random.key(4), (50,))
    moved = jit(dirichlet_velocity)(dist.Dirichlet(concentration), values, dist.Dirichlet(concentration**2))
    assert moved.shape == (50, 2, 3)
    np.testing.assert_allclose(moved.sum(-1), 0.0, atol=1e-6 * float(jnp.max(jnp.abs(moved))))


def test_two_elements_given_are_a_beta():
    shapes, speeds = jnp.array([0.6, 1.7]), jnp.array([1.0, 0.4])
    own = lambda c: draw_beta(jax.random.key(5), dist.Beta(c[0], c[1]), (300,))  # noqa: E731
    value, ours = jit(lambda: jax.jvp(own, (shapes,), (speeds,)))()
    both = jnp.stack([value, 1 - value], -1)
    theirs = jit(dirichlet_velocity)(dist.Dirichlet(shapes), both, dist.Dirichlet(speeds))
    np.testing.assert_allclose(theirs[..., 0], ours, rtol=2e-3, atol=1e-5)


def test_second_derivatives():
    """E x_1 x_2 = a_1 a_2 / (s (s + 1)), s their sum, along a direction."""
    concentration, direction = jnp.array([0.5, 2.0, 6.0]), jnp.array([0.3, 1.0, -2.0])

    def second(of):
        first = lambda c: jax.jvp(of, (c,), (direction,))[1]  # noqa: E731
        return jax.jvp(first, (concentration,), (direction,))[1]

    def product(c):
        drawn = draw_dirichlet(jax.random.key(6), dist.Dirichlet(c), (NUM,))
        return drawn[..., 0] * drawn[..., 1]

    sampled = jit(lambda: second(product))()
    assert_mean(sampled, second(lambda c: c[0] * c[1] / (c.sum() * (c.sum() + 1))), rounding=1e-3, floor=0.1)


def test_concentrations_broadcast_as_those_of_the_distribution():
    fn = dist.Dirichlet(jnp.array([[[1.0, 2.0, 3.0]], [[4.0, 0.5, 9.0]]]))
    drawn = jit(lambda k: draw_dirichlet(k, fn, (5, 2, 4)))(jax.random.key(7))
    assert drawn.shape == (5, 2, 4, 3)
    assert len(np.unique(drawn)) == 120
