"""Antithetic and quasi-random draws of `explicit` and `implicit`: every particle has the law of the site, the mean is
the exact gradient, and the noise is what theory says it is."""

import functools
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from gradient_checks import assert_unbiased, batched, flat
from jax.scipy.special import ndtr

import autovi
from autovi.distributions.sobol import MAX_DIMENSIONS, sobol_normals
from autovi.estimators import Explicit, Implicit
from autovi.estimators.pathwise import COUPLED
from autovi.preparation import Options, prepare
from oracles import ORACLES

BY_NAME = {o.name: o for o in ORACLES}
WAYS = ({"antithetic": True}, {"sobol": True})
way = pytest.mark.parametrize("options", WAYS, ids=("antithetic", "sobol"))
FAMILY = {
    "Normal": (dist.Normal(0.3, 1.2), scipy.stats.norm(0.3, 1.2)),
    "LogNormal": (dist.LogNormal(0.3, 0.5), scipy.stats.lognorm(0.5, scale=np.exp(0.3))),
    "Cauchy": (dist.Cauchy(0.3, 1.2), scipy.stats.cauchy(0.3, 1.2)),
    "Exponential": (dist.Exponential(2.0), scipy.stats.expon(scale=0.5)),
    "Gumbel": (dist.Gumbel(0.3, 1.2), scipy.stats.gumbel_r(0.3, 1.2)),
    "HalfCauchy": (dist.HalfCauchy(1.2), scipy.stats.halfcauchy(scale=1.2)),
    "HalfNormal": (dist.HalfNormal(1.2), scipy.stats.halfnorm(scale=1.2)),
    "Laplace": (dist.Laplace(0.3, 1.2), scipy.stats.laplace(0.3, 1.2)),
    "Logistic": (dist.Logistic(0.3, 1.2), scipy.stats.logistic(0.3, 1.2)),
    "Uniform": (dist.Uniform(-1.0, 2.0), scipy.stats.uniform(-1, 3)),
    "Beta": (dist.Beta(0.7, 3.0), scipy.stats.beta(0.7, 3)),
    "Chi2": (dist.Chi2(3.0), scipy.stats.chi2(3)),
    "Gamma": (dist.Gamma(0.3, 2.0), scipy.stats.gamma(0.3, scale=0.5)),
    "StudentT": (dist.StudentT(2.5, 0.3, 1.2), scipy.stats.t(2.5, 0.3, 1.2)),
}


def test_every_distribution_is_tested():
    assert set(FAMILY) | {"MultivariateNormal"} == set(COUPLED)


def drawn(estimator, q, particles, repeats, seed=0):
    """(repeats, particles, *shape)"""
    keys = jax.random.split(jax.random.key(seed), repeats)
    noise = jax.vmap(lambda key: estimator.noise(key, particles, q.shape()))(keys)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(lambda one: estimator.draw(one, q).value)))(noise))


@way
@pytest.mark.parametrize("name", sorted(FAMILY))
def test_every_particle_has_the_law_of_the_site(name, options):
    """The Dvoretzky-Kiefer-Wolfowitz bound at a level of 1e-7."""
    q, law = FAMILY[name]
    found = drawn(Explicit(**options), q, 3, 4000)
    assert np.isfinite(found).all()
    for particle in (0, 2):
        distance = scipy.stats.kstest(found[:, particle], law.cdf).statistic
        assert distance < np.sqrt(np.log(2 / 1e-7) / 2 / 4000)


@way
def test_a_multivariate_normal_keeps_its_covariance(options):
    factor = np.array([[1.0, 0.0], [0.7, 0.5]])
    q = dist.MultivariateNormal(jnp.array([0.3, -1.0]), scale_tril=jnp.asarray(factor))
    found = drawn(Explicit(**options), q, 4, 20_000).reshape(-1, 2)
    np.testing.assert_allclose(np.cov(found.T), factor @ factor.T, atol=0.03)
    np.testing.assert_allclose(found.mean(0), [0.3, -1.0], atol=0.03)


@way
@pytest.mark.parametrize(
    ("oracle", "site", "kind"),
    [
        ("normal_normal", "mu", Explicit),
        ("student_t", "mu", Implicit),
        ("gamma_poisson", "rate", Implicit),
        ("beta_binomial", "p", Implicit),
    ],
)
def test_unbiased(oracle, site, kind, options):
    oracle = BY_NAME[oracle]
    asked = Options(guide=oracle.guide, estimators={site: kind(**options)}, num_particles=4)
    engine, inputs = prepare(oracle.model, oracle.data, asked)
    params = {k: jnp.asarray(v) for k, v in oracle.params.items()}

    def gradient(params, key):
        loss = lambda p: -engine.estimate({"guide": {}, "param": p}, {}, inputs.traced(), key)[0]  # noqa: E731
        return jax.grad(loss)(params)

    assert_unbiased(batched(gradient), (params,), flat(jax.grad(oracle.exact_elbo)(params)))


