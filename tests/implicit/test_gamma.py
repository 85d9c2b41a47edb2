"""Gamma, Chi2 and InverseGamma: each draw's gradient against quadrature, laws, closed forms, shapes 1e-3 to 1e4."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from implicit_checks import jit
from one_sided import assert_mean, gamma_slope, log_gamma_draws
from scipy import stats
from scipy.special import digamma, gammaincinv, gammaln, polygamma

from autovi import implicit
from autovi.implicit.univariate.gamma import log_gamma_slope, log_ratio

SHAPES = np.array([1e-3, 0.01, 0.03, 0.1, 0.3, 0.7, 1.0, 2.0, 2.99, 3.0, 10.0, 100.0, 1e3, 1e4], np.float32)
NUM = 20_000


@pytest.fixture(scope="module")
def cases() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log(z/a), a and d log z / da: draws, and points beside the score's zeros, where the sides change."""
    generator = np.random.default_rng(0)
    found = []
    for a in SHAPES.astype(np.float64):
        beside = [centre + step / np.sqrt(a) for centre in (digamma(a), digamma(a + 1)) for step in (-1e-3, 1e-3)]
        ratios = np.concatenate([log_gamma_draws(generator, a, 12), beside]) - np.log(a)
        ratios = ratios.astype(np.float32).astype(np.float64)
        found += [(ratio, a, gamma_slope(ratio + np.log(a), a)) for ratio in ratios]
    return tuple(np.array(found).T)


@pytest.mark.parametrize(("x64", "median", "worst"), [(False, 5e-7, 5e-5), (True, 1e-13, 1e-10)])
def test_each_draw_against_quadrature(cases, x64, median, worst):
    ratio, a, slope = cases
    with jax.enable_x64(x64):
        ours = jit_as_users(log_gamma_slope)(*(jnp.asarray(x, "float64" if x64 else "float32") for x in (ratio, a)))
    errors = np.abs(np.asarray(ours, np.float64) / slope - 1)
    assert np.median(errors) < median
    assert errors.max() < worst


def test_law_of_the_draws():
    with jax.enable_x64(True):
        drawn = jit(lambda key: log_ratio(key, jnp.asarray(SHAPES, float), (NUM, len(SHAPES))))(jax.random.key(0))
    for a, ratio in zip(SHAPES.astype(float), np.asarray(drawn).T, strict=True):
        # z itself underflows for small shapes, whose distribution function begins like z^a / Gamma(a + 1).
        log_z = ratio + np.log(a)
        start = np.exp(a * np.minimum(log_z, -200.0) - gammaln(a + 1))
        level = np.where(log_z < -200, start, stats.gamma.cdf(np.exp(np.maximum(log_z, -200.0)), a))
        assert stats.kstest(level, "uniform").pvalue > 1e-6, a


def test_expected_logarithms():
    """E log z = digamma(a) - log(rate), whose derivatives are trigamma(a) and -1/rate; JAX's own are biased for shapes
    below 0.05."""

    def logs(a, rate):
        return jnp.mean(jnp.log(implicit.sample(jax.random.key(1), dist.Gamma(a, rate), (NUM,))), 0)

    def in_log_space(a):
        return implicit.loggamma(jax.random.key(1), a, (NUM, len(SHAPES)))

    a = jnp.asarray(SHAPES)
    values, slopes = jit(lambda a: jax.jvp(in_log_space, (a,), (jnp.ones_like(a),)))(a)
    assert_mean(values, digamma(SHAPES.astype(float)))
    assert_mean(slopes, polygamma(1, SHAPES.astype(float)))
    # A draw that underflows keeps the derivative of its logarithm.
    by_a, by_rate = jit(lambda a, r: jax.jvp(lambda a: logs(a, r), (a,), (jnp.ones_like(a),))[1:] + (
        jax.jvp(lambda r: logs(a, r), (r,), (jnp.ones_like(r),))[1],))(a, jnp.full_like(a, 2.5))  # fmt: skip
    np.testing.assert_allclose(by_a, np.mean(np.asarray(slopes, np.float64), 0), rtol=1e-4)
    np.testing.assert_allclose(by_rate, -1 / 2.5, rtol=1e-4)


FAMILIES = {
    "Gamma": lambda a, rate: dist.Gamma(a, rate),
    "InverseGamma": lambda a, rate: dist.InverseGamma(a, rate),
    "Chi2": lambda a, rate: dist.Chi2(a),
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_draws_and_gradients_are_finite_at_every_shape_and_rate(name, x64):
    """Inside the support too: positive, also where the logarithm is beyond what the number type holds."""
    grid = np.stack(np.meshgrid(np.geomspace(1e-3, 1e4, 15), [1e-12, 1.0, 1e12]), -1).reshape(-1, 2).T

    @jit
    def both(a, rate):
        draw = lambda a, rate: implicit.sample(jax.random.key(2), FAMILIES[name](a, rate), (5_000,))  # noqa: E731
        value, moved = jax.jvp(draw, (a, rate), (jnp.ones_like(a), jnp.zeros_like(a)))
        again = jax.jvp(lambda a: implicit.reparameterize(FAMILIES[name](a, rate), value), (a,), (jnp.ones_like(a),))[1]
        return value, moved, again, jax.grad(lambda p: jnp.sum(jnp.log(draw(*p))))((a, rate))

    with jax.enable_x64(x64):
        value, moved, again, by_log = both(*jnp.asarray(grid, "float64" if x64 else "float32"))
    assert np.all(np.asarray(value) > 0)
    for part in (value, moved, again, *by_log):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_second_derivatives_are_those_of_the_quantile(sign):
    """Of Gamma and of InverseGamma, whose quantile at the same level is the reciprocal."""
    u, a = np.array([0.05, 0.4, 0.9]), np.array([0.7, 2.0, 20.0])
    h = 7e-3 * a  # a fixed step leaves rounding errors of SciPy's quantile of 1e-6 at the largest shape
    values = np.stack([gammaincinv(a + k * h, u[:, None]) ** sign for k in range(-3, 4)])
    first = np.tensordot(np.array([-1, 9, -45, 0, 45, -9, 1]), values, 1) / (60 * h)
    second = np.tensordot(np.array([2, -27, 270, -490, 270, -27, 2]), values, 1) / (180 * h * h)
    make = dist.Gamma if sign == 1 else dist.InverseGamma

    @jit
    def ours(a, value):
        along = lambda a: jax.jvp(  # noqa: E731
            lambda a: implicit.reparameterize(make(a, 1.0), value), (a,), (jnp.ones_like(a),)
        )[1]
        return jax.jvp(along, (a,), (jnp.ones_like(a),))

    with jax.enable_x64(True):
        got = ours(jnp.asarray(a), jnp.asarray(values[3]))
    np.testing.assert_allclose(got, (first, second), rtol=1e-6)


@pytest.mark.slow
def test_compiled_and_vectorized_draws_are_the_same():
    a = jnp.array([0.2, 1.5, 30.0])
    draw = lambda key, a: implicit.sample(key, dist.Gamma(a, 2.0), (4, 3))  # noqa: E731
    plain = draw(jax.random.key(5), a)
    np.testing.assert_allclose(jit(draw)(jax.random.key(5), a), plain, rtol=1e-5)
    keys = jax.random.split(jax.random.key(6), 3)

    def one(key, a):
        draws, back = jax.vjp(lambda a: draw(key, a), a)
        return draws, *back(jnp.ones_like(draws))

    together, slopes = jit(jax.vmap(one))(keys, a)
    one = jit(one)
    for i in range(3):
        alone, slope = one(keys[i], a[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-5)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-4)
