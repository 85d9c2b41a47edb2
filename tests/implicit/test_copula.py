"""Gaussian copulas: quantiles of any marginal, draws at fixed noise, and expected gradients by quadrature."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from scipy import special, stats

from autovi import implicit
from autovi.implicit.composite.copula import normal_scores, quantile
from autovi.implicit.numerics.sampling import invert


def at_scores(law, x):
    """The quantiles of a SciPy law at Phi(x), each by its own tail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of underflow, far out
        lower, upper = law.ppf(stats.norm.cdf(np.minimum(x, 0))), law.isf(stats.norm.sf(np.maximum(x, 0)))
    return np.where(x < 0, lower, upper)


MARGINALS = {
    "Gamma": (lambda a: dist.Gamma(a, 1.5), lambda a: stats.gamma(a, scale=1 / 1.5), 2.0),
    "small Gamma": (lambda a: dist.Gamma(a, 1.0), lambda a: stats.gamma(a), 0.3),
    "Beta": (lambda a: dist.Beta(a, 3.0), lambda a: stats.beta(a, 3.0), 1.5),
    "StudentT": (lambda a: dist.StudentT(a, 0.5), lambda a: stats.t(a, 0.5), 4.0),
    "InverseGamma": (lambda a: dist.InverseGamma(a, 1.5), lambda a: stats.invgamma(a, scale=1.5), 2.0),
    "LogNormal": (lambda a: dist.LogNormal(0.2, a), lambda a: stats.lognorm(a, scale=np.exp(0.2)), 0.7),
    "Gumbel": (lambda a: dist.Gumbel(0.5, a), lambda a: stats.gumbel_r(0.5, a), 1.2),
    "Weibull": (lambda a: dist.Weibull(1.0, a), lambda a: stats.weibull_min(a), 1.7),
}


@pytest.mark.parametrize("name", MARGINALS)
def test_quantiles_and_scores_of_marginals(name):
    make, scipy_law, point = MARGINALS[name]
    scores = np.linspace(-5, 5, 21)
    law = scipy_law(point)
    exact = at_scores(law, scores)
    for x64, tolerance in ((True, 1e-9), (False, 2e-5)):
        both = jit(lambda x, z: (quantile(make(point), x), normal_scores(make(point), z)))
        with jax.enable_x64(x64):
            got, back = both(jnp.asarray(scores), jnp.asarray(exact))
        if name != "Gumbel" or x64:  # whose own inverse loses the upper tail in single precision
            np.testing.assert_allclose(got, exact, rtol=tolerance)
        seen = np.abs(scores) < 4  # beyond, a Beta draw in single precision is next to 1
        np.testing.assert_allclose(np.asarray(back)[seen], scores[seen], atol=tolerance * 5)


def factor(rho):
    """The Cholesky factor of a correlation matrix of two."""
    return jnp.array([[1.0, 0.0], [rho, jnp.sqrt(1 - rho * rho)]])


COPULAS = {
    "Gamma": (
        lambda a, rho: dist.GaussianCopula(dist.Gamma(jnp.array([a, 0.5]), 1.5), correlation_cholesky=factor(rho)),
        lambda a: (stats.gamma(a, scale=1 / 1.5), stats.gamma(0.5, scale=1 / 1.5)),
    ),
    "Beta": (
        lambda a, rho: dist.GaussianCopulaBeta(
            jnp.array([a, 0.5]), jnp.array([3.0, 2.0]), correlation_matrix=jnp.array([[1.0, rho], [rho, 1.0]])
        ),
        lambda a: (stats.beta(a, 3.0), stats.beta(0.5, 2.0)),
    ),
    "Weibull": (
        lambda a, rho: dist.GaussianCopula(dist.Weibull(1.0, jnp.array([a, 0.8])), correlation_cholesky=factor(rho)),
        lambda a: (stats.weibull_min(a), stats.weibull_min(0.8)),
    ),
}


def by_noise(marginals, noise, a, rho):
    """The draws of a copula of two by SciPy, [..., 2]."""
    scores = noise[..., 0], rho * noise[..., 0] + np.sqrt(1 - rho * rho) * noise[..., 1]
    pairs = zip(marginals(a), scores, strict=True)
    return np.stack([at_scores(law, x) for law, x in pairs], -1)


