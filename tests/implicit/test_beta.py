"""Beta draws: the gradient of each against quadrature, expectations against closed forms, shapes from 1e-3 to 1e4."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from implicit_checks import jit
from one_sided import ACCURACY, assert_accurate, assert_mean, beta_slope, digamma_difference, log_gamma_draws
from scipy.special import betainc, polygamma
from scipy.stats import kstest

from autovi import implicit
from autovi.implicit.numerics.sampling import smallest
from autovi.implicit.univariate.beta import beta_velocity, draw_beta, log_odds, log_odds_velocity

SHAPES = (1e-3, 0.01, 0.1, 0.5, 1.0, 2.5, 3.0, 10.0, 100.0, 1e3, 1e4)
PAIRS = np.array(list(itertools.product(SHAPES, SHAPES)), np.float32)
NUM = 20_000


def quadrature_cases() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds, shapes and slopes: draws, and points beside the zeros of the scores, where the routes change."""
    generator = np.random.default_rng(0)
    cases = []
    for a, b in PAIRS.astype(np.float64):
        logits = list(log_gamma_draws(generator, a, 4) - log_gamma_draws(generator, b, 4))
        for centre in (-digamma_difference(a, b), -digamma_difference(a + 1, b)):
            at = centre - np.log(-np.expm1(centre))
            logits += [at - 1e-3 / np.sqrt(1 + a), at + 1e-3 / np.sqrt(1 + a)]
        cases += [(y, a, b, beta_slope(y, a, b)) for y in np.asarray(logits, np.float32).astype(np.float64)]
    logit, a, b, slope = np.array(cases).T
    return logit, a, b, slope


@pytest.fixture(scope="module")
def cases():
    return quadrature_cases()


def relative_errors(cases, dtype: str) -> np.ndarray:
    """Of d logit x / da, and of d logit (1 - x) / db of the mirrored draw, which is the same number."""
    logit, a, b, slope = cases
    with jax.enable_x64(dtype == "float64"):
        y, a, b = (jnp.asarray(x.astype(dtype)) for x in (logit, a, b))
        one, zero = jnp.ones_like(y), jnp.zeros_like(y)
        by_a = jit_as_users(log_odds_velocity)((a, b), y, (one, zero))
        by_b = jit_as_users(log_odds_velocity)((b, a), -y, (zero, one))
    assert by_a.dtype == dtype
    errors = np.abs(np.stack([by_a, -by_b]).astype(np.float64) / slope - 1)
    assert np.isfinite(errors).all()
    return errors


@pytest.mark.parametrize("dtype", ACCURACY)
def test_each_draw_against_quadrature(cases, dtype):
    assert_accurate(relative_errors(cases, dtype), dtype)


def test_law_of_the_draws():
    shapes = np.array([(0.01, 0.3), (0.5, 0.5), (2.0, 3.0), (40.0, 0.7), (300.0, 1e4)]).T
    with jax.enable_x64(True):
        drawn = np.asarray(jit(lambda k: draw_beta(k, dist.Beta(*shapes), (NUM, 5)))(jax.random.key(0)))
    for a, b, x in zip(*shapes, drawn.T, strict=True):
        assert kstest(x, lambda x, a=a, b=b: betainc(a, b, x)).pvalue > 1e-6


def per_draw(function, rng_key, a, b, num=NUM):
    """The gradient of `function(log-odds)` in both shapes for each draw: every draw has shapes of its own."""
    copies = [jnp.broadcast_to(x, (num, *jnp.shape(x))) for x in (a, b)]
    total = lambda a, b: jnp.sum(function(log_odds(rng_key, a, b, copies[0].shape)))  # noqa: E731
    return jit_as_users(jax.grad(total, (0, 1)))(*copies)  # millions of draws: worth compiling well


def test_expected_logarithms_for_all_shapes():
    """E log x = digamma(a) - digamma(a + b), likewise for 1 - x, by log-odds that neither underflow nor round."""
    a, b = PAIRS.T
    total, own = polygamma(1, a.astype(float) + b), polygamma(1, a.astype(float))
    by_a, by_b = per_draw(jax.nn.log_sigmoid, jax.random.key(1), a, b)
    assert_mean(by_a, own - total)
    assert_mean(by_b, -total)


def test_expected_logarithms_of_values_that_leave_the_number_type():
    """Half of the draws of shape 0.01 underflow or round to 1: they keep the gradient of log x and log(1 - x)."""
    small, other = jnp.full((NUM, 3), 0.01), jnp.broadcast_to(jnp.array([0.01, 1.0, 100.0]), (NUM, 3))

    def logs(a, b):
        first = draw_beta(jax.random.key(2), dist.Beta(a, other), (NUM, 3))
        second = draw_beta(jax.random.key(3), dist.Beta(other, b), (NUM, 3))
        return jnp.sum(jnp.log(first)) + jnp.sum(jnp.log1p(-second)), (first, second)

    (by_a, by_b), (first, second) = jit(jax.grad(logs, (0, 1), has_aux=True))(small, small)
    assert np.mean(np.asarray(first)[:, 2] < 2 * smallest(first.dtype)) > 0.3
    assert np.mean(np.asarray(second)[:, 2] > 1 - 2e-7) > 0.7
    exact = polygamma(1, 0.01) - polygamma(1, 0.01 + np.array([0.01, 1.0, 100.0]))
    assert_mean(by_a, exact)
    assert_mean(by_b, exact)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_are_inside_and_their_gradient_finite(dtype):
    with jax.enable_x64(dtype == "float64"):
        a, b = (jnp.broadcast_to(jnp.asarray(x, dtype), (200, len(PAIRS))) for x in PAIRS.T)

        @jit
        def draws(a, b):
            drawn, back = jax.vjp(lambda a, b: draw_beta(jax.random.key(3), dist.Beta(a, b), a.shape), a, b)
            return drawn, *back(1 / drawn)

        drawn, by_a, by_b = map(np.asarray, draws(a, b))
    assert drawn.dtype == by_a.dtype == dtype
    assert (drawn > 0).all() and (drawn < 1).all()
    assert np.isfinite(by_a).all() and np.isfinite(by_b).all()
    assert (by_a > 0).all() and (by_b < 0).all()


