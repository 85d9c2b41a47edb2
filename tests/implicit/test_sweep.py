"""Every continuous distribution of NumPyro: is the gradient of its draws right, in every parameter?

Univariate ones draw by draw, against quadrature of the log density; the others in expectation, against the score
function. `test_every_continuous_distribution_is_here` holds the lists against NumPyro's own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import assert_agree, directional, exact_velocity, quickly
from numpyro.distributions import transforms

from autovi import implicit
from autovi.distributions.table import TABLE

SKEW = jnp.array([0.3, -0.4])
EYE = jnp.eye(3)
MATRIX = 0.3 * jnp.ones((3, 3)) + 0.7 * EYE
TRIL = jnp.linalg.cholesky(MATRIX)
HALF = jnp.array([0.4, 0.6])


def normals(loc0, loc1, scale0, scale1):
    return dist.Normal(jnp.stack([loc0, loc1]), jnp.stack([scale0, scale1]))


# Class: (distribution of its parameters, the parameters). Draw by draw, each parameter against quadrature.
UNIVARIATE = {
    "AsymmetricLaplace": (dist.AsymmetricLaplace, {"loc": 0.0, "scale": 1.3, "asymmetry": 1.4}),
    "AsymmetricLaplaceQuantile": (dist.AsymmetricLaplaceQuantile, {"loc": 0.0, "scale": 1.3, "quantile": 0.3}),
    "Beta": (dist.Beta, {"concentration1": 2.0, "concentration0": 0.7}),
    "BetaProportion": (dist.BetaProportion, {"mean": 0.4, "concentration": 3.0}),
    "Cauchy": (dist.Cauchy, {"loc": 0.5, "scale": 1.3}),
    "Chi2": (dist.Chi2, {"df": 3.0}),
    "Dagum": (dist.Dagum, {"concentration": 1.5, "sharpness": 2.5, "scale": 1.2}),
    "DoublyTruncatedPowerLaw": (dist.DoublyTruncatedPowerLaw, {"alpha": -1.5, "low": 1.0, "high": 2.5}),
    "Exponential": (dist.Exponential, {"rate": 1.7}),
    "FoldedDistribution": (lambda loc: dist.FoldedDistribution(dist.Normal(loc, 1.0)), {"loc": 0.7}),
    "Gamma": (dist.Gamma, {"concentration": 0.6, "rate": 1.7}),
    "Gompertz": (dist.Gompertz, {"concentration": 0.8, "rate": 1.4}),
    "Gumbel": (dist.Gumbel, {"loc": 0.5, "scale": 1.3}),
    "HalfCauchy": (dist.HalfCauchy, {"scale": 1.3}),
    "HalfNormal": (dist.HalfNormal, {"scale": 1.3}),
    "InverseGamma": (dist.InverseGamma, {"concentration": 2.5, "rate": 1.7}),
    "Kumaraswamy": (dist.Kumaraswamy, {"concentration1": 2.0, "concentration0": 0.7}),
    "Laplace": (dist.Laplace, {"loc": 0.0, "scale": 1.3}),
    "LeftTruncatedDistribution": (
        lambda loc, scale, low: dist.LeftTruncatedDistribution(dist.Logistic(loc, scale), low),
        {"loc": 0.5, "scale": 1.3, "low": 0.2},
    ),
    "LeftTruncatedGamma": (
        lambda a, rate, low: dist.LeftTruncatedGamma(dist.Gamma(a, rate), low),
        {"a": 2.5, "rate": 1.3, "low": 0.7},
    ),
    "Levy": (dist.Levy, {"loc": 0.5, "scale": 1.3}),
    "LogNormal": (dist.LogNormal, {"loc": 0.5, "scale": 0.7}),
    "LogUniform": (dist.LogUniform, {"low": 0.5, "high": 2.5}),
    "Logistic": (dist.Logistic, {"loc": 0.5, "scale": 1.3}),
    "LowerTruncatedPowerLaw": (dist.LowerTruncatedPowerLaw, {"alpha": -2.5, "low": 1.0}),
    "MixtureGeneral": (
        lambda p, loc, rate: dist.MixtureGeneral(
            dist.Categorical(jnp.stack([p, 1 - p])), [dist.Normal(loc, 1.3), dist.Cauchy(0.2, 1 / rate)]
        ),
        {"p": 0.4, "loc": -0.5, "rate": 1.4},
    ),
    "MixtureSameFamily": (
        lambda logit, **components: dist.MixtureSameFamily(
            dist.Categorical(logits=jnp.stack([logit, jnp.zeros(())])), normals(**components)
        ),
        {"logit": 0.3, "loc0": -0.5, "loc1": 0.8, "scale0": 1.2, "scale1": 0.7},
    ),
    "Normal": (dist.Normal, {"loc": 0.5, "scale": 1.3}),
    "Pareto": (dist.Pareto, {"scale": 1.3, "alpha": 2.5}),
    "RelaxedBernoulliLogits": (
        lambda temperature, logits: dist.RelaxedBernoulliLogits(temperature, logits),
        {"temperature": 0.6, "logits": 0.3},
    ),
    "RightTruncatedDistribution": (
        lambda df, loc, high: dist.RightTruncatedDistribution(dist.StudentT(df, loc), high),
        {"df": 4.0, "loc": 0.2, "high": 0.9},
    ),
    "RightTruncatedGamma": (
        lambda a, rate, high: dist.RightTruncatedGamma(dist.Gamma(a, rate), high),
        {"a": 2.5, "rate": 1.3, "high": 3.0},
    ),
    "SoftLaplace": (dist.SoftLaplace, {"loc": 0.5, "scale": 1.3}),
    "StudentT": (dist.StudentT, {"df": 4.0, "loc": 0.5, "scale": 1.3}),
    "TransformedDistribution": (
        lambda a, scale: dist.TransformedDistribution(dist.Gamma(a, 1.0), transforms.PowerTransform(1 / scale)),
        {"a": 1.7, "scale": 1.4},
    ),
    "TwoSidedTruncatedDistribution": (
        lambda loc, scale, low, high: dist.TwoSidedTruncatedDistribution(dist.Normal(loc, scale), low, high),
        {"loc": 0.5, "scale": 1.3, "low": -0.3, "high": 1.9},
    ),
    "TwoSidedTruncatedGamma": (
        lambda a, rate, low, high: dist.TwoSidedTruncatedGamma(dist.Gamma(a, rate), low, high),
        {"a": 2.5, "rate": 1.3, "low": 0.4, "high": 3.0},
    ),
    "Uniform": (dist.Uniform, {"low": -0.5, "high": 1.5}),
    "VonMises": (lambda concentration: dist.VonMises(0.0, concentration), {"concentration": 1.7}),
    "Weibull": (dist.Weibull, {"scale": 1.3, "concentration": 0.8}),
}


def spread(x):
    """A smooth cost that tells the coordinates of a draw apart."""
    flat = x.reshape(x.shape[0], -1)
    return jnp.tanh(flat) @ jnp.arange(1.0, flat.shape[-1] + 1) + jnp.sum(flat**2 / (1 + flat**2), -1)


def around(x):
    """A smooth periodic cost of angles."""
    return 2 * jnp.cos(x[:, 0]) + jnp.sin(x[:, 1] - 0.4) + jnp.sin(x[:, 0] + x[:, 1])


def large(x):
    """A smooth cost that also tells draws far from the origin apart."""
    return spread(x) + jnp.sum(jnp.log1p(x.reshape(x.shape[0], -1) ** 2), -1)


# Class: (distribution, parameters, cost): a directional derivative of the expected cost, against the score function.
MULTIVARIATE = {
    "CAR": (
        lambda loc, correlation, precision: dist.CAR(loc, correlation, precision, jnp.ones((3, 3)) - EYE),
        {"loc": jnp.array([0.3, -0.5, 0.1]), "correlation": jnp.array(0.4), "precision": jnp.array(1.3)},
        spread,
    ),
    "CirculantNormal": (
        lambda loc, row: dist.CirculantNormal(loc, row),
        {"loc": jnp.array([0.3, -0.5, 0.1]), "row": jnp.array([1.2, 0.2, 0.2])},
        spread,
    ),
    "Dirichlet": (dist.Dirichlet, {"concentration": jnp.array([0.6, 1.2, 2.0])}, lambda x: x[:, 0] * x[:, 1] - x[:, 2]),
    "EulerMaruyama": (
        lambda drift, first: dist.EulerMaruyama(
            jnp.array([0.0, 0.5, 1.0]), lambda x, t: (-drift * x, 1.0), dist.Normal(first, 1.0)
        ),
        {"first": jnp.array(0.9), "drift": jnp.array(0.5)},
        lambda x: jnp.sum(x, -1),
    ),
    "GaussianCopula": (
        lambda a, rho: dist.GaussianCopula(
            dist.Gamma(a, 1.0), correlation_matrix=jnp.stack([jnp.stack([1.0, rho]), jnp.stack([rho, 1.0])])
        ),
        {"a": jnp.array(1.6), "rho": jnp.array(0.4)},
        lambda x: jnp.tanh(x[:, 0]) * x[:, 1],
    ),
    "GaussianRandomWalk": (lambda scale: dist.GaussianRandomWalk(scale, 3), {"scale": jnp.array(0.7)}, large),
    "GaussianStateSpace": (
        lambda matrix: dist.GaussianStateSpace(3, matrix, jnp.eye(2)),
        {"matrix": jnp.array([[0.5, 0.1], [0.2, 0.4]])},
        large,
    ),
    "InverseWishart": (
        lambda df, v: dist.InverseWishart(df, v),
        {"df": jnp.array(6.0), "v": MATRIX},
        large,
    ),
    "InverseWishartCholesky": (
        lambda df, v: dist.InverseWishartCholesky(df, v),
        {"df": jnp.array(6.0), "v": MATRIX},
        large,
    ),
    "LKJ": (lambda concentration: dist.LKJ(3, concentration), {"concentration": jnp.array(1.3)}, large),
    "LKJCholesky": (lambda concentration: dist.LKJCholesky(3, concentration), {"concentration": jnp.array(1.3)}, large),
    "LowRankMultivariateNormal": (
        dist.LowRankMultivariateNormal,
        {"loc": jnp.array([0.3, -0.5, 0.1]), "cov_factor": jnp.ones((3, 1)) * 0.5, "cov_diag": jnp.full(3, 0.8)},
        spread,
    ),
    "MatrixNormal": (
        lambda loc, row: dist.MatrixNormal(loc, row, jnp.eye(2)),
        {"loc": jnp.arange(4.0).reshape(2, 2) / 3, "row": jnp.array([[1.0, 0.0], [0.3, 0.8]])},
        spread,
    ),
    "MultivariateNormal": (
        lambda loc, covariance: dist.MultivariateNormal(loc, covariance),
        {"loc": jnp.array([0.3, -0.5, 0.1]), "covariance": MATRIX},
        spread,
    ),
    "MultivariateStudentT": (
        lambda df, loc: dist.MultivariateStudentT(df, loc, TRIL),
        {"df": jnp.array(3.0), "loc": jnp.array([0.3, -0.5, 0.1])},
        spread,
    ),
    "ProjectedNormal": (dist.ProjectedNormal, {"concentration": jnp.array([0.6, -0.4, 1.0])}, spread),
    "SineBivariateVonMises": (
        lambda k1, k2, rho: dist.SineBivariateVonMises(0.2, -0.3, k1, k2, rho),
        {"k1": jnp.array(1.4), "k2": jnp.array(1.1), "rho": jnp.array(0.7)},
        around,
    ),
    "SineSkewed": (
        lambda k, skewness: dist.SineSkewed(dist.VonMises(jnp.array([0.2, -0.3]), k).to_event(1), skewness),
        {"k": jnp.array(1.4), "skewness": SKEW},
        around,
    ),
    "Wishart": (lambda df, v: dist.Wishart(df, v), {"df": jnp.array(5.0), "v": MATRIX}, large),
    "WishartCholesky": (lambda df, v: dist.WishartCholesky(df, v), {"df": jnp.array(5.0), "v": MATRIX}, large),
    "ZeroSumNormal": (lambda scale: dist.ZeroSumNormal(scale, (3,)), {"scale": jnp.array(0.7)}, large),
}
# Their draws take long: as many as give a standard error of at most 3 % of the mean. Draw by draw: `test_copula.py`,
# `test_circular.py`.
SLOW = {"GaussianCopula": 25_000, "SineBivariateVonMises": 25_000}
# Without a gradient that a sweep could look at, or wrappers that are in the cases above.
ELSEWHERE = {
    "Delta": "a draw is the parameter itself",
    "Distribution": "the base class",
    "ExpandedDistribution": "test_wrappers_are_read_through",
    "GaussianCopulaBeta": "test_implicit_copula.py",
    "HurdleGamma": "test_implicit_hurdle.py",
    "HurdleLogNormal": "test_implicit_hurdle.py",
    "ImproperUniform": "no sampler",
    "Independent": "test_wrappers_are_read_through",
    "IntervalCensoredDistribution": "test_implicit_hurdle.py",
    "LeftCensoredDistribution": "test_implicit_hurdle.py",
    "MaskedDistribution": "test_wrappers_are_read_through",
    "RightCensoredDistribution": "test_implicit_hurdle.py",
    "TruncatedPolyaGamma": "no parameters",
    "Unit": "no value",
}


def test_every_continuous_distribution_is_here():
    assert not set(UNIVARIATE) & set(MULTIVARIATE)
    continuous = {name for name, row in TABLE.items() if not row.discrete}
    assert set(UNIVARIATE) | set(MULTIVARIATE) | set(ELSEWHERE) == continuous


@pytest.mark.parametrize("name", sorted(UNIVARIATE))
def test_univariate_draw_by_draw(name):
    make, params = UNIVARIATE[name]

    def drawn(p):
        values = implicit.sample(jax.random.key(3), make(**p), (16,))
        return values, values

    with jax.enable_x64(True):
        theta = {n: jnp.asarray(v, jnp.float64) for n, v in params.items()}
        jacobian, values = quickly(jax.jacfwd(drawn, has_aux=True), theta)
        for parameter in params:
            exact = exact_velocity(make, theta, parameter, values)
            np.testing.assert_allclose(jacobian[parameter], exact, rtol=2e-5, atol=1e-7, err_msg=parameter)
    # The same values in single precision, as if someone else had drawn them.
    single = {n: jnp.asarray(v, jnp.float32) for n, v in params.items()}
    given = jnp.asarray(values, jnp.float32)
    found = quickly(jax.jacfwd(lambda p: implicit.reparameterize(make(**p), given)), single)
    for parameter, slopes in found.items():
        np.testing.assert_allclose(slopes, jacobian[parameter], rtol=1e-3, atol=1e-5, err_msg=parameter)


@pytest.mark.parametrize("name", sorted(MULTIVARIATE))
def test_multivariate_in_expectation(name):
    make, params, cost = MULTIVARIATE[name]
    with jax.enable_x64(True):  # in single precision NumPyro's density of a near-singular matrix is nothing to go by
        params = {n: jnp.asarray(v, jnp.float64) for n, v in params.items()}
        num = SLOW.get(name, 100_000)
        assert_agree(*directional(implicit.sample, make, params, cost, jax.random.key(5), num))


def test_wrappers_are_read_through():
    def total(concentration):
        plain = dist.Gamma(concentration, 2.0)
        wrapped = plain.expand([4, 3]).mask(jnp.ones((4, 3), bool)).to_event(1)
        return implicit.sample(jax.random.key(0), wrapped, (2,))

    def both(a):
        draws, slopes = jax.jvp(total, (a,), (jnp.ones(3),))
        again = jax.jvp(lambda a: implicit.reparameterize(dist.Gamma(a, 2.0), draws), (a,), (jnp.ones(3),))[1]
        return draws, slopes, again

    draws, slopes, again = quickly(both, jnp.array([0.5, 1.5, 4.0]))
    assert draws.shape == (2, 4, 3) and np.unique(draws).size == 24
    np.testing.assert_allclose(slopes, again, rtol=1e-4)