@pytest.mark.parametrize("name", COPULAS)
def test_copula_draws_move_as_at_fixed_noise(name):
    make, marginals = COPULAS[name]
    noise, point, h = np.random.default_rng(0).standard_normal((6, 2)), (1.7, 0.6), 1e-3
    at = lambda da, drho: by_noise(marginals, noise, point[0] + da * h, point[1] + drho * h)  # noqa: E731
    exact = [
        (8 * (at(i, j) - at(-i, -j)) - (at(2 * i, 2 * j) - at(-2 * i, -2 * j))) / (12 * h) for i, j in ((1, 0), (0, 1))
    ]

    @jit
    def slopes(a, rho, value):
        return jax.jacfwd(lambda a, rho: implicit.reparameterize(make(a, rho), value), (0, 1))(a, rho)

    with jax.enable_x64(True):
        np.testing.assert_allclose(slopes(*point, jnp.asarray(at(0, 0))), exact, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(slopes(*point, jnp.asarray(at(0, 0), jnp.float32)), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["Gamma", "Beta"])
def test_copula_draws_have_the_law_and_the_gradient_of_their_product(name):
    """E z1 z2 and its derivatives, exactly by two-dimensional Gauss-Hermite quadrature, and the marginals' laws."""
    make, marginals = COPULAS[name]
    point, num, h = (1.7, 0.6), 200_000, 1e-3
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = np.clip(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1), -7, 7)  # beyond, the weights are 1e-13

    def mean(a, rho):
        return np.sum(np.outer(weights, weights) * by_noise(marginals, grid, a, rho).prod(-1)) / (2 * np.pi)

    def slope(i, j):
        return (mean(point[0] + i * h, point[1] + j * h) - mean(point[0] - i * h, point[1] - j * h)) / (2 * h)

    exact = np.array([mean(*point), slope(1, 0), slope(0, 1)])

    @jit
    def draws(point):
        def product(point):
            value = implicit.sample(jax.random.key(0), make(*point), (num,))
            return value.prod(-1), value

        along = lambda direction: jax.jvp(product, (point,), (direction,), has_aux=True)  # noqa: E731
        return jax.vmap(along, out_axes=(None, 0, None))(jnp.eye(2))  # draws once

    products, slopes, value = (np.asarray(x, np.float64) for x in draws(jnp.array(point)))
    terms = np.stack([products, *slopes])
    error = np.abs(terms.mean(1) - exact) / (terms.std(1) / np.sqrt(num))
    assert error.max() < 5.5
    for law, z in zip(marginals(point[0]), value[:20_000].T, strict=True):
        assert stats.kstest(z, law.cdf).pvalue > 1e-6


def test_copula_second_derivatives_and_batches():
    make, marginals = COPULAS["Weibull"]
    noise, direction, h = np.array([0.4, -1.1]), np.array([1.0, -0.5]), 5e-3
    values = [by_noise(marginals, noise, *(np.array([1.7, 0.6]) + k * h * direction)) for k in range(-3, 4)]
    exact = np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * h * h) @ values

    @jit
    def second(point, direction, value):
        moved = lambda p: implicit.reparameterize(make(p[0], p[1]), value)  # noqa: E731
        return jax.jvp(lambda p: jax.jvp(moved, (p,), (direction,))[1], (point,), (direction,))[1]

    with jax.enable_x64(True):
        np.testing.assert_allclose(second(jnp.array([1.7, 0.6]), direction, values[3]), exact, rtol=1e-6)

    marginal = dist.Weibull(jnp.ones((4, 2)), 1.5)
    fn = dist.GaussianCopula(marginal, correlation_cholesky=jnp.stack([factor(r) for r in (0.1, 0.2, 0.3, 0.4)]))
    both = jit(lambda key: [implicit.sample(key, fn, (5,)) for fn in (fn, fn.expand([3, 4]))])(jax.random.key(0))
    assert [drawn.shape for drawn in both] == [(5, 4, 2), (5, 3, 4, 2)]


def test_angles_have_no_copula_that_can_be_differentiated():
    fn = dist.GaussianCopula(dist.VonMises(jnp.zeros(2), 1.0), correlation_cholesky=factor(0.5))
    with pytest.raises(TypeError, match="GaussianCopula of VonMises: .*circle is cut; use the score function"):
        implicit.sample(jax.random.key(0), fn)
    with pytest.raises(TypeError, match="circle is cut"):
        jax.jvp(lambda fn: implicit.reparameterize(fn, jnp.zeros(2)), (fn,), (jax.tree.map(jnp.ones_like, fn),))


def test_inversion_of_a_distribution_function():
    u = np.concatenate([np.geomspace(1e-12, 0.01, 8), np.linspace(0.05, 0.95, 10)])
    cases = [
        (special.gammaincinv(0.4, u), lambda z: jax.scipy.special.gammainc(jnp.full_like(z, 0.4), z), 0.0, jnp.inf),
        (special.betaincinv(0.5, 2.0, u), partial(jax.scipy.special.betainc, 0.5, 2.0), 0.0, 1.0),
        (special.ndtri(u), jax.scipy.special.ndtr, -jnp.inf, jnp.inf),
        (3 + np.log(u), lambda z: jnp.exp(z - 3), -jnp.inf, 3.0),
        (5 + 2 * u, lambda z: (z - 5) / 2, 5.0, 7.0),
    ]
    for x64, tolerance in ((True, 1e-11), (False, 2e-5)):
        with jax.enable_x64(x64):
            for exact, cdf, low, high in cases:
                got = jit(lambda u, cdf=cdf, low=low, high=high: invert(cdf, u, low, high))(jnp.asarray(u))
                np.testing.assert_allclose(got, exact, rtol=tolerance, atol=tolerance * 1e-3)