def test_variance_is_half_of_that_of_a_gamma_ratio():
    copies = jnp.full(NUM, 2.0), jnp.full(NUM, 3.0)
    ours = per_draw(jax.nn.sigmoid, jax.random.key(4), 2.0, 3.0)
    theirs = jit(jax.grad(lambda ab: jnp.sum(dist.Beta(*ab).sample(jax.random.key(5)))))(copies)
    ratios = [np.var(mine) / np.var(yours) for mine, yours in zip(ours, theirs, strict=True)]
    # By quadrature 0.42 in a and 0.67 in b; the standard error of a ratio is 0.01.
    assert ratios[0] < 0.55
    assert np.mean([np.var(x) for x in ours]) < 0.58 * np.mean([np.var(x) for x in theirs])


def second_along(of, a, b):
    """The second derivative of `of(a + t, b + 2 t)` in t at 0, of a function that does not mix elements."""
    one = jnp.ones_like(a)
    first = lambda t: jax.jvp(lambda t: of(a + t, b + 2 * t), (t,), (one,))[1]  # noqa: E731
    return jax.jvp(first, (jnp.zeros_like(a),), (one,))[1]


def test_second_derivatives():
    """Of E x^2 = a (a + 1) / ((a + b) (a + b + 1)), both shapes moving, small and large ones."""
    a, b = jnp.array([0.4, 2.0, 30.0]), jnp.array([0.7, 3.0, 8.0])
    square = lambda a, b: draw_beta(jax.random.key(6), dist.Beta(a, b), (NUM, 3)) ** 2  # noqa: E731
    sampled = jit(lambda a, b: second_along(square, a, b))(*(jnp.broadcast_to(x, (NUM, 3)) for x in (a, b)))
    exact = second_along(lambda a, b: a * (a + 1) / ((a + b) * (a + b + 1)), a, b)
    assert_mean(sampled, np.asarray(exact, np.float64), 1e-4)


def test_given_draws_move_as_our_own_do():
    shapes, speeds = (2.0, 3.0), (1.0, 0.3)
    own = lambda a, b: draw_beta(jax.random.key(7), dist.Beta(a, b), (500,))  # noqa: E731
    value, ours = jit(lambda: jax.jvp(own, shapes, speeds))()
    theirs = jit(beta_velocity)(dist.Beta(*shapes), value, dist.Beta(*speeds))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_mean_and_concentration():
    """A `BetaProportion` of mean m and concentration c: E log x = digamma(m c) - digamma(c)."""
    m, c = 0.3, 4.0
    logs = lambda m, c: jnp.log(draw_beta(jax.random.key(8), dist.BetaProportion(m, c), (NUM,)))  # noqa: E731
    by_mean, by_concentration = jit(jax.jacfwd(logs, (0, 1)))(m, c)
    assert_mean(by_mean, c * polygamma(1, m * c))
    assert_mean(by_concentration, m * polygamma(1, m * c) - polygamma(1, c))


def test_compiled_and_vectorized_draws_are_the_same():
    keys = jax.random.split(jax.random.key(9), 3)
    shapes = jnp.array([0.4, 2.0, 50.0])
    draws = lambda k, a: jnp.sum(jnp.log(draw_beta(k, dist.Beta(a, 2.0), (4,))))  # noqa: E731
    one_by_one = jit(lambda: jax.lax.map(lambda args: jax.grad(draws, 1)(*args), (keys, shapes)))()
    together = jit(jax.grad(lambda a: jnp.sum(jax.vmap(draws)(keys, a))))(shapes)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-4)


def test_no_pair_of_shapes_needs_more_nodes():
    """Each corner of the shapes at eight places: with 12 nodes Beta(100, 0.1) at 0.99 misses by 3e-4."""
    x = np.float32([1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 0.97, 0.99])
    moved = lambda a, b: implicit.reparameterize(dist.Beta(a, b), jnp.asarray(x))  # noqa: E731
    along = jit(lambda a, b: jax.jvp(lambda a: moved(a, b), (a,), (np.float32(1),)))
    for a, b in itertools.product(np.float32([0.01, 0.1, 1.0, 10.0, 100.0]), repeat=2):
        got = along(a, b)
        logit = np.log(x.astype(float)) - np.log1p(-x.astype(float))
        exact = x * (1.0 - x.astype(float)) * [beta_slope(at, float(a), float(b)) for at in logit]
        np.testing.assert_allclose(got[1], exact, rtol=3e-5)