def spread(estimator, cost, particles, repeats=2000):
    """The variance of d/d(m, log s) of the mean cost of z ~ N(m, s), summed over the coordinates of z."""

    def one(key):
        noise = estimator.noise(key, particles, (3,))

        def mean(theta):
            q = dist.Normal(theta[0], jnp.exp(theta[1])).expand([3])
            return jnp.mean(jax.vmap(lambda eps: cost(estimator.draw(eps, q).value))(noise))

        return jax.grad(mean)(jnp.array([0.2, -0.3]))

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), repeats))).var(0)


def test_antithetic_pairs_have_no_noise_from_a_linear_cost():
    linear = lambda z: jnp.sum(z * jnp.array([1.0, -2.0, 0.5]))  # noqa: E731
    assert spread(Explicit(antithetic=True), linear, 4).max() < 1e-11
    plain = spread(Explicit(), linear, 4)
    assert plain[0] < 1e-11 and plain[1] == pytest.approx(np.exp(-0.6) * 5.25 / 4, rel=0.15)


def smooth(z):
    return jnp.sum(jnp.cos(z)) + jnp.tanh(z[0] * z[1] + z[2])


@functools.cache
def smooth_spread(particles, **options):
    return spread(Explicit(**options), smooth, particles).sum()


def test_quasi_random_draws_are_less_noisy_the_more_there_are():
    """Against independent ones, whose variance is halved by twice the particles."""
    assert smooth_spread(16) == pytest.approx(smooth_spread(64) * 4, rel=0.15)
    assert smooth_spread(16, sobol=True) < smooth_spread(16) / 4
    assert smooth_spread(64, sobol=True) < smooth_spread(64) / 10
    assert smooth_spread(64, sobol=True) < smooth_spread(16, sobol=True) / 6


@pytest.mark.parametrize("count", [1, 5, 16])
def test_points_are_a_scrambled_net_in_random_order(count):
    points = np.asarray(ndtr(sobol_normals(jax.random.key(count), count, 4)))
    assert points.shape == (count, 4) and (points > 0).all() and (points < 1).all()
    if count == 16:
        strata = np.floor(points * 16).astype(int)
        for axis in range(4):
            assert sorted(strata[:, axis]) == list(range(16))
        boxes = np.floor(points[:, :2] * 4).astype(int)
        assert len({tuple(box) for box in boxes}) == 16
    other = np.asarray(ndtr(sobol_normals(jax.random.key(count + 1), count, 4)))
    assert not np.allclose(points, other)


def test_two_sites_are_paired_at_random():
    """Of the signs of two sites' noise, as many agree as not: without a random order they would agree or differ all."""
    keys = jax.random.split(jax.random.key(0), 400)
    signs = lambda key: jnp.sign(sobol_normals(key, 16, 1)[:, 0])  # noqa: E731
    together = jax.vmap(lambda key: jnp.mean(signs(key) * signs(jax.random.fold_in(key, 1))))(keys)
    assert float(jnp.mean(together**2)) == pytest.approx(1 / 15, rel=0.3)


def model(y):
    effect = numpyro.sample("effect", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(effect.sum(), 0.5), obs=y)


@way
def test_a_fit_with_the_engines_own_family(options):
    plan = autovi.plan(model, {"y": 1.0}, families={"*": "full_rank"}, estimators={"*": Explicit(**options)})
    assert plan["effect"].estimator == "explicit"
    asked = {"effect": {"estimator": "explicit", **options}}
    fit = autovi.fit(model, {"y": 1.0}, guide="mean_field", estimators=asked, num_steps=300, progress_bar=False)
    assert np.isfinite(fit.losses).all()


@way
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"families": {"*": "low_rank"}}, "antithetic and sobol draws are for Beta, "),
        ({"objective": "iwae"}, "the bound is that of independent ones"),
    ],
)
def test_refused_where_it_would_be_wrong(arguments, message, options):
    with pytest.raises(ValueError, match=f"'explicit' would be wrong, since .*{message}"):
        prepare(model, {"y": 1.0}, Options(estimators={"*": Explicit(**options)}, **arguments))


def test_one_of_the_two_at_a_time():
    with pytest.raises(ValueError, match="antithetic, sobol: expected one of them"):
        Explicit(antithetic=True, sobol=True)


def test_more_numbers_than_direction_numbers():
    with pytest.raises(ValueError, match=f"sobol: expected at most {MAX_DIMENSIONS} numbers in a draw, got 30000"):
        Explicit(sobol=True).noise(jax.random.key(0), 4, (prod((300, 100)),))
